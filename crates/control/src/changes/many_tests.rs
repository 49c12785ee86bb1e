//! Many changes: at once, one after another, and too many.

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::Resource;
use crate::policy::agreement_tests::{agrees, resource};
use crate::store::memory::MemoryStore;
use crate::{Rules, Who};

const NOW: Timestamp = 1_800_000_000;

fn read(value: Value) -> Resource {
    serde_json::from_value(value).unwrap()
}

fn identity(name: &str) -> Resource {
    read(json!({ "kind": "identity", "name": name }))
}

async fn empty() -> Arc<Changes> {
    let store = Arc::new(MemoryStore::new());
    let snapshots = Arc::new(Snapshots::new(Rules::default()));
    Changes::open(store, Local::default(), snapshots, NOW).await.unwrap()
}

async fn put(changes: &Arc<Changes>, resources: Vec<Resource>) -> Result<Outcome, ChangeError> {
    let changed = resources.into_iter().map(Change::Put).collect();
    changes.apply(&Actor::local(), Batch { changes: changed, ..Batch::default() }, NOW).await
}

#[tokio::test]
async fn many_writers_share_publications_and_each_is_answered_when_its_change_is_in_force() {
    let changes = empty().await;
    put(&changes, (0..LARGE).map(|number| identity(&format!("n{number}"))).collect()).await.unwrap();
    let before = changes.generation();
    let write = async |number: usize| {
        let name = format!("new{number}");
        let outcome = put(&changes, vec![identity(&name)]).await.unwrap();
        assert!(changes.snapshots.current().exists(&Who::Identity(name.parse().unwrap())), "{name}");
        outcome.revision
    };
    // Somebody is publishing until all of them have committed.
    let held = changes.publishers.acquire().await.unwrap();
    let last = changes.revision() + 16;
    let until_committed = async {
        while changes.revision() < last {
            tokio::task::yield_now().await;
        }
        drop(held);
    };
    let (mut revisions, ()) = tokio::join!(join_all((0..16).map(write)), until_committed);
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 16, "each has a transaction of its own");
    assert_eq!(changes.generation() - before, 1, "one publication is for all of them");
}

#[tokio::test]
async fn who_goes_away_after_the_commit_leaves_nothing_unpublished() {
    let changes = empty().await;
    put(&changes, (0..LARGE).map(|number| identity(&format!("n{number}"))).collect()).await.unwrap();
    // Somebody else is publishing meanwhile.
    let held = changes.publishers.acquire().await.unwrap();
    assert!(put(&changes, vec![identity("new")]).now_or_never().is_none(), "it is dropped while it waits");
    drop(held);
    let who = Who::Identity("new".parse().unwrap());
    assert!(changes.model().identities.contains_key("new") && !changes.snapshots.current().exists(&who));
    let follower = Arc::clone(&changes);
    let mut published = changes.published();
    let in_force = async {
        while !changes.snapshots.current().exists(&who) {
            published.changed().await.unwrap();
        }
    };
    tokio::select! {
        () = async { follower.follow().await } => unreachable!("it follows for ever"),
        done = tokio::time::timeout(Duration::from_secs(20), in_force) => done.unwrap(),
    }
}

#[tokio::test]
async fn resources_that_take_too_much_together_are_refused_and_what_makes_room_is_not() {
    let changes = empty().await;
    put(&changes, vec![identity("ann"), identity("bob")]).await.unwrap();
    let view = changes.view();
    let write = |name: &str, length: usize| Write::Put {
        key: kept::resource_key(Kind::Identity, &name.parse().unwrap()),
        value: vec![0; length],
        lease: None,
    };
    let size = |writes: &[Write], most| check::size(&view, writes, most);
    let ann = view.size(Kind::Identity, &"ann".parse().unwrap());
    assert!(size(&[write("cy", 100)], view.bytes + 100).is_ok());
    let refused = size(&[write("cy", 100)], view.bytes + 99).unwrap_err();
    assert_eq!((refused.code, refused.status), ("full", 409));
    assert!(refused.message.contains(&(view.bytes + 100).to_string()), "{refused}");
    // In the place of what is there only the difference counts, and less is never too much.
    assert!(size(&[write("ANN", ann + 5)], view.bytes + 5).is_ok());
    assert!(size(&[write("ANN", ann + 6)], view.bytes + 5).is_err());
    assert!(size(&[write("ann", ann - 1)], 1).is_ok());
    assert!(size(&[kept::delete(kept::resource_key(Kind::Identity, &"bob".parse().unwrap()))], 1).is_ok());
}

#[tokio::test]
async fn what_is_remembered_for_watches_is_bounded_by_its_size_too() {
    let changes = empty().await;
    let start = changes.revision();
    let roles: Vec<String> = (0..1000).map(|number| format!("#{number:0>250}")).collect();
    for number in 0..40 {
        let mut identities = roles.clone();
        identities[0] = format!("#n{number}");
        let policy = json!({"kind": "service-policy", "name": "p", "type": "Dial",
            "service_roles": roles, "identity_roles": identities});
        put(&changes, vec![read(policy)]).await.unwrap();
    }
    assert_eq!(changes.feed(Some(start)).unwrap_err().code, "compacted");
    assert!(changes.feed(Some(changes.revision() - 10)).is_ok());
    let page = changes.audit(&AuditQuery { limit: 100, ..AuditQuery::default() }).await.unwrap();
    assert_eq!(page.records.len(), 40);
    let after = page.records[7].after.as_ref().unwrap();
    assert!(
        after["left_out"].as_str().unwrap().contains("bytes"),
        "a record of it takes little room: {after}"
    );
}

/// What is done, one after the other.
fn change() -> impl Strategy<Value = (Vec<(Value, bool)>, bool, bool)> {
    let batch = prop::collection::vec((resource(), prop::bool::weighted(0.25)), 1..6);
    (batch, any::<bool>(), prop::bool::weighted(0.05))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_known_after_many_changes_is_what_the_store_holds_and_decisions_are_by_it(
        all in prop::collection::vec(change(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let changes = empty().await;
            for (resources, force, prune) in all {
                let of = |(value, goes): (Value, bool)| {
                    let resource = read(value);
                    match goes {
                        true => Change::Delete(resource.kind(), resource.name().clone(), None),
                        false => Change::Put(resource),
                    }
                };
                let batch = resources.into_iter().map(of).collect();
                let batch = Batch { changes: batch, force, prune, dry_run: false, ignore_missing: false };
                // Many are refused, because of what they refer to; that leaves everything as it was.
                drop(changes.apply(&Actor::local(), batch, NOW).await);
                let (known, held) = (changes.view(), follow::load(&**changes.store()).await.unwrap());
                assert_eq!(known, held);
                let model = &known.model;
                for service in model.routes.values().map(|route| &route.service) {
                    assert!(model.services.contains_key(service), "nothing refers to what is gone");
                }
                for name in model.policies.values().flat_map(|policy| &policy.service_roles) {
                    if let crate::model::Role::Entity(name) = name {
                        assert!(model.services.contains_key(name), "nothing refers to what is gone");
                    }
                }
            }
            agrees(&changes.snapshots.current(), &changes.model(), &Local::default());
        });
    }
}
