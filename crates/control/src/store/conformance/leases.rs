//! Leases: keys that go when nobody keeps them.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Committed, LeaseId, SharedStore, StoreError, Transaction, commit, get, happened, leased, next, put_of,
    watch,
};

/// Longer than a busy machine with a slow disk stalls.
const TTL: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(600);

pub(super) async fn take_their_keys_with_them(store: &SharedStore) {
    let lease = store.grant(TTL).await.expect("a lease");
    let stays = store.grant(LONG).await.expect("a lease");
    let writes = vec![leased("/a", lease), leased("/b", lease), leased("/c", stays), put_of("/d", b"")];
    let since = commit(store, Vec::new(), writes).await;
    let mut watch = watch(store, "", since).await;
    let mut told = next(&mut watch).await.expect("the store lives");
    told.events.sort_by(|a, b| a.key.cmp(&b.key));
    let gone = vec![happened("/a", None), happened("/b", None)];
    assert_eq!(
        told,
        Committed { revision: since + 1, events: gone },
        "its keys go in one transaction, and no others"
    );
    assert_eq!(get(store, "/a").await, None);
    assert!(get(store, "/c").await.is_some(), "its lease lives");
    gone_for_good(store, lease).await;
}

pub(super) async fn live_while_they_are_kept_alive(store: &SharedStore) {
    // Granted first: once the other has expired, so would this one have.
    let kept = store.grant(TTL).await.expect("a lease");
    let since = commit(store, Vec::new(), vec![leased("/kept", kept)]).await;
    let other = store.grant(TTL).await.expect("a lease");
    assert_ne!(kept, other);
    commit(store, Vec::new(), vec![leased("/other", other)]).await;
    let mut watch = watch(store, "/", since + 1).await;
    let mut told = None;
    while told.is_none() {
        store.keep_alive(kept).await.expect("it lives");
        told = timeout(TTL / 20, watch.recv()).await.ok();
    }
    let events = told.flatten().expect("the store lives").events;
    assert_eq!(events, [happened("/other", None)], "only what nobody kept alive is gone");
    assert!(get(store, "/kept").await.is_some());
    let told = next(&mut watch).await.expect("the store lives");
    assert_eq!(told.events, [happened("/kept", None)], "nobody keeps it alive any more");
}

pub(super) async fn end_when_they_are_revoked(store: &SharedStore) {
    let lease = store.grant(LONG).await.expect("a lease");
    let since = commit(store, Vec::new(), vec![leased("/a", lease), put_of("/b", b"")]).await;
    store.revoke(lease).await.expect("it lives");
    let mut watch = watch(store, "", since).await;
    let told = Committed { revision: since + 1, events: vec![happened("/a", None)] };
    assert_eq!(next(&mut watch).await, Some(told));
    gone_for_good(store, lease).await;
}

pub(super) async fn let_go_of_keys_that_are_put_again(store: &SharedStore) {
    let lease = store.grant(LONG).await.expect("a lease");
    let other = store.grant(LONG).await.expect("a lease");
    commit(store, Vec::new(), vec![leased("/a", lease), leased("/b", lease), leased("/c", lease)]).await;
    commit(store, Vec::new(), vec![put_of("/a", b""), leased("/b", other)]).await;
    store.revoke(lease).await.expect("it lives");
    assert!(get(store, "/a").await.is_some(), "it was put without a lease");
    assert!(get(store, "/b").await.is_some(), "it was put with another lease");
    assert_eq!(get(store, "/c").await, None);
    store.revoke(other).await.expect("it lives");
    assert_eq!(get(store, "/b").await, None);
}

async fn gone_for_good(store: &SharedStore, lease: LeaseId) {
    let writes = vec![put_of("/x", b""), leased("/y", lease)];
    let refused = store.commit(Transaction { expect: Vec::new(), writes }).await;
    assert!(matches!(refused, Err(StoreError::NoLease)), "{refused:?}");
    assert_eq!(get(store, "/x").await, None, "what was refused wrote nothing");
    assert!(matches!(store.keep_alive(lease).await, Err(StoreError::NoLease)));
    assert!(matches!(store.revoke(lease).await, Err(StoreError::NoLease)));
    assert_ne!(store.grant(LONG).await.expect("a lease"), lease, "a name is not given twice");
}
