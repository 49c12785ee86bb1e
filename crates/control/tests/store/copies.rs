//! Backups, and putting them back.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use adit_control::store::memory::MemoryStore;
use adit_control::store::sqlite::restore;
use adit_control::store::{Store as _, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::join;

use super::support::{list, open, put, put_of, run, sentence, try_commit};

/// A directory with a store that holds one key, and a backup of it.
fn backed_up(value: &[u8]) -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let backup = directory.path().join("backup.db");
    let store = open(&directory.path().join("state"));
    run(async {
        put(&store, "/a", value).await;
        store.backup(&backup).await.expect("it can be written");
    });
    (directory, backup)
}

fn value_in(directory: &Path) -> Vec<u8> {
    run(list(&open(directory))).entries.remove(0).value
}

fn names(directory: &Path) -> Vec<String> {
    let name = |file: std::io::Result<fs::DirEntry>| {
        file.expect("it can be read").file_name().into_string().expect("it is text")
    };
    let mut names: Vec<_> = fs::read_dir(directory).expect("it is there").map(name).collect();
    names.sort();
    names
}

#[test]
fn a_backup_holds_one_moment_while_writing_goes_on() {
    let directory = TempDir::new().expect("a directory");
    let store = open(&directory.path().join("state"));
    let backup = directory.path().join("backup.db");
    let last = run(async {
        let write = async {
            for number in 1..=200_u64 {
                let filler = put_of(&format!("/{number}"), &[0; 2000]);
                let pair = ["/left", "/right"].map(|key| put_of(key, &number.to_be_bytes()));
                try_commit(&store, [pair.as_slice(), &[filler]].concat()).await.expect("it can");
            }
        };
        let copy = async {
            while list(&store).await.revision < 50 {}
            store.backup(&backup).await.expect("it can be written");
            list(&store).await.revision
        };
        join!(write, copy).1
    });
    assert_eq!(fs::metadata(&backup).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(
        names(directory.path()),
        ["backup.db", "state"],
        "a backup is one file, and nothing else is left"
    );

    let fresh = directory.path().join("fresh");
    let restored = restore(&backup, &fresh).expect("it is whole");
    assert_eq!(restored.replaced, None);
    let listing = run(list(&open(&fresh)));
    assert_eq!(listing.entries.len() as u64, restored.entries);
    let count = restored.entries - 2;
    assert!((50..=last).contains(&count), "{count} were there, {last} when it was done");
    for entry in listing.entries.iter().filter(|entry| ["/left", "/right"].contains(&entry.key.as_str())) {
        assert_eq!(entry.value, count.to_be_bytes(), "a transaction is in it whole, or not at all");
    }
}

#[test]
fn a_backup_replaces_an_older_one_whole() {
    let (directory, backup) = backed_up(b"first");
    let store = open(&directory.path().join("state"));
    run(async {
        put(&store, "/a", b"second").await;
        store.backup(&backup).await.expect("it can be written");
        let nowhere = store.backup(&directory.path().join("none/backup.db")).await;
        assert!(matches!(nowhere, Err(StoreError::Unavailable(_))), "{nowhere:?}");
    });
    let fresh = directory.path().join("fresh");
    restore(&backup, &fresh).expect("it is whole");
    assert_eq!(value_in(&fresh), b"second");
}

#[test]
fn a_store_in_memory_says_that_there_is_nothing_to_back_up() {
    let refused = run(async { MemoryStore::new().backup(Path::new("backup.db")).await });
    assert!(matches!(refused, Err(StoreError::Unsupported(_))), "{refused:?}");
}

#[test]
fn what_was_there_before_a_restore_is_kept_and_can_be_put_back() {
    let (directory, backup) = backed_up(b"old");
    let state = directory.path().join("state");
    let before = run(async {
        let store = open(&state);
        put(&store, "/a", b"new").await
    });
    let restored = restore(&backup, &state).expect("it is whole");
    assert_eq!(value_in(&state), b"old");
    let replaced = restored.replaced.expect("something was there");
    assert_eq!(fs::metadata(&replaced).expect("it is kept").permissions().mode() & 0o777, 0o600);
    run(async {
        let store = open(&state);
        let revision = list(&store).await.revision;
        assert!(revision > before, "no revision of before names another state: {revision}");
        assert!(matches!(store.watch("", before).await, Err(StoreError::Compacted(_))));
        assert_eq!(put(&store, "/b", b"").await, revision + 1);
    });
    restore(&replaced, &state).expect("it is whole");
    assert_eq!(value_in(&state), b"new");
}

#[test]
fn a_directory_in_use_is_not_restored_into() {
    let (directory, backup) = backed_up(b"old");
    let state = directory.path().join("state");
    let store = open(&state);
    let refused = sentence(restore(&backup, &state));
    assert!(refused.contains("is used by this process already"), "{refused}");
    run(put(&store, "/a", b"new"));
    drop(store);
    assert_eq!(value_in(&state), b"new");
}

#[test]
fn what_is_no_whole_backup_is_refused_and_changes_nothing() {
    let (directory, backup) = backed_up(&[7; 20_000]);
    let state = directory.path().join("state");
    let length = fs::metadata(&backup).expect("it is there").len();
    let spoilt = directory.path().join("spoilt.db");
    let spoil = |how: &dyn Fn(&File)| {
        fs::copy(&backup, &spoilt).expect("it can be copied");
        how(&File::options().write(true).open(&spoilt).expect("it is there"));
    };
    let names_before = names(&state);
    let cases: [(&str, &dyn Fn()); 6] = [
        ("is not a database of this program", &|| fs::write(&spoilt, "kind: identity\n").expect("it can")),
        ("is not a database of this program", &|| fs::write(&spoilt, "").expect("it can")),
        ("is not a database of this program", &|| {
            fs::remove_file(&spoilt).expect("it is there");
            Connection::open(&spoilt)
                .and_then(|other| other.execute_batch("CREATE TABLE a (b)"))
                .expect("it can");
        }),
        ("this backup is damaged", &|| spoil(&|file| file.set_len(length / 2).expect("it can"))),
        ("this backup is damaged", &|| {
            spoil(&|file| file.write_all_at(&[0xa5; 4000], 4096).expect("it can"))
        }),
        ("newer release", &|| {
            spoil(&|_| {});
            let backup = Connection::open(&spoilt).expect("it is there");
            backup.pragma_update(None, "user_version", 2).expect("it can");
        }),
    ];
    for (expected, make) in cases {
        make();
        let refused = sentence(restore(&spoilt, &state));
        assert!(refused.contains(expected), "{expected}: {refused}");
        assert!(refused.contains("spoilt.db"), "it says which file: {refused}");
        assert!(!refused.contains("put a backup back"), "that is what was tried: {refused}");
        assert_eq!(names(&state), names_before, "{expected}");
        assert_eq!(value_in(&state), [7; 20_000], "{expected}");
    }
    let missing = restore(&directory.path().join("missing.db"), &state);
    assert!(
        matches!(&missing, Err(StoreError::Unavailable(why)) if why.to_string().contains("missing.db")),
        "{missing:?}"
    );
}

#[test]
fn a_restore_that_was_interrupted_is_finished_by_the_next_start() {
    let (directory, backup) = backed_up(b"old");
    let state = directory.path().join("state");
    let fresh = directory.path().join("fresh");
    restore(&backup, &fresh).expect("it is whole");
    // As left by a process that was killed with a log of its own, after the new database was complete: the old one is
    // not moved at all, half, or whole.
    for moved in [&[][..], &["-wal"], &["-wal", "-shm"], &["", "-wal", "-shm"], &[""]] {
        let left = TempDir::new().expect("a directory");
        let store = open(&state);
        run(put(&store, "/a", b"new"));
        for suffix in ["", "-wal", "-shm"] {
            let place = if moved.contains(&suffix) { ".replaced" } else { "" };
            let from = state.join(format!("adit.db{suffix}"));
            fs::copy(from, left.path().join(format!("adit.db{place}{suffix}"))).expect("it can be copied");
        }
        drop(store);
        fs::copy(fresh.join("adit.db"), left.path().join("adit.db.restored")).expect("it can be copied");
        assert_eq!(value_in(left.path()), b"old", "{moved:?}");
        let replaced = left.path().join("adit.db.replaced");
        restore(&replaced, left.path()).expect("it is whole");
        assert_eq!(value_in(left.path()), b"new", "{moved:?}");
    }
}
