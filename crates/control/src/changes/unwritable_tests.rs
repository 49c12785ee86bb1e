//! A store that can be read and not written, as on a full disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::model::Resource;
use crate::store::memory::MemoryStore;
use crate::store::{Entry, LeaseId, Listing, Store};

#[derive(Debug, Default)]
struct Disk {
    store: MemoryStore,
    is_full: AtomicBool,
}

impl Store for Disk {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        self.store.get(key)
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing, StoreError>> {
        self.store.list(prefix)
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        if self.is_full.load(Ordering::Relaxed) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Box::pin(std::future::ready(Err(StoreError::Unavailable(Box::new(full)))));
        }
        self.store.commit(transaction)
    }

    fn watch(
        &self,
        prefix: &str,
        since: Revision,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Committed>, StoreError>> {
        self.store.watch(prefix, since)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.revoke(lease)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }

    fn backup(&self, to: &std::path::Path) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.backup(to)
    }
}

#[tokio::test]
async fn a_full_disk_is_known_from_the_first_change_it_refuses_until_there_is_room() {
    let disk = Arc::new(Disk::default());
    let snapshots = Arc::new(Snapshots::new(crate::Rules::default()));
    let shared: SharedStore = Arc::<Disk>::clone(&disk);
    let changes = Changes::open(shared, Local::default(), snapshots, 1).await.unwrap();
    let put = |name: &str| {
        let service = json!({ "kind": "service", "name": name });
        let changes_to_make = vec![Change::Put(serde_json::from_value::<Resource>(service).unwrap())];
        let batch = Batch { changes: changes_to_make, ..Batch::default() };
        let changes = Arc::clone(&changes);
        async move { changes.apply(&Actor::local(), batch, 1).await }
    };
    put("web").await.unwrap();
    assert!(changes.is_writable());
    disk.is_full.store(true, Ordering::Relaxed);
    assert_eq!(put("db").await.unwrap_err().code, "unavailable");
    assert!(!changes.is_writable() && changes.is_current(), "it can be read all the same");
    let rung = || changes.doubt.notified().now_or_never().is_some();
    assert!(rung(), "whoever follows reads everything anew");
    changes.retry(1).await;
    assert!(!changes.is_writable(), "there is no room yet");
    assert!(!rung(), "once, and not at each attempt");
    assert_eq!(changes.model().services.len(), 1);
    disk.is_full.store(false, Ordering::Relaxed);
    changes.retry(1).await;
    assert!(changes.is_writable());
    put("db").await.unwrap();
    let before = changes.revision();
    changes.retry(1).await;
    assert_eq!(changes.revision(), before, "a store that can be written is left alone");
}
