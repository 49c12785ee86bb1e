//! Publication, and what a snapshot says beside decisions.

use serde_json::json;

use super::*;

#[test]
fn publishing_replaces_the_view_for_new_readers_and_leaves_old_ones_alone() {
    let snapshots = Snapshots::new(Rules::default());
    let mut changes = snapshots.changes();
    let before = snapshots.current();
    let rules = Rules { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Rules::default() };
    let generation = snapshots.publish_all(&Model::default(), &Local { rules, tokens: Vec::new() });
    assert!(before.rules().allows("192.0.2.1".parse().unwrap()));
    assert!(!snapshots.current().rules().allows("192.0.2.1".parse().unwrap()));
    assert!(snapshots.current().generation() == generation && generation > before.generation());
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), generation.number());
}

fn compiled(resources: &[serde_json::Value], held: &[(&str, &str, Timestamp)]) -> Snapshot {
    let mut model = Model::default();
    for resource in resources {
        model.put(serde_json::from_value(resource.clone()).unwrap());
    }
    for (identity, serial, not_after) in held {
        let credential = Credential {
            serial: (*serial).to_owned(),
            issued_at: 0,
            not_after: *not_after,
            renewed_from: Vec::new(),
        };
        Arc::make_mut(model.credentials.entry(identity.parse().unwrap()).or_default()).push(credential);
    }
    Snapshot::compile(Generation::FIRST, &model, &Local::default())
}

#[test]
fn a_certificate_that_is_not_listed_opens_nothing() {
    let snapshot = compiled(
        &[
            json!({"kind": "identity", "name": "Ann"}),
            json!({"kind": "identity", "name": "bob", "disabled": true}),
        ],
        &[("ann", "0a", 100), ("ann", "0b", 200), ("bob", "0c", 200), ("gone", "0d", 200)],
    );
    for (identity, serial, now, whose) in [
        ("ann", "0a", 99, Some("Ann")),
        ("ann", "0a", 100, None),
        ("ann", "0b", 150, Some("Ann")),
        // Of nobody, of somebody else, of one that is disabled, of one that was deleted.
        ("ann", "0e", 1, None),
        ("ann", "0c", 1, None),
        ("bob", "0c", 1, None),
        ("gone", "0d", 1, None),
    ] {
        let found = snapshot.credential(identity, serial, now).map(Name::as_str);
        assert_eq!(found, whose, "{identity} {serial} at {now}");
    }
}

#[test]
fn who_is_there_and_who_may_administer() {
    let snapshot = compiled(
        &[
            json!({"kind": "identity", "name": "Ann", "admin": true}),
            json!({"kind": "identity", "name": "bob"}),
            json!({"kind": "identity", "name": "cy", "admin": true, "disabled": true}),
            json!({"kind": "token", "name": "ops", "admin": true}),
            json!({"kind": "token", "name": "scraper", "metrics": true, "limits": {"hosts": []}}),
            json!({"kind": "token", "name": "agents", "limits": {"hosts": ["a.example"]}}),
            json!({"kind": "identity", "name": "watcher", "metrics": true}),
            json!({"kind": "identity", "name": "gone", "metrics": true, "disabled": true}),
        ],
        &[],
    );
    let identity = |name: &str| Who::Identity(name.parse().unwrap());
    let token = |name: &str| Who::Token(name.parse().unwrap());
    for (who, exists, is_admin) in [
        (identity("ANN."), true, true),
        (identity("bob"), true, false),
        (identity("cy"), false, false),
        (identity("ops"), false, false),
        (token("ops"), true, true),
        (token("ann"), false, false),
        (Who::Public, true, false),
    ] {
        assert_eq!((snapshot.exists(&who), snapshot.is_admin(&who)), (exists, is_admin), "{who}");
    }
    for (who, looks_around, reads_metrics) in [
        (identity("ann"), true, true),
        (identity("bob"), false, false),
        (identity("watcher"), false, true),
        (identity("gone"), false, false),
        (token("ops"), true, true),
        (token("scraper"), false, true),
        (token("agents"), false, false),
        (Who::Public, false, false),
    ] {
        let may = (snapshot.may_look_around(&who), snapshot.may_read_metrics(&who));
        assert_eq!(may, (looks_around, reads_metrics), "{who}");
    }
}

#[test]
fn a_host_takes_the_most_specific_route() {
    let route = |name: &str, hosts: &[&str], service: &str| json!({"kind": "route", "name": name, "hosts": hosts, "service": service});
    let all = [
        route("exact", &["App.Example.com"], "app"),
        route("deep", &["*.eu.example.com"], "eu"),
        route("domain", &["*.example.com"], "example"),
    ];
    let snapshot = compiled(&all, &[]);
    let with_any = compiled(&[&all[..], &[route("z", &["*"], "any")]].concat(), &[]);
    for (host, service) in [
        ("app.example.com", Some("app")),
        ("APP.example.com.", Some("app")),
        ("b.example.com", Some("example")),
        ("x.app.example.com", Some("example")),
        ("a.eu.example.com", Some("eu")),
        ("eu.example.com", Some("example")),
        ("example.com", None),
        ("badexample.com", None),
    ] {
        let of = |snapshot: &Snapshot| {
            snapshot.route_for_host(&host.parse().unwrap()).map(|(_, service)| service.to_string())
        };
        assert_eq!(of(&snapshot).as_deref(), service, "{host}");
        assert_eq!(of(&with_any).as_deref(), service.or(Some("any")), "{host}");
    }
}

#[test]
fn generations_are_published_in_their_order_by_however_many_publishers() {
    const EACH: u64 = 200;
    let snapshots = Snapshots::new(Rules::default());
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_done.load(std::sync::atomic::Ordering::Acquire) {
                // Whoever is told of a generation finds it or a newer one.
                let told = *snapshots.changes().borrow();
                let found = snapshots.current().generation().number();
                assert!(found >= told, "{found} after {told}");
                seen.push(found);
            }
            seen
        });
        let publishers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let publish = |_| snapshots.publish_all(&Model::default(), &Local::default()).number();
                    (0..EACH).map(publish).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut all: Vec<u64> = Vec::new();
        for publisher in publishers {
            let own = publisher.join().unwrap();
            assert!(own.is_sorted(), "a publisher's own come one after another");
            all.extend(own);
        }
        is_done.store(true, std::sync::atomic::Ordering::Release);
        assert!(reader.join().unwrap().is_sorted(), "none older follows a newer one");
        all.sort_unstable();
        let first = Generation::FIRST.number();
        assert_eq!(all, (first + 1..=first + 4 * EACH).collect::<Vec<_>>(), "each is given once");
        assert_eq!(snapshots.current().generation().number(), first + 4 * EACH);
    });
}
