//! The state directory: who may read it, what is refused, what is still there after a restart.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use adit_control::store::sqlite::SqliteStore;
use adit_control::store::{Event, History, Store as _, StoreError, Transaction, Write};
use futures_util::FutureExt as _;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::timeout;

use super::support::{list, open, put, put_of, run, sentence, try_commit};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn only_its_owner_may_read_the_state() {
    let parent = TempDir::new().expect("a directory");
    let directory = parent.path().join("a/b");
    let store = open(&directory);
    run(put(&store, "/a", b"secret"));
    assert_eq!(mode(&directory), 0o700);
    for name in ["adit.db", "adit.db-wal", "adit.db-shm", "adit.lock"] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    drop(store);
    fs::set_permissions(directory.join("adit.db"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let store = open(&directory);
    assert_eq!(mode(&directory.join("adit.db")), 0o600, "what others might read is theirs no more");
    assert_eq!(mode(&directory.join("adit.db-wal")), 0o600);
    drop(store);
}

#[test]
fn one_process_opens_a_directory_once() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    let refused = sentence(SqliteStore::open(directory.path()));
    assert!(refused.contains("is used by this process already"), "{refused}");
    run(put(&store, "/a", b"1"));
    drop(store);
    assert_eq!(run(list(&open(directory.path()))).entries.len(), 1);
}

#[test]
fn the_next_process_may_wait_until_the_one_before_lets_go() {
    let directory = TempDir::new().expect("a directory");
    run(async {
        let store = open(directory.path());
        let mut watch = store.watch("", 0).await.expect("the past is kept");
        let refused = sentence(SqliteStore::open_within(directory.path(), Duration::from_millis(1)).await);
        assert!(refused.contains("is used by"), "{refused}");

        let mut next = Box::pin(SqliteStore::open_within(directory.path(), Duration::from_secs(20)));
        assert!((&mut next).now_or_never().is_none(), "it waits");
        let last = put(&store, "/a", b"1").await;
        store.close().await;
        let next = next.await.expect("it is free");
        assert_eq!(list(&next).await.revision, last, "what was written until then is there");
        assert_eq!(watch.recv().await.map(|told| told.revision), Some(last));
        assert_eq!(watch.recv().await, None, "a watch of a store that is closed ends");
        assert!(matches!(store.list("").await, Err(StoreError::Unavailable(_))));
        assert!(matches!(try_commit(&store, Vec::new()).await, Err(StoreError::Unavailable(_))));
        store.close().await;
        assert_eq!(put(&next, "/a", b"2").await, last + 1, "the next one has it to itself");
    });
}

#[test]
fn a_database_of_a_newer_release_is_refused() {
    let directory = TempDir::new().expect("a directory");
    run(put(&open(directory.path()), "/a", b"1"));
    let path = directory.path().join("adit.db");
    let database = Connection::open(&path).expect("it is there");
    database.pragma_update(None, "user_version", 99).expect("it can be written");
    drop(database);
    let before = fs::read(&path).expect("it is there");
    let refused = sentence(SqliteStore::open(directory.path()));
    assert!(refused.contains("written by a newer release (format 99, this one knows up to 1)"), "{refused}");
    assert!(fs::read(&path).expect("it is there") == before, "it was left as it is");
}

#[test]
fn what_is_not_ours_is_refused_and_left_as_it_is() {
    let text = |path: &Path| fs::write(path, "tokens:\n- name: a\n").expect("it can be written");
    let other = |path: &Path| {
        let database = Connection::open(path).expect("a database");
        database
            .execute_batch("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1);")
            .expect("it can be written");
    };
    for make in [&text as &dyn Fn(&Path), &other] {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("adit.db");
        make(&path);
        let before = fs::read(&path).expect("it is there");
        let refused = sentence(SqliteStore::open(directory.path()));
        assert!(refused.contains("is not a database of this program"), "{refused}");
        assert!(refused.contains("move the file away"), "{refused}");
        assert!(fs::read(&path).expect("it is there") == before, "it was left as it is");
    }
}

#[test]
fn a_damaged_database_is_refused() {
    for (what, from, length) in [("its middle", 8192, 8192), ("the first page", 100, 3000)] {
        let directory = TempDir::new().expect("a directory");
        run(async {
            let store = open(directory.path());
            for number in 0..200 {
                put(&store, &format!("/{number}"), &[7; 500]).await;
            }
        });
        let file = File::options().write(true).open(directory.path().join("adit.db")).expect("it is there");
        file.write_all_at(&vec![0xa5; length], from).expect("it can be written");
        let refused = sentence(SqliteStore::open(directory.path()));
        assert!(refused.contains("is damaged"), "{what}: {refused}");
        assert!(refused.contains("adit backup restore"), "{what}: {refused}");
    }
}

#[test]
fn a_log_without_its_database_is_no_new_state() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    run(put(&store, "/a", b"1"));
    let copy = TempDir::new().expect("a directory");
    fs::copy(directory.path().join("adit.db-wal"), copy.path().join("adit.db-wal")).expect("it is there");
    let refused = sentence(SqliteStore::open(copy.path()));
    assert!(refused.contains("it is empty or missing"), "{refused}");
}

#[test]
fn an_empty_file_is_where_a_new_state_was_about_to_begin() {
    let directory = TempDir::new().expect("a directory");
    File::create(directory.path().join("adit.db")).expect("it can be written");
    assert_eq!(run(list(&open(directory.path()))).revision, 0);
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let parent = TempDir::new().expect("a directory");
    let file = parent.path().join("file");
    File::create(&file).expect("it can be written");
    match SqliteStore::open(&file.join("state")) {
        Err(StoreError::Unavailable(why)) => {
            assert!(why.to_string().starts_with("cannot make the directory"), "{why}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_restart_keeps_keys_revisions_and_the_past() {
    let directory = TempDir::new().expect("a directory");
    run(async {
        let store = open(directory.path());
        put(&store, "/a", b"1").await;
        try_commit(&store, vec![put_of("/b", b"2"), Write::Delete { key: "/a".to_owned() }])
            .await
            .expect("it can");
        let before = list(&store).await;
        drop(store);
        let store = open(directory.path());
        assert_eq!(list(&store).await, before);
        let mut watch = store.watch("", 1).await.expect("the past is kept");
        assert_eq!(put(&store, "/c", b"3").await, 3, "it counts on");
        let told = watch.recv().await.expect("it is told");
        let gone = Event { key: "/a".to_owned(), value: None };
        assert_eq!(told.events, [Event { key: "/b".to_owned(), value: Some(b"2".to_vec()) }, gone]);
        assert_eq!(watch.recv().await.map(|told| told.revision), Some(3));
    });
}

#[test]
fn a_lease_begins_anew_after_a_restart_and_then_ends() {
    let directory = TempDir::new().expect("a directory");
    run(async {
        let store = open(directory.path());
        let lease = store.grant(Duration::from_secs(10)).await.expect("a lease");
        let writes = vec![Write::Put { key: "/a".to_owned(), value: Vec::new(), lease: Some(lease) }];
        let since = store.commit(Transaction { expect: Vec::new(), writes }).await.expect("it can");
        drop(store);

        let store = open(directory.path());
        store.keep_alive(lease).await.expect("it lives on");
        assert_eq!(list(&store).await.entries.len(), 1);
        assert_ne!(store.grant(Duration::from_secs(60)).await.expect("a lease"), lease);
        let mut watch = store.watch("", since).await.expect("the past is kept");
        let told = timeout(Duration::from_secs(60), watch.recv()).await.expect("it ends in time");
        assert_eq!(told.expect("it is told").events, [Event { key: "/a".to_owned(), value: None }]);
        drop(store);

        let store = open(directory.path());
        assert!(matches!(store.keep_alive(lease).await, Err(StoreError::NoLease)), "it does not come back");
    });
}

#[test]
fn the_past_is_bounded_in_bytes_too_and_over_a_restart() {
    let directory = TempDir::new().expect("a directory");
    let keep = History { transactions: 100, bytes: 10_000 };
    let reopen = || SqliteStore::open_with(directory.path(), keep).expect("it opens");
    run(async {
        let mut store = reopen();
        for number in 1..=20 {
            assert_eq!(put(&store, "/a", &[0; 1000]).await, number);
            if number == 15 {
                drop(store);
                store = reopen();
            }
        }
        // Nine values with their key are 9018 bytes, ten would be 10,020.
        assert!(matches!(store.watch("", 10).await, Err(StoreError::Compacted(10))));
        let mut watch = store.watch("", 11).await.expect("as much is kept");
        for number in 12..=20 {
            assert_eq!(watch.recv().await.map(|told| told.revision), Some(number));
        }
        put(&store, "/a", &[0; 50_000]).await;
        put(&store, "/a", b"small").await;
        assert!(matches!(store.watch("", 20).await, Err(StoreError::Compacted(20))));
        assert!(store.watch("", 21).await.is_ok());
    });
}

#[test]
fn what_another_program_writes_is_noticed_and_not_overwritten() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    run(async {
        put(&store, "/a", b"1").await;
        let mut watch = store.watch("", 1).await.expect("the past is kept");
        let database = Connection::open(directory.path().join("adit.db")).expect("it is there");
        database.execute("UPDATE state SET revision = 7", []).expect("it can be written");
        let refused = try_commit(&store, vec![put_of("/a", b"2")]).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(watch.recv().await, None, "whoever watches lists again");
        assert_eq!(put(&store, "/a", b"2").await, 8, "it goes on from there");
    });
}

#[test]
fn a_directory_that_is_gone_or_another_one_takes_nothing_and_goes_on_when_it_is_back() {
    let outside = TempDir::new().expect("a directory");
    let directory = outside.path().join("state");
    let elsewhere = outside.path().join("elsewhere");
    let store = open(&directory);
    run(async {
        put(&store, "/a", b"1").await;
        let mut watch = store.watch("", 1).await.expect("the past is kept");
        fs::rename(&directory, &elsewhere).expect("it can be moved");
        for replaced in [false, true] {
            if replaced {
                fs::create_dir(&directory).expect("a directory");
                fs::copy(elsewhere.join("adit.db"), directory.join("adit.db")).expect("it can be copied");
            }
            let refused = try_commit(&store, vec![put_of("/b", b"2")]).await;
            let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
            let why = why.to_string();
            assert!(why.contains("was removed or replaced") && why.contains("restart the gateway"), "{why}");
            assert!(store.grant(Duration::from_secs(60)).await.is_err());
        }
        fs::remove_dir_all(&directory).expect("it is there");
        fs::rename(&elsewhere, &directory).expect("it can be moved back");
        assert_eq!(list(&store).await.revision, 1, "what was refused left nothing");
        assert_eq!(put(&store, "/c", b"3").await, 2, "it goes on");
        let told = watch.recv().await.expect("it is told");
        assert_eq!(told.events, [Event { key: "/c".to_owned(), value: Some(b"3".to_vec()) }]);
    });
    drop(store);
    assert_eq!(run(list(&open(&directory))).revision, 2, "what was acknowledged is there");
}

#[test]
fn a_byte_that_changed_anywhere_in_the_file_is_refused_in_words_or_does_no_harm() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    run(async {
        for number in 0..60 {
            put(&store, &format!("/{number}"), &[b'v'; 100]).await;
        }
    });
    drop(store);
    let whole = fs::read(directory.path().join("adit.db")).expect("it is there");
    let (mut refused, mut harmless) = (0, 0);
    // A prime: every place within a page is met.
    for at in (0..whole.len()).step_by(211) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xa5;
        let elsewhere = TempDir::new().expect("a directory");
        fs::write(elsewhere.path().join("adit.db"), damaged).expect("it can be written");
        match SqliteStore::open(elsewhere.path()) {
            Err(StoreError::Unusable(why)) => {
                let is_told =
                    ["put a backup back", "put a backup of this one back", "name another directory"];
                assert!(is_told.iter().any(|next| why.contains(next)), "byte {at}: {why}");
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other:?}"),
            Ok(store) => {
                // A value that changed is a value; whatever is asked of it has an answer.
                let outcome = run(async {
                    let listed = store.list("").await;
                    let written = try_commit(&store, vec![put_of("/new", b"")]).await;
                    (listed.map(|listing| listing.entries.len()), written)
                });
                harmless += u32::from(matches!(outcome, (Ok(60), Ok(61))));
            }
        }
    }
    assert!(refused > 5 && harmless > 5, "{refused} refused, {harmless} without harm");
}
