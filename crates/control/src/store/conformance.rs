//! What every store does, as one suite: a store that passes may be put in the place of another.
//!
//! It runs anywhere: `check(async || MemoryStore::new(), bounds).await` inside a test on a
//! runtime with several threads. Whatever is wrong ends it by an assertion.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{
    Committed, Entry, Event, Expect, LeaseId, Revision, SharedStore, Store, StoreError, Transaction, Write,
};

mod leases;
mod races;
mod watches;

/// Long enough on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(60);

/// What differs between the stores that are checked.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// After that many more transactions of one small key, an old one is not known any more.
    pub history: usize,
    /// A watch that has so many transactions unread is ended.
    pub unread: usize,
}

/// Checks everything. `make` gives a new store each time, empty and used by nobody else.
pub async fn check<S: Store>(make: impl AsyncFn() -> S, bounds: Bounds) {
    let make = async || {
        let store: SharedStore = Arc::new(make().await);
        store
    };
    keys_hold_what_was_put(&make().await).await;
    a_list_is_what_begins_with_the_prefix(&make().await).await;
    a_transaction_happens_if_all_is_as_expected(&make().await).await;
    a_transaction_writes_a_key_once(&make().await).await;
    revisions_count_transactions_that_change_something(&make().await).await;
    watches::tell_the_past_and_then_the_present(&make().await).await;
    watches::tell_their_prefix_only(&make().await).await;
    watches::of_what_is_forgotten_are_refused(&make().await, bounds.history).await;
    watches::nobody_reads_end(&make().await, bounds.unread).await;
    watches::end_with_the_store(make().await).await;
    leases::take_their_keys_with_them(&make().await).await;
    leases::live_while_they_are_kept_alive(&make().await).await;
    leases::end_when_they_are_revoked(&make().await).await;
    leases::let_go_of_keys_that_are_put_again(&make().await).await;
    races::no_update_is_lost(&make().await).await;
    races::nobody_sees_half_a_transaction(&make().await).await;
    races::a_dropped_commit_is_whole_or_not_at_all(&make().await).await;
}

async fn keys_hold_what_was_put(store: &SharedStore) {
    assert_eq!(get(store, "/a").await, None, "a new store is empty");
    let all_bytes: Vec<u8> = (0..=255).collect();
    let values = [Vec::new(), b"one".to_vec(), all_bytes, vec![7; 256 << 10]];
    let mut created = None;
    for value in values {
        let revision = put(store, "/a", &value).await;
        let created = *created.get_or_insert(revision);
        let entry = Entry { key: "/a".to_owned(), value, created, modified: revision };
        assert_eq!(
            get(store, "/a").await,
            Some(entry),
            "what was put is there as soon as it is acknowledged"
        );
    }
    delete(store, "/a").await;
    assert_eq!(get(store, "/a").await, None, "what was deleted is gone");
    let revision = put(store, "/a", b"again").await;
    let entry = get(store, "/a").await.expect("it was put");
    assert_eq!(entry.created, revision, "a key that was deleted begins anew");
}

async fn a_list_is_what_begins_with_the_prefix(store: &SharedStore) {
    let listing = store.list("").await.expect("a list");
    assert_eq!(listing.entries, [], "a new store is empty");
    let keys = ["/a/2", "/a/10", "/a", "/ab", "/b/1", "/a/é", "/a/\u{10ffff}x", "/a/~", "/A/1", "/a_", "/a%"];
    let puts = keys.iter().map(|key| put_of(key, key.as_bytes())).collect();
    let revision = commit(store, Vec::new(), puts).await;
    put(store, "/b/1", b"later").await;
    let cases: [(&str, &[&str]); 7] = [
        ("/a/", &["/a/10", "/a/2", "/a/~", "/a/é", "/a/\u{10ffff}x"]),
        ("/a/\u{10ffff}", &["/a/\u{10ffff}x"]),
        ("/a_", &["/a_"]),
        ("/a%", &["/a%"]),
        ("/a/2", &["/a/2"]),
        ("/c", &[]),
        ("/A", &["/A/1"]),
    ];
    for (prefix, expected) in cases {
        let listing = store.list(prefix).await.expect("a list");
        assert_eq!(listing.revision, revision + 1, "a list says as of when it is");
        let found: Vec<_> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(found, expected, "what begins with {prefix}, in the order of keys");
        assert!(listing.entries.iter().all(|entry| entry.modified == revision), "{prefix}");
    }
    assert_eq!(
        store.list("").await.expect("a list").entries.len(),
        keys.len(),
        "everything begins with nothing"
    );
}

async fn a_transaction_happens_if_all_is_as_expected(store: &SharedStore) {
    let first = put(store, "/there", b"1").await;
    let second = put(store, "/there", b"2").await;
    let absent = |key: &str| Expect::Absent(key.to_owned());
    let present = |key: &str| Expect::Present(key.to_owned());
    let modified = |key: &str, revision| Expect::Modified(key.to_owned(), revision);
    let wrong = [
        absent("/there"),
        present("/missing"),
        modified("/there", first),
        modified("/there", second + 1),
        modified("/missing", second),
        modified("/missing", 0),
    ];
    for expect in wrong {
        let all = vec![present("/there"), expect.clone()];
        let writes = vec![put_of("/new", b"x"), delete_of("/there")];
        let refused = store.commit(Transaction { expect: all, writes }).await;
        assert!(
            matches!(&refused, Err(StoreError::Conflict { key }) if key == expect.key()),
            "{expect:?}: {refused:?}"
        );
    }
    let listing = store.list("").await.expect("a list");
    assert_eq!(listing.revision, second, "what was refused has no revision");
    assert_eq!(listing.entries.len(), 1, "what was refused wrote nothing");
    assert_eq!(listing.entries[0].value, b"2", "what was refused wrote nothing");

    let expect = vec![modified("/there", second), absent("/new"), present("/there")];
    let third = commit(store, expect, vec![put_of("/new", b"x"), delete_of("/there")]).await;
    assert_eq!(get(store, "/there").await, None, "it was deleted");
    assert_eq!(get(store, "/new").await.map(|entry| entry.modified), Some(third), "it was put");
    let last = commit(store, vec![present("/new")], Vec::new()).await;
    assert_eq!(last, third, "a transaction may only compare");
}

async fn a_transaction_writes_a_key_once(store: &SharedStore) {
    let pairs = [
        [put_of("/a", b"1"), put_of("/a", b"2")],
        [put_of("/a", b"1"), delete_of("/a")],
        [delete_of("/a"), delete_of("/a")],
    ];
    for pair in pairs {
        let refused = store.commit(Transaction { expect: Vec::new(), writes: pair.to_vec() }).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{pair:?}: {refused:?}");
        assert_eq!(get(store, "/a").await, None, "what was refused wrote nothing");
    }
}

async fn revisions_count_transactions_that_change_something(store: &SharedStore) {
    let first = put(store, "/a", b"1").await;
    assert!(first > 0, "0 is before the first");
    assert_eq!(put(store, "/a", b"1").await, first + 1, "to put the same value is a change");
    assert_eq!(delete(store, "/none").await, first + 1, "nothing was there to delete");
    assert_eq!(commit(store, Vec::new(), Vec::new()).await, first + 1, "nothing was asked for");
    assert_eq!(commit(store, Vec::new(), vec![put_of("/b", b""), delete_of("/a")]).await, first + 2);
    let lease = store.grant(Duration::from_secs(60)).await.expect("a lease");
    store.keep_alive(lease).await.expect("it lives");
    store.revoke(lease).await.expect("it lives");
    assert_eq!(
        store.list("").await.expect("a list").revision,
        first + 2,
        "a lease without keys changes nothing"
    );
}

fn put_of(key: &str, value: &[u8]) -> Write {
    Write::Put { key: key.to_owned(), value: value.to_vec(), lease: None }
}

fn leased(key: &str, lease: LeaseId) -> Write {
    Write::Put { key: key.to_owned(), value: b"leased".to_vec(), lease: Some(lease) }
}

fn delete_of(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

async fn commit(store: &SharedStore, expect: Vec<Expect>, writes: Vec<Write>) -> Revision {
    store.commit(Transaction { expect, writes }).await.expect("nothing speaks against it")
}

async fn put(store: &SharedStore, key: &str, value: &[u8]) -> Revision {
    commit(store, Vec::new(), vec![put_of(key, value)]).await
}

async fn delete(store: &SharedStore, key: &str) -> Revision {
    commit(store, Vec::new(), vec![delete_of(key)]).await
}

async fn get(store: &SharedStore, key: &str) -> Option<Entry> {
    store.get(key).await.expect("the store can be read")
}

async fn watch(store: &SharedStore, prefix: &str, since: Revision) -> mpsc::Receiver<Committed> {
    store.watch(prefix, since).await.expect("the past is known")
}

async fn next(watch: &mut mpsc::Receiver<Committed>) -> Option<Committed> {
    timeout(DEADLINE, watch.recv()).await.expect("a watch tells in time, or ends")
}

fn happened(key: &str, value: Option<&[u8]>) -> Event {
    Event { key: key.to_owned(), value: value.map(<[u8]>::to_vec) }
}
