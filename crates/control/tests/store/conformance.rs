//! Every store passes the one suite.

use adit_control::store::History;
use adit_control::store::conformance::{Bounds, check};
use adit_control::store::memory::MemoryStore;
use adit_control::store::sqlite::SqliteStore;
use parking_lot::Mutex;
use tempfile::TempDir;

const KEEP: History = History { transactions: 200, bytes: 4 << 20 };
const BOUNDS: Bounds = Bounds { history: 200, unread: 300 };

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_does_what_every_store_does() {
    check(async || MemoryStore::with_history(KEEP), BOUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_on_disk_does_what_every_store_does() {
    let directories = Mutex::new(Vec::new());
    let make = async || {
        let directory = TempDir::new().expect("a directory");
        let store = SqliteStore::open_with(directory.path(), KEEP).expect("a new store");
        directories.lock().push(directory);
        store
    };
    check(make, BOUNDS).await;
}
