//! A process that is killed at any moment loses nothing that it has acknowledged, and leaves nothing half done.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::hint::spin_loop;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use adit_control::store::sqlite::SqliteStore;
use adit_control::store::{Revision, Store as _};
use tempfile::TempDir;

use super::support::{list, open, other_process, put_of, run, sentence, told_directory, try_commit};

const KILLS: u32 = 500;
/// Keys are written again after so many transactions, so that looking at all of them stays cheap.
const SLOTS: u64 = 50;

#[test]
fn whatever_was_acknowledged_is_there_after_a_kill() {
    if let Some(directory) = told_directory() {
        return run(commit_until_killed(&directory));
    }
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    let mut random = Random(seed);
    let directory = TempDir::new().expect("a directory");
    let mut acknowledged = 0;
    let mut commits = 0;
    for life in 0..KILLS {
        let before = acknowledged;
        acknowledged = acknowledged.max(live_and_be_killed(directory.path(), &mut random));
        commits += acknowledged - before;
        // The next one goes on from what was on its way, if that was written.
        acknowledged = run(check(&open(directory.path()), acknowledged, life));
    }
    println!("{KILLS} kills, {commits} acknowledged transactions, {acknowledged} in all");
    assert!(commits > Revision::from(KILLS), "a life has several commits, on average");
}

#[test]
fn a_second_process_is_refused_and_told_by_whom() {
    let directory = TempDir::new().expect("a directory");
    let (mut child, mut lines) = start(directory.path());
    assert!(acknowledged(&mut lines).is_some(), "the first one works");
    let refused = sentence(SqliteStore::open(directory.path()));
    assert!(refused.contains(&format!("is used by another gateway (pid {})", child.id())), "{refused}");
    assert!(refused.contains("stop that one first"), "{refused}");
    assert!(acknowledged(&mut lines).is_some(), "the first one goes on");
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    open(directory.path());
}

/// The transaction of a number writes it to two keys.
async fn commit_until_killed(directory: &Path) {
    let store = open(directory);
    println!();
    let mut number = list(&store).await.revision;
    loop {
        number += 1;
        let writes = ["left", "right"].map(|side| put_of(&key(side, number % SLOTS), &number.to_be_bytes()));
        let revision = try_commit(&store, writes.to_vec()).await.expect("nothing speaks against it");
        assert_eq!(revision, number);
        println!("acknowledged {number}");
    }
}

fn key(side: &str, slot: u64) -> String {
    format!("/{side}/{slot:02}")
}

fn start(directory: &Path) -> (Child, BufReader<ChildStdout>) {
    let command =
        &mut other_process(&[], "crash::whatever_was_acknowledged_is_there_after_a_kill", directory);
    let mut child = command.spawn().expect("this program can be run");
    let lines = BufReader::new(child.stdout.take().expect("it is piped"));
    (child, lines)
}

/// The next acknowledgement; `None`: it ended.
fn acknowledged(lines: &mut BufReader<ChildStdout>) -> Option<Revision> {
    loop {
        let mut line = String::new();
        let length = lines.read_line(&mut line).expect("a pipe can be read");
        if length == 0 || !line.ends_with('\n') {
            return None;
        }
        if let Some(number) = line.trim().strip_prefix("acknowledged ") {
            return Some(number.parse().expect("a number"));
        }
    }
}

/// One life; the last acknowledged transaction, or 0.
fn live_and_be_killed(directory: &Path, random: &mut Random) -> Revision {
    let (mut child, mut lines) = start(directory);
    let mut last = None;
    // One in eight is killed while it starts: while it reads the log of the one before, or makes the file.
    if random.below(8) == 0 {
        random.spin(Duration::from_millis(20));
    } else {
        for _ in 0..=random.below(8) {
            last = acknowledged(&mut lines).or(last);
        }
        random.spin(Duration::from_millis(3));
    }
    child.kill().expect("it runs");
    let status = child.wait().expect("it ended");
    assert_eq!(status.signal(), Some(9), "it did not end by itself: {status}");
    while let Some(number) = acknowledged(&mut lines) {
        last = Some(number);
    }
    last.unwrap_or(0)
}

/// The store is exactly as after the last transaction that was acknowledged, or the one that was on its way then.
async fn check(store: &SqliteStore, acknowledged: Revision, life: u32) -> Revision {
    let listing = list(store).await;
    let last = listing.revision;
    assert!(
        (acknowledged..=acknowledged + 1).contains(&last),
        "life {life}: {acknowledged} acknowledged, {last} there"
    );
    let first = last.saturating_sub(SLOTS - 1).max(1);
    let mut expected: Vec<_> = (first..=last)
        .flat_map(|number| {
            ["left", "right"].map(|side| (key(side, number % SLOTS), number.to_be_bytes().to_vec()))
        })
        .collect();
    expected.sort();
    let found: Vec<_> = listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(found, expected, "life {life}");

    let since = last.saturating_sub(20);
    let mut watch = store.watch("", since).await.expect("the past is there too");
    for number in since + 1..=last {
        let told = watch.recv().await.expect("the past is there too");
        assert_eq!((told.revision, told.events.len()), (number, 2), "life {life}");
    }
    last
}

/// A sequence that its seed decides.
struct Random(u64);

impl Random {
    /// Below a bound that is small.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Passes some time of up to `most`; a timer would be too coarse to hit every moment.
    fn spin(&mut self, most: Duration) {
        let micros = u64::try_from(most.as_micros()).expect("it is short");
        let until = Instant::now() + Duration::from_micros(self.below(micros));
        while Instant::now() < until {
            spin_loop();
        }
    }
}
