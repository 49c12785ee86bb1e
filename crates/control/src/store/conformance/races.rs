//! Many at once: no update is lost, nothing is seen by halves, and who goes away leaves nothing half done.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::{
    DEADLINE, Entry, Expect, SharedStore, StoreError, Transaction, Write, commit, get, next, put, put_of,
    watch,
};

const WRITERS: u64 = 64;
const EACH: u64 = 4;

fn number(entry: &Entry) -> u64 {
    u64::from_be_bytes(entry.value.as_slice().try_into().expect("eight bytes were written"))
}

pub(super) async fn no_update_is_lost(store: &SharedStore) {
    let since = put(store, "/counter", &0_u64.to_be_bytes()).await;
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = Arc::clone(store);
        writers.spawn(async move {
            for _ in 0..EACH {
                add_one(&store).await;
            }
        });
    }
    timeout(3 * DEADLINE, writers.join_all()).await.expect("somebody always wins");
    let counter = get(store, "/counter").await.expect("it was put");
    assert_eq!(number(&counter), WRITERS * EACH, "every update counts once");
    assert_eq!(counter.modified, since + WRITERS * EACH, "who lost a race made no revision");
}

async fn add_one(store: &SharedStore) {
    loop {
        let counter = get(store, "/counter").await.expect("it was put");
        yield_now().await;
        let expect = vec![Expect::Modified(counter.key.clone(), counter.modified)];
        let writes = vec![put_of("/counter", &(number(&counter) + 1).to_be_bytes())];
        match store.commit(Transaction { expect, writes }).await {
            Ok(_) => return,
            Err(error) => assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}"),
        }
    }
}

/// Two keys that every transaction writes alike.
fn pair(number: u64) -> Vec<Write> {
    vec![put_of("/left", &number.to_be_bytes()), put_of("/right", &number.to_be_bytes())]
}

pub(super) async fn nobody_sees_half_a_transaction(store: &SharedStore) {
    let since = commit(store, Vec::new(), pair(0)).await;
    let mut watch = watch(store, "", since).await;
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let store = Arc::clone(store);
        readers.spawn(async move {
            let mut seen = 0;
            while seen < 100 {
                let listing = store.list("/").await.expect("a list");
                let numbers: Vec<_> = listing.entries.iter().map(number).collect();
                assert_eq!(numbers.len(), 2);
                assert_eq!(numbers[0], numbers[1], "a list is one moment's view");
                assert_eq!(numbers[0], listing.revision - since, "and says which");
                assert!(seen <= numbers[0], "time does not run backwards");
                seen = numbers[0];
                yield_now().await;
            }
        });
    }
    for number in 1..=100 {
        commit(store, Vec::new(), pair(number)).await;
        let told = next(&mut watch).await.expect("it is read");
        assert_eq!(told.revision, since + number);
        assert_eq!(told.events.len(), 2, "a watch tells whole transactions");
    }
    timeout(DEADLINE, readers.join_all()).await.expect("readers see the last one");
}

pub(super) async fn a_dropped_commit_is_whole_or_not_at_all(store: &SharedStore) {
    let since = commit(store, Vec::new(), pair(0)).await;
    let mut watch = watch(store, "", since).await;
    for number in 1..=50 {
        let transaction = Transaction { expect: Vec::new(), writes: pair(number) };
        let mut dropped = store.commit(transaction);
        if number % 2 == 0 {
            let _: Option<_> = (&mut dropped).now_or_never();
        }
        drop(dropped);
    }
    // Whatever was on its way is before this one.
    let last = commit(store, Vec::new(), pair(51)).await;
    let mut revision = since;
    while revision < last {
        let told = next(&mut watch).await.expect("it is read");
        revision += 1;
        assert_eq!(told.revision, revision, "no revision is left out");
        assert_eq!(told.events.len(), 2, "a transaction is whole");
        let value = told.events[0].value.clone().expect("it was put");
        assert_eq!(told.events[1].value.as_ref(), Some(&value));
        let number = u64::from_be_bytes(value.try_into().expect("eight bytes were written"));
        assert!(number == 51 || number % 2 == 0, "what was dropped before it began did nothing");
    }
}
