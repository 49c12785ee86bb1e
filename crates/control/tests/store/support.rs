//! What several of the tests need: short words for reading and writing, and the test's own program as another process.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adit_control::store::sqlite::SqliteStore;
use adit_control::store::{Listing, Revision, Store as _, StoreError, Transaction, Write};

/// Names the directory that another process of a test works in.
const DIRECTORY: &str = "ADIT_TEST_DIRECTORY";

/// The directory, if this is that other process.
pub(crate) fn told_directory() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(PathBuf::from)
}

/// This program once more, to run one test in a process of its own; `before` comes first on the command line.
pub(crate) fn other_process(before: &[&str], test: &str, directory: &Path) -> Command {
    let program = env::current_exe().expect("this program has a path");
    let mut line: Vec<OsString> = before.iter().map(OsString::from).collect();
    line.push(program.into());
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(DIRECTORY, directory).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Runs asynchronous code to its end.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

pub(crate) fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(directory).expect("the store opens")
}

pub(crate) fn put_of(key: &str, value: &[u8]) -> Write {
    Write::Put { key: key.to_owned(), value: value.to_vec(), lease: None }
}

pub(crate) async fn try_commit(store: &SqliteStore, writes: Vec<Write>) -> Result<Revision, StoreError> {
    store.commit(Transaction { expect: Vec::new(), writes }).await
}

pub(crate) async fn put(store: &SqliteStore, key: &str, value: &[u8]) -> Revision {
    try_commit(store, vec![put_of(key, value)]).await.expect("nothing speaks against it")
}

pub(crate) async fn list(store: &SqliteStore) -> Listing {
    store.list("").await.expect("the store can be read")
}

/// The sentence of an error that says it whole.
pub(crate) fn sentence<T: std::fmt::Debug>(refused: Result<T, StoreError>) -> String {
    match refused {
        Err(StoreError::InUse(sentence) | StoreError::Unusable(sentence)) => sentence,
        other => panic!("it was not refused by a sentence: {other:?}"),
    }
}
