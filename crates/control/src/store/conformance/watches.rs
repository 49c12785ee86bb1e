//! Watches: the past, then the present, each transaction once and whole; or an end that says to list again.

use super::{
    Committed, Revision, SharedStore, StoreError, commit, delete_of, happened, next, put, put_of, watch,
};

pub(super) async fn tell_the_past_and_then_the_present(store: &SharedStore) {
    let first = put(store, "/a", b"1").await;
    let mut from_first = watch(store, "", first).await;
    let mut from_zero = watch(store, "", first - 1).await;
    let second = commit(store, Vec::new(), vec![put_of("/b", b"1"), put_of("/a", b"2")]).await;
    let third = commit(store, Vec::new(), vec![delete_of("/a"), delete_of("/none")]).await;
    let mut from_second = watch(store, "", second).await;
    let mut from_now = watch(store, "", third).await;
    let fourth = put(store, "/b", b"2").await;

    let expected = [
        Committed { revision: first, events: vec![happened("/a", Some(b"1"))] },
        // In the order in which they were written, which is not that of keys.
        Committed { revision: second, events: vec![happened("/b", Some(b"1")), happened("/a", Some(b"2"))] },
        Committed { revision: third, events: vec![happened("/a", None)] },
        Committed { revision: fourth, events: vec![happened("/b", Some(b"2"))] },
    ];
    let mut late = watch(store, "", first - 1).await;
    for (watch, skipped) in
        [(&mut late, 0), (&mut from_zero, 0), (&mut from_first, 1), (&mut from_second, 2), (&mut from_now, 3)]
    {
        for committed in &expected[skipped..] {
            assert_eq!(
                next(watch).await.as_ref(),
                Some(committed),
                "each transaction once, from the next one on"
            );
        }
        assert!(watch.try_recv().is_err(), "nothing else happened");
    }
}

pub(super) async fn tell_their_prefix_only(store: &SharedStore) {
    let before = put(store, "/a/1", b"1").await;
    let mut watch = watch(store, "/a/", before).await;
    put(store, "/b/1", b"1").await;
    put(store, "/a", b"1").await;
    let both =
        commit(store, Vec::new(), vec![put_of("/b/1", b"2"), put_of("/a/2", b"2"), put_of("/ab", b"2")])
            .await;
    let told = Committed { revision: both, events: vec![happened("/a/2", Some(b"2"))] };
    assert_eq!(next(&mut watch).await, Some(told), "what else a transaction wrote is not told");
}

pub(super) async fn of_what_is_forgotten_are_refused(store: &SharedStore, history: usize) {
    let first = put(store, "/a", b"first").await;
    let mut last = first;
    for _ in 0..=history {
        last = put(store, "/a", b"more").await;
    }
    let refused = store.watch("", first).await;
    assert!(matches!(refused, Err(StoreError::Compacted(since)) if since == first), "{refused:?}");
    let listing = store.list("").await.expect("a list");
    assert_eq!(listing.revision, last);
    let mut watch = watch(store, "", listing.revision).await;
    let revision = put(store, "/a", b"last").await;
    assert_eq!(
        next(&mut watch).await.map(|told| told.revision),
        Some(revision),
        "from a list on, all is known"
    );
}

pub(super) async fn nobody_reads_end(store: &SharedStore, unread: usize) {
    let since = put(store, "/a", b"0").await;
    let mut watch = watch(store, "", since).await;
    for _ in 0..=unread {
        put(store, "/a", b"more").await;
    }
    let mut told = 0;
    while let Some(committed) = next(&mut watch).await {
        told += 1;
        assert_eq!(committed.revision, since + told, "what is told before the end is complete");
    }
    assert!(told <= unread as Revision, "{told} transactions were kept for a reader that did not read");
}

pub(super) async fn end_with_the_store(store: SharedStore) {
    let since = put(&store, "/a", b"1").await;
    let mut watch = watch(&store, "", since).await;
    drop(store);
    assert_eq!(next(&mut watch).await, None, "no store, no watch");
}
