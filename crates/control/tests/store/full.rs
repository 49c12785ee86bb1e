//! A disk that is full: writing is refused, nothing acknowledged is lost, reading goes on, and so does writing when there
//! is room again.
//!
//! Where mounting is allowed (to root, or in a namespace of one's own), the disk is a tmpfs of one mebibyte. Elsewhere
//! the process has a limit on the size of a file, which SQLite meets as a failed write rather than as a full disk.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use adit_control::store::StoreError;
use adit_control::store::sqlite::SqliteStore;
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::support::{list, open, other_process, put_of, run, told_directory, try_commit};

const ME: &str = "full::a_full_disk_refuses_to_write_and_loses_nothing";
const SIGXFSZ: i32 = 25;

#[test]
fn a_full_disk_refuses_to_write_and_loses_nothing() {
    match told_directory() {
        Some(directory) if directory.ends_with("tmpfs") => run(fill_beside_ballast(&directory)),
        Some(directory) => run(fill_up_to_a_limit(&directory)),
        None => start_on_a_small_disk(),
    }
}

fn start_on_a_small_disk() {
    let directory = TempDir::new().expect("a directory");
    let disk = directory.path().join("tmpfs");
    fs::create_dir(&disk).expect("a directory");
    let mount = "mount -t tmpfs -o size=1m adit \"$ADIT_TEST_DIRECTORY\" && exec \"$@\"";
    let namespaces: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-m", "--map-root-user"]];
    let may_mount = |namespace: &&[&str]| {
        let mut attempt = Command::new(namespace[0]);
        attempt.args(&namespace[1..]).args(["sh", "-c", mount, "sh", "true"]);
        attempt.env("ADIT_TEST_DIRECTORY", &disk).stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    };
    let (before, directory) = match namespaces.into_iter().find(may_mount) {
        Some(namespace) => ([namespace, &["sh", "-c", mount, "sh"]].concat(), disk.as_path()),
        None => (Vec::new(), directory.path()),
    };
    let output = other_process(&before, ME, directory)
        .stderr(Stdio::inherit())
        .output()
        .expect("this program can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("filled twice"), "{text}");
    let with = if before.is_empty() { "a limit on the size of files" } else { "a tmpfs of 1 MiB" };
    println!("{with}, {}", text.lines().find(|line| line.starts_with("filled")).unwrap_or_default());
}

async fn fill_beside_ballast(directory: &Path) {
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![0; 400 << 10]).expect("there is room for it");
    fill(directory, || fs::remove_file(&ballast).expect("it is there")).await;
}

async fn fill_up_to_a_limit(directory: &Path) {
    // Only who listens to the signal is told by the call that fails.
    let _signal = signal(SignalKind::from_raw(SIGXFSZ)).expect("it can be listened to");
    limit_files(Some(256 << 10));
    fill(directory, || limit_files(Some(512 << 10))).await;
}

fn limit_files(most: Option<u64>) {
    setrlimit(Resource::Fsize, Rlimit { current: most, maximum: None }).expect("it is below the hard one");
}

/// Fills the disk, has room made, and goes on until it is full again.
async fn fill(directory: &Path, make_room: impl FnOnce()) {
    let state = directory.join("state");
    let mut store = open(&state);
    let first = until_it_is_full(&store, 0).await;
    assert!(first > 5, "some were written: {first}");
    assert_everything_is_there(&store, first).await;
    store = again(store, &state);
    assert_everything_is_there(&store, first).await;

    make_room();
    let second = until_it_is_full(&store, first).await;
    assert!(second > first + 5, "there was room: {first} and then {second}");
    assert_everything_is_there(&store, second).await;
    store = again(store, &state);
    assert_everything_is_there(&store, second).await;
    println!("\nfilled twice: {first}, {second}");
}

/// The gateway stops and starts, on a disk that is full.
fn again(store: SqliteStore, state: &Path) -> SqliteStore {
    drop(store);
    open(state)
}

fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(128)
}

fn writes(number: u64) -> Vec<adit_control::store::Write> {
    ["left", "right"].map(|side| put_of(&format!("/{number:04}/{side}"), &value(number))).to_vec()
}

async fn until_it_is_full(store: &SqliteStore, from: u64) -> u64 {
    for number in from + 1.. {
        match try_commit(store, writes(number)).await {
            Ok(revision) => assert_eq!(revision, number),
            Err(StoreError::Unavailable(_)) => return number - 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    unreachable!("no disk is endless")
}

async fn assert_everything_is_there(store: &SqliteStore, last: u64) {
    let listing = list(store).await;
    assert_eq!(listing.revision, last, "what failed left nothing");
    assert_eq!(listing.entries.len() as u64, 2 * last);
    for (number, pair) in (1..=last).zip(listing.entries.chunks(2)) {
        assert!(pair.iter().all(|entry| entry.value == value(number)), "{number} is whole");
    }
}
