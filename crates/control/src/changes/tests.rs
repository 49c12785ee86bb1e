//! Changes on a store in memory: each rule, each race, and what is told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::audit::{AuditAction, AuditQuery};
use crate::model::{Credential, Resource};
use crate::store::memory::MemoryStore;

const NOW: Timestamp = 1_800_000_000;

fn resource(value: serde_json::Value) -> Resource {
    serde_json::from_value(value).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn actor() -> Actor {
    Actor { name: "token:ops".to_owned(), address: Some("192.0.2.7:4000".parse().unwrap()) }
}

fn identity(name: &str) -> Resource {
    resource(json!({ "kind": "identity", "name": name }))
}

fn service(name: &str) -> Resource {
    resource(json!({ "kind": "service", "name": name }))
}

fn policy(name: &str, service: &str, identity: &str) -> Resource {
    resource(json!({
        "kind": "service-policy", "name": name, "type": "Dial",
        "service_roles": [service], "identity_roles": [identity],
    }))
}

fn route(name: &str, host: &str, service: &str) -> Resource {
    resource(json!({ "kind": "route", "name": name, "hosts": [host], "service": service }))
}

fn credential(serial: &str, life: u64) -> Credential {
    Credential { serial: serial.to_owned(), issued_at: NOW, not_after: NOW + life, renewed_from: Vec::new() }
}

async fn open_on(store: SharedStore) -> Arc<Changes> {
    let snapshots = Arc::new(Snapshots::new(crate::Rules::default()));
    Changes::open(store, Local::default(), snapshots, NOW).await.unwrap()
}

/// Where whoever enrolls connects from.
fn from() -> Option<std::net::SocketAddr> {
    Some(([192, 0, 2, 1], 4711).into())
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|it| (*it).to_owned()).collect()
}

async fn empty() -> Arc<Changes> {
    open_on(Arc::new(MemoryStore::new())).await
}

impl Changes {
    async fn doing(self: &Arc<Self>, changes: Vec<Change>) -> Result<Outcome, ChangeError> {
        self.apply(&actor(), Batch { changes, ..Batch::default() }, NOW).await
    }

    async fn put_all(self: &Arc<Self>, resources: Vec<Resource>) {
        self.doing(resources.into_iter().map(Change::Put).collect()).await.unwrap();
    }

    async fn refused(self: &Arc<Self>, change: Change) -> ChangeError {
        let before = (self.revision(), self.model());
        let error = self.doing(vec![change]).await.unwrap_err();
        assert_eq!((self.revision(), self.model()), before, "a refusal changes nothing");
        error
    }
}

/// A service that others refer to in every way, with an identity in a policy.
async fn furnished() -> Arc<Changes> {
    let changes = empty().await;
    let config = json!({ "kind": "config", "name": "how", "type": "host.v1", "data": { "protocol": "tcp", "address": "127.0.0.1", "port": 1 } });
    let web = json!({ "kind": "service", "name": "web", "configs": ["how"] });
    changes
        .put_all(vec![
            // In an order in which none could be created alone.
            route("r", "a.example.com", "web"),
            policy("p", "@web", "@alice"),
            resource(web),
            resource(config),
            identity("alice"),
        ])
        .await;
    changes
}

#[tokio::test]
async fn what_a_list_says_twice_is_kept_once() {
    let changes = empty().await;
    let twice = |attributes: &[&str], roles: &[&str]| {
        vec![
            resource(json!({ "kind": "identity", "name": "laptop", "attributes": attributes })),
            resource(json!({ "kind": "service", "name": "wiki", "attributes": attributes })),
            resource(json!({
                "kind": "service-policy", "name": "p", "type": "Dial",
                "service_roles": roles, "identity_roles": roles,
            })),
            resource(json!({
                "kind": "token", "name": "t", "attributes": attributes, "limits": { "services": attributes },
            })),
        ]
    };
    changes.put_all(twice(&["b", "a", "B", "b"], &["#b", "#all", "#B", "#ALL"])).await;
    let once = twice(&["b", "a"], &["#b", "#all"]);
    for wanted in &once {
        assert_eq!(changes.model().get(wanted.kind(), wanted.name()).as_ref(), Some(wanted));
    }
    let before = changes.revision();
    changes.put_all(twice(&["b", "a", "a"], &["#b", "#all"])).await;
    assert_eq!(changes.revision(), before, "it says the same");
}

#[tokio::test]
async fn a_write_can_be_read_when_it_returns_and_says_what_it_did() {
    let changes = empty().await;
    let before = changes.snapshots.current().generation();
    let done = changes.doing(vec![Change::Create(identity("Alice"))]).await.unwrap();
    assert!(changes.snapshots.current().generation() > before);
    assert!(changes.snapshots.current().exists(&crate::Who::Identity(name("alice"))));
    let stored = changes.get(Kind::Identity, &name("alice")).unwrap();
    assert_eq!(done.changes[0].after.as_ref(), Some(&stored));
    assert_eq!((done.changes[0].action, stored.revision), (Action::Create, done.revision));
    assert_eq!((stored.created_at, stored.updated_at), (NOW, NOW));

    let again = changes.doing(vec![Change::Put(identity("Alice"))]).await.unwrap();
    assert_eq!((again.changes[0].action, again.revision), (Action::None, done.revision));
    // Another way to write the name is shown, but it is the same resource.
    changes.doing(vec![Change::Put(identity("ALICE"))]).await.unwrap();
    let renamed = changes.get(Kind::Identity, &name("alice")).unwrap();
    assert_eq!((renamed.resource.name().as_str(), &renamed.id), ("ALICE", &stored.id));
    let gone = changes.doing(vec![Change::Delete(Kind::Identity, name("alice"), None)]).await.unwrap();
    assert_eq!(gone.changes[0].action, Action::Delete);
    assert!(changes.get(Kind::Identity, &name("alice")).is_none());
    let reborn = changes.doing(vec![Change::Create(identity("alice"))]).await.unwrap();
    assert_ne!(reborn.changes[0].after.as_ref().unwrap().id, stored.id);
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let first = open_on(Arc::clone(&store)).await;
    first.put_all(vec![identity("alice"), service("web"), policy("p", "@web", "@alice")]).await;
    let invitation = first.invite(&actor(), &name("alice"), Duration::from_secs(60), NOW).await.unwrap();
    first.redeem(&invitation.jti, &name("alice"), credential("01", 60), None, NOW).await.unwrap();
    let second = open_on(store).await;
    assert_eq!((second.model(), second.revision()), (first.model(), first.revision()));
    assert_eq!(second.export().0, first.export().0);
    assert_eq!(second.model().credentials[&name("alice")].len(), 1);
}

#[tokio::test]
async fn what_one_gateway_writes_the_other_publishes_and_neither_overwrites_the_other() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let (one, other) = (open_on(Arc::clone(&store)).await, open_on(store).await);
    let follower = Arc::clone(&other);
    let mut published = other.published();
    tokio::select! {
        () = async { follower.follow().await } => {}
        () = async {
            one.put_all(vec![identity("alice")]).await;
            let revision = one.revision();
            tokio::time::timeout(Duration::from_secs(60), published.wait_for(|it| *it >= revision)).await.unwrap().unwrap();
        } => {}
    }
    assert_eq!(other.model(), one.model());
    // Nobody follows now: the other one finds out by itself that it was overtaken.
    one.put_all(vec![identity("bob")]).await;
    let error = other.refused_late(Change::Create(identity("bob"))).await;
    assert_eq!(error.code, "exists");
    other.put_all(vec![identity("carol")]).await;
    assert_eq!(other.model().identities.len(), 3);
}

impl Changes {
    async fn refused_late(self: &Arc<Self>, change: Change) -> ChangeError {
        self.doing(vec![change]).await.unwrap_err()
    }
}

#[tokio::test]
async fn optimistic_concurrency_refuses_what_was_decided_on_an_older_state() {
    let changes = empty().await;
    let first = changes.doing(vec![Change::Create(identity("alice"))]).await.unwrap().revision;
    let admin = resource(json!({ "kind": "identity", "name": "alice", "admin": true }));
    let second = changes.doing(vec![Change::Update(admin.clone(), Some(first))]).await.unwrap().revision;
    for late in [
        Change::Update(identity("alice"), Some(first)),
        Change::Delete(Kind::Identity, name("alice"), Some(first)),
    ] {
        let error = changes.refused(late).await;
        assert_eq!((error.code, error.status), ("changed_meanwhile", 412));
        assert!(error.message.contains(&second.to_string()), "{error}");
    }
    assert_eq!(changes.refused(Change::Create(admin)).await.code, "exists");
    for missing in [Change::Update(identity("bob"), None), Change::Delete(Kind::Identity, name("bob"), None)]
    {
        assert_eq!(changes.refused(missing).await.status, 404);
    }
}

#[tokio::test]
async fn references_lead_somewhere() {
    let changes = furnished().await;
    for (what, part) in [
        (resource(json!({ "kind": "service", "name": "s", "configs": ["none"] })), "config `none`"),
        (route("r2", "b.example.com", "none"), "service `none`"),
        (policy("p2", "@none", "#all"), "service `none`"),
        (policy("p2", "#all", "@nobody"), "identity `nobody`"),
    ] {
        let error = changes.refused(Change::Create(what)).await;
        assert_eq!((error.code, error.status), ("missing_reference", 422), "{error}");
        assert!(error.message.contains(part), "{error}");
    }
    changes.put_all(vec![policy("public", "@web", "@public"), policy("attributes", "#any", "#thing")]).await;
}

#[tokio::test]
async fn what_is_referred_to_stays_and_the_referrers_are_named() {
    let changes = furnished().await;
    for (kind, it, by) in [
        (Kind::Identity, "alice", "service-policy `p`"),
        (Kind::Service, "web", "route `r`"),
        (Kind::Config, "how", "service `web`"),
    ] {
        let error = changes.refused(Change::Delete(kind, name(it), None)).await;
        assert_eq!((error.code, error.status), ("in_use", 409));
        assert!(error.message.contains(by), "{error}");
    }
    // With its referrers in the same batch it can go.
    let all = [(Kind::Service, "web"), (Kind::Route, "r"), (Kind::ServicePolicy, "p"), (Kind::Config, "how")];
    let batch = all.map(|(kind, it)| Change::Delete(kind, name(it), None));
    changes.doing(batch.to_vec()).await.unwrap();
    assert_eq!(changes.model().count(), 1);
}

#[tokio::test]
async fn force_takes_names_out_of_policies_in_the_same_transaction() {
    let changes = furnished().await;
    let both = resource(json!({
        "kind": "service-policy", "name": "both", "type": "Bind",
        "service_roles": ["@web"], "identity_roles": ["@alice", "#staff"],
    }));
    changes.put_all(vec![both]).await;
    let batch = Batch {
        changes: vec![Change::Delete(Kind::Identity, name("alice"), None)],
        force: true,
        ..Batch::default()
    };
    let outcome = changes.apply(&actor(), batch, NOW).await.unwrap();
    let told: Vec<_> = outcome.changes.iter().map(|it| (it.action, it.name.to_string())).collect();
    let expected = [(Action::Delete, "alice"), (Action::Update, "both"), (Action::Delete, "p")];
    assert_eq!(told, expected.map(|(action, name)| (action, name.to_owned())));
    let model = changes.model();
    assert_eq!(model.policies[&name("both")].identity_roles.len(), 1);
    // A route is no policy: force does not send the public elsewhere.
    let delete = vec![Change::Delete(Kind::Service, name("web"), None)];
    let error = changes
        .apply(&actor(), Batch { changes: delete, force: true, ..Batch::default() }, NOW)
        .await
        .unwrap_err();
    assert_eq!(error.code, "in_use");
}

#[tokio::test]
async fn names_hosts_ports_and_types_are_taken_once() {
    let changes = furnished().await;
    let local = crate::LocalToken::new(name("filed"), crate::model::SecretText::new("x".to_owned()));
    changes.set_local(Local { tokens: vec![local], ..Local::default() }).await;
    let port = |name: &str, ports: &[u16]| {
        resource(json!({ "kind": "route", "name": name, "ports": ports, "service": "web" }))
    };
    changes.put_all(vec![port("ports", &[5432])]).await;
    for (what, code) in [
        (resource(json!({ "kind": "token", "name": "Alice" })), "name_taken"),
        (identity("filed"), "name_taken"),
        (identity("public"), "invalid"),
        (route("r2", "A.example.com", "web"), "claimed"),
        (port("p2", &[1, 5432]), "claimed"),
        (port("p2", &[7, 7]), "claimed"),
    ] {
        let error = changes.refused(Change::Create(what)).await;
        assert_eq!(error.code, code, "{error}");
    }
    let config = |name: &str, kind: &str, data: serde_json::Value| {
        resource(json!({ "kind": "config", "name": name, "type": kind, "data": data }))
    };
    let intercept =
        json!({ "protocols": ["tcp"], "addresses": ["a"], "portRanges": [{ "low": 1, "high": 1 }] });
    let host = json!({ "protocol": "tcp", "address": "127.0.0.1", "port": 2 });
    let web = json!({ "kind": "service", "name": "web", "configs": ["how", "whence"] });
    changes.put_all(vec![config("whence", "intercept.v1", intercept), resource(web)]).await;
    let error = changes.refused(Change::Put(config("whence", "host.v1", host))).await;
    assert!(error.message.contains("two configs of type host.v1"), "{error}");
}

#[tokio::test]
async fn a_batch_happens_whole_or_not_at_all_and_a_dry_run_not_at_all() {
    let changes = empty().await;
    let (revision, model) = (changes.revision(), changes.model());
    let bad = vec![Change::Put(identity("alice")), Change::Put(route("r", "a.example.com", "none"))];
    assert_eq!(changes.doing(bad).await.unwrap_err().code, "missing_reference");
    let twice = vec![Change::Put(identity("alice")), Change::Put(identity("ALICE"))];
    assert_eq!(changes.doing(twice).await.unwrap_err().code, "invalid");
    let gone = || Change::Delete(Kind::Identity, name("ALICE"), None);
    for twice in [vec![gone(), Change::Put(identity("alice"))], vec![Change::Put(identity("alice")), gone()]]
    {
        let batch = Batch { changes: twice, ignore_missing: true, ..Batch::default() };
        let error = changes.apply(&actor(), batch, NOW).await.unwrap_err();
        assert!(error.message.contains("is in the batch twice"), "{error:?}");
    }
    let dry = Batch { changes: vec![Change::Put(identity("alice"))], dry_run: true, ..Batch::default() };
    let would = changes.apply(&actor(), dry, NOW).await.unwrap();
    assert_eq!((would.changes[0].action, would.revision), (Action::Create, revision));
    assert_eq!((changes.revision(), changes.model()), (revision, model));
    assert_eq!(changes.audit(&AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap().records, []);
}

#[tokio::test]
async fn prune_deletes_what_the_batch_does_not_name_but_never_whoever_asks() {
    let changes = furnished().await;
    changes
        .create_token(&actor(), serde_json::from_value(json!({ "name": "Ops" })).unwrap(), NOW)
        .await
        .unwrap();
    let batch = Batch { changes: vec![Change::Put(identity("alice"))], prune: true, ..Batch::default() };
    let would = changes.apply(&actor(), Batch { dry_run: true, ..batch.clone() }, NOW).await.unwrap();
    assert_eq!(changes.model().count(), 6);
    let outcome = changes.apply(&actor(), batch, NOW).await.unwrap();
    let told = |outcome: &Outcome| -> BTreeMap<Name, Action> {
        outcome.changes.iter().map(|it| (it.name.clone(), it.action)).collect()
    };
    assert_eq!(told(&would), told(&outcome));
    assert_eq!(told(&outcome)[&name("alice")], Action::None);
    assert!(["web", "how", "p", "r"].iter().all(|it| told(&outcome)[&name(it)] == Action::Delete));
    let model = changes.model();
    assert_eq!((model.count(), model.tokens.len()), (2, 1), "the token that asked is still there");
}

#[tokio::test]
async fn of_sixty_four_attempts_to_redeem_one_succeeds() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    // Two gateways on one store, so that turns within a process are not what decides.
    let gateways = [open_on(Arc::clone(&store)).await, open_on(Arc::clone(&store)).await];
    gateways[0].put_all(vec![identity("alice")]).await;
    let invitation =
        gateways[0].invite(&actor(), &name("alice"), Duration::from_secs(60), NOW).await.unwrap();
    gateways[1].reload().await.unwrap();
    let attempts =
        (0..64).map(|i| {
            let (changes, jti) = (Arc::clone(&gateways[i % 2]), invitation.jti.clone());
            async move {
                changes.redeem(&jti, &name("alice"), credential(&format!("{i:02x}"), 60), None, NOW).await
            }
        });
    let results = futures_util::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().flat_map(|it| it.as_ref().err()).all(|error| error.code == "enrollment_used"));
    let fresh = open_on(store).await;
    assert_eq!(fresh.model().credentials[&name("alice")].len(), 1);
}

#[tokio::test]
async fn an_invitation_is_for_one_identity_for_a_time_and_while_it_is_enabled() {
    let changes = empty().await;
    changes.put_all(vec![identity("alice"), identity("bob")]).await;
    let ttl = Duration::from_secs(60);
    let invite = || async { changes.invite(&actor(), &name("alice"), ttl, NOW).await.unwrap() };
    let invitation = invite().await;
    assert_eq!(invitation.expires_at, NOW + 60);
    let redeem = |who: &'static str, now: Timestamp| {
        let (jti, changes) = (invitation.jti.clone(), Arc::clone(&changes));
        async move { changes.redeem(&jti, &name(who), credential("01", 60), None, now).await.unwrap_err().code }
    };
    assert_eq!(redeem("bob", NOW).await, "enrollment_used");
    assert_eq!(redeem("alice", NOW + 60).await, "enrollment_expired");
    let disabled = json!({ "kind": "identity", "name": "alice", "disabled": true });
    changes.put_all(vec![resource(disabled)]).await;
    assert_eq!(redeem("alice", NOW).await, "disabled");
    // Its deletion takes the invitation along; another identity of the name does not inherit it.
    changes.doing(vec![Change::Delete(Kind::Identity, name("alice"), None)]).await.unwrap();
    changes.put_all(vec![identity("alice")]).await;
    assert_eq!(redeem("alice", NOW).await, "enrollment_used");
    assert_eq!(changes.invite(&actor(), &name("none"), ttl, NOW).await.unwrap_err().status, 404);
    for _ in 0..20 {
        invite().await;
    }
    assert_eq!(changes.view().enrollments.len(), 8, "the oldest invitations go");
}

#[tokio::test]
async fn a_certificate_is_renewed_by_one_that_is_good_and_revoked_at_once() {
    let changes = empty().await;
    changes.put_all(vec![identity("alice")]).await;
    let alice = name("alice");
    let invitation = changes.invite(&actor(), &alice, Duration::from_secs(60), NOW).await.unwrap();
    changes.redeem(&invitation.jti, &alice, credential("01", 60), from(), NOW).await.unwrap();
    changes.renew(&alice, "01", credential("02", 120), from(), NOW + 40).await.unwrap();
    let serials = |changes: &Arc<Changes>| -> Vec<String> {
        changes
            .model()
            .credentials
            .get("alice")
            .map_or_else(Vec::new, |held| held.iter().map(|it| it.serial.clone()).collect())
    };
    assert_eq!(serials(&changes), ["01", "02"], "streams of the old one go on");
    let late = changes.renew(&alice, "01", credential("03", 120), None, NOW + 60).await.unwrap_err();
    assert_eq!((late.code, late.status), ("revoked", 403));
    changes.renew(&alice, "02", credential("03", 180), None, NOW + 80).await.unwrap();
    assert_eq!(serials(&changes), ["02", "03"], "what has ended is not listed any more");
    let audited = changes.audit(&AuditQuery { limit: 100, ..AuditQuery::default() }).await.unwrap();
    let of = |action| audited.records.iter().find(|it| it.action == action).unwrap();
    for action in [AuditAction::Enroll, AuditAction::Renew] {
        let (record, address) = (of(action), from().map(|it| it.to_string()));
        assert_eq!((record.actor.as_str(), &record.address), ("identity:alice", &address));
        assert!(record.after.as_ref().unwrap()["not_after"].as_str().unwrap().ends_with('Z'), "{record:?}");
    }
    let revoked = changes.revoke_credentials(&actor(), &alice, Some("02"), NOW).await.unwrap();
    assert_eq!((revoked.serials, revoked.remaining), (names(&["02", "03"]), Vec::new()));
    assert!(changes.snapshots.current().credential("alice", "02", NOW).is_none());
    assert!(changes.snapshots.current().credential("alice", "03", NOW).is_none());
    assert_eq!(changes.revoke_credentials(&actor(), &alice, Some("02"), NOW).await.unwrap_err().status, 404);
    assert_eq!(serials(&changes), [""; 0]);
    assert_eq!(changes.revoke_credentials(&actor(), &alice, None, NOW).await.unwrap(), Revoked::default());
}

#[tokio::test]
async fn a_certificate_takes_those_along_that_were_renewed_from_it_and_no_others() {
    let changes = empty().await;
    changes.put_all(vec![identity("alice")]).await;
    let alice = name("alice");
    for serial in ["a0", "b0"] {
        let invitation = changes.invite(&actor(), &alice, Duration::from_secs(60), NOW).await.unwrap();
        changes.redeem(&invitation.jti, &alice, credential(serial, 900), None, NOW).await.unwrap();
    }
    // Two from the same one, as by somebody who has copied its file; and one from one of these.
    for (old, new) in [("a0", "a1"), ("a0", "a2"), ("a1", "a3"), ("b0", "b1")] {
        let renewed = Credential { issued_at: NOW - 600, ..credential(new, 900) };
        changes.renew(&alice, old, renewed, None, NOW).await.unwrap();
    }
    let revoked = changes.revoke_credentials(&actor(), &alice, Some("a1"), NOW).await.unwrap();
    let sorted = |mut serials: Vec<String>| {
        serials.sort();
        serials
    };
    assert_eq!(sorted(revoked.serials), ["a1", "a3"]);
    assert_eq!(sorted(revoked.remaining), ["a0", "a2", "b0", "b1"]);
    let revoked = changes.revoke_credentials(&actor(), &alice, Some("a0"), NOW).await.unwrap();
    assert_eq!(
        (sorted(revoked.serials), sorted(revoked.remaining)),
        (names(&["a0", "a2"]), names(&["b0", "b1"]))
    );
}

#[tokio::test]
async fn a_backup_leaves_a_record_that_is_about_no_resource() {
    let changes = empty().await;
    changes.note_backup(&actor(), NOW).await.unwrap();
    let page = changes.audit(&AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap();
    let record = serde_json::to_value(&page.records[0]).unwrap();
    assert_eq!(record["action"], "backup");
    assert!(record.get("kind").is_none() && record.get("name").is_none(), "{record}");
    assert!(record["at"].as_str().unwrap().ends_with('Z'), "{record}");
}

#[tokio::test]
async fn no_route_leads_from_a_port_of_the_gateway_itself() {
    let changes = empty().await;
    changes.put_all(vec![service("web")]).await;
    let leads =
        |port: u16| resource(json!({ "kind": "route", "name": "r", "ports": [port], "service": "web" }));
    changes.put_all(vec![leads(8123)]).await;
    changes.reserve([(8123, "control port")].into());
    let error = changes.doing(vec![Change::Put(leads(8123))]).await.unwrap_err();
    assert_eq!((error.code, error.status), ("claimed", 409));
    assert!(error.message.contains("port 8123, which is the gateway's own (control port)"), "{error}");
    // What was there before can be mended and deleted.
    changes.doing(vec![Change::Put(leads(8124))]).await.unwrap();
}

#[tokio::test]
async fn several_are_deleted_together_or_not_at_all() {
    let changes = empty().await;
    changes
        .put_all(vec![service("a"), service("b"), service("c"), identity("i"), policy("p", "@b", "@i")])
        .await;
    let delete = |names: &[&str]| -> Vec<Change> {
        names.iter().map(|it| Change::Delete(Kind::Service, name(it), None)).collect()
    };
    assert_eq!(changes.doing(delete(&["a", "b", "c"])).await.unwrap_err().code, "in_use");
    assert_eq!(changes.doing(delete(&["a", "none"])).await.unwrap_err().code, "not_found");
    assert!(changes.get(Kind::Service, &name("a")).is_some(), "nothing happened");
    let batch =
        Batch { changes: delete(&["a", "none", "b"]), force: true, ignore_missing: true, ..Batch::default() };
    let outcome = changes.apply(&actor(), batch, NOW).await.unwrap();
    let done: Vec<_> = outcome.changes.iter().map(|it| (it.action, it.kind, it.name.as_str())).collect();
    assert_eq!(
        done,
        [
            (Action::Delete, Kind::Service, "a"),
            (Action::Delete, Kind::Service, "b"),
            (Action::Delete, Kind::ServicePolicy, "p"),
        ]
    );
}

#[tokio::test]
async fn a_secret_is_rotated_with_a_window_in_which_both_are_good() {
    let changes = empty().await;
    let token = serde_json::from_value(json!({ "name": "ci", "admin": true })).unwrap();
    let (stored, first) = changes.create_token(&actor(), token, NOW).await.unwrap();
    assert_eq!(Some(stored), changes.get(Kind::Token, &name("ci")));
    assert!(
        first.secret.expose().len() == 40 && first.secret.expose().bytes().all(|b| b.is_ascii_hexdigit())
    );
    assert_eq!(changes.issue_secret(&actor(), &name("ci"), NOW).await.unwrap_err().code, "exists");
    let ci = name("ci");
    let window = Duration::from_secs(3600);
    let (second, until) = changes.rotate_secret(&actor(), &ci, window, NOW).await.unwrap();
    assert_eq!(until, Some(NOW + 3600));
    let ends = |changes: &Arc<Changes>| -> BTreeMap<String, Option<Timestamp>> {
        let snapshot = changes.snapshots.current();
        snapshot.tokens().iter().map(|it| (it.secret.expose().to_owned(), it.not_after)).collect()
    };
    let expected = [(first.secret.expose().to_owned(), until), (second.secret.expose().to_owned(), None)];
    assert_eq!(ends(&changes), expected.into());
    // Without a window the old ones end now.
    let (third, until) = changes.rotate_secret(&actor(), &ci, Duration::ZERO, NOW + 1).await.unwrap();
    assert_eq!((until, ends(&changes).len()), (None, 1));
    assert_eq!(changes.revoke_secret(&actor(), &ci, Some(&third.id), NOW).await.unwrap(), 1);
    assert!(ends(&changes).is_empty());
    changes.issue_secret(&actor(), &ci, NOW).await.unwrap();
    changes.doing(vec![Change::Delete(Kind::Token, ci, None)]).await.unwrap();
    assert!(changes.model().secrets.is_empty());
}

#[tokio::test]
async fn what_has_ended_is_tidied_away() {
    let changes = empty().await;
    changes.put_all(vec![identity("alice")]).await;
    let alice = name("alice");
    let invitation = changes.invite(&actor(), &alice, Duration::from_secs(60), NOW).await.unwrap();
    changes.invite(&actor(), &alice, Duration::from_secs(60), NOW).await.unwrap();
    changes.redeem(&invitation.jti, &alice, credential("01", 60), None, NOW).await.unwrap();
    changes.tidy(NOW + 59).await;
    assert_eq!((changes.view().enrollments.len(), changes.model().credentials.len()), (1, 1));
    changes.tidy(NOW + 60).await;
    assert_eq!((changes.view().enrollments.len(), changes.model().credentials.len()), (0, 0));
}

#[tokio::test]
async fn the_audit_log_says_who_changed_what_and_never_a_secret() {
    let changes = empty().await;
    changes.doing(vec![Change::Create(identity("alice"))]).await.unwrap();
    let admin = resource(json!({ "kind": "identity", "name": "alice", "admin": true }));
    changes.doing(vec![Change::Put(admin)]).await.unwrap();
    let token = serde_json::from_value(json!({ "name": "ci" })).unwrap();
    let (_, secret) = changes.create_token(&actor(), token, NOW).await.unwrap();
    changes.doing(vec![Change::Delete(Kind::Identity, name("alice"), None)]).await.unwrap();
    let all = AuditQuery { limit: 100, ..AuditQuery::default() };
    let records = changes.audit(&all).await.unwrap().records;
    let actions: Vec<_> = records.iter().map(|it| it.action).collect();
    use AuditAction::{Create, Delete, IssueSecret, Update};
    assert_eq!(actions, [Create, Update, Create, IssueSecret, Delete]);
    let update = &records[1];
    assert_eq!((update.actor.as_str(), update.address.as_deref()), ("token:ops", Some("192.0.2.7:4000")));
    assert_eq!(
        (update.at, update.kind, update.name.as_ref().map(Name::as_str)),
        (NOW, Some(Kind::Identity), Some("alice"))
    );
    assert_eq!(update.before, Some(json!({ "kind": "identity", "name": "alice" })));
    assert_eq!(update.after, Some(json!({ "kind": "identity", "name": "alice", "admin": true })));
    let text = serde_json::to_string(&records).unwrap();
    assert!(text.contains(&secret.id) && !text.contains(secret.secret.expose()));

    let about = |query: AuditQuery| {
        let changes = Arc::clone(&changes);
        async move { changes.audit(&query).await.unwrap() }
    };
    let ci = about(AuditQuery { name: Some(name("CI")), ..all.clone() }).await;
    assert_eq!(ci.records.len(), 2);
    assert_eq!(about(AuditQuery { kind: Some(Kind::Route), ..all.clone() }).await.records, []);
    assert_eq!(about(AuditQuery { actor: Some("local".to_owned()), ..all.clone() }).await.records, []);
    let page = about(AuditQuery { limit: 2, ..all.clone() }).await;
    assert_eq!((page.records.len(), page.next), (2, Some(1)));
    let rest = about(AuditQuery { after: page.next, ..all.clone() }).await;
    assert_eq!((rest.records.len(), rest.next), (3, None));
    let newest = about(AuditQuery { limit: 1, newest_first: true, ..all.clone() }).await;
    assert_eq!((newest.records[0].action, newest.next), (Delete, Some(4)));
    let before = about(AuditQuery { after: newest.next, newest_first: true, ..all }).await;
    assert_eq!(before.records[0].action, IssueSecret);
}

#[test]
fn the_audit_log_is_bounded_and_says_how_much_it_has_dropped() {
    let entry = || audit::Entry {
        action: AuditAction::Update,
        about: Some((Kind::Service, name("web"))),
        before: None,
        after: None,
    };
    let mut turn = kept::Turn { audit_first: 0, audit_next: audit::MAX_RECORDS - 1 };
    let writes = |count: usize, turn: &mut kept::Turn| {
        audit::writes((0..count).map(|_| entry()).collect(), &actor(), NOW, turn).unwrap()
    };
    assert_eq!(writes(1, &mut turn).len(), 1);
    let more = writes(3, &mut turn);
    assert_eq!((more.len(), turn.audit_first), (6, 3));
    assert_eq!(more[3], Write::Delete { key: "/audit/00000000000000000000".to_owned() });
    assert_eq!(turn.audit_next - turn.audit_first, audit::MAX_RECORDS);
}

#[tokio::test]
async fn a_change_among_ten_thousand_identities_is_published_at_once() {
    let changes = empty().await;
    let many: Vec<_> = (0..10_000)
        .map(|i| resource(json!({ "kind": "identity", "name": format!("i{i}"), "attributes": ["a", "b"] })))
        .collect();
    changes.put_all(many).await;
    let begun = Instant::now();
    changes.doing(vec![Change::Create(identity("alice"))]).await.unwrap();
    let took = begun.elapsed();
    println!("one change among 10,000 identities: {took:?}, compiled in {:?}", changes.last_publication().0);
    assert!(changes.snapshots.current().exists(&crate::Who::Identity(name("alice"))));
    let (page, more) = changes.list(Kind::Identity, Some(&name("i9998")), 10, |_| true);
    assert_eq!((page.len(), more), (1, false));
}

#[tokio::test]
async fn a_feed_tells_what_changed_in_order_and_to_those_who_come_back() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let changes = open_on(Arc::clone(&store)).await;
    let since = changes.revision();
    let mut feed = changes.feed(None).unwrap();
    changes.put_all(vec![identity("alice"), service("web")]).await;
    let first = feed.next().await.unwrap();
    let names: Vec<_> = first.iter().map(|told| (told.action, told.name.to_string())).collect();
    assert_eq!(names, [(Action::Create, "alice".to_owned()), (Action::Create, "web".to_owned())]);
    assert_eq!(first[0].after, changes.get(Kind::Identity, &name("alice")));
    changes.put_all(vec![resource(json!({ "kind": "identity", "name": "alice", "admin": true }))]).await;
    changes.doing(vec![Change::Delete(Kind::Identity, name("alice"), None)]).await.unwrap();
    let told: Vec<_> = feed.next().await.unwrap().iter().map(|told| told.action).collect();
    assert_eq!(told, [Action::Update, Action::Delete]);
    let again: Vec<_> = changes.feed(Some(since)).unwrap().next().await.unwrap();
    assert_eq!(again.len(), 4);
    assert_eq!(changes.feed(Some(changes.revision() + 1)).unwrap_err().code, "compacted");
    // Another gateway writes, and what was missed is found by comparison.
    let other = open_on(store).await;
    other.put_all(vec![identity("bob")]).await;
    other.doing(vec![Change::Delete(Kind::Service, name("web"), None)]).await.unwrap();
    changes.reload().await.unwrap();
    let told: Vec<_> =
        feed.next().await.unwrap().iter().map(|told| (told.action, told.name.to_string())).collect();
    assert_eq!(told, [(Action::Create, "bob".to_owned()), (Action::Delete, "web".to_owned())]);
    assert_eq!(other.feed(Some(since)).unwrap_err().status, 410, "it began later");
}
