//! What policies cost at 10,000 identities, 1,000 services and 1,000 policies: `cargo bench -p adit-control`.

use std::hint::black_box;
use std::sync::Arc;

use adit_control::changes::{Batch, Change};
use adit_control::model::{Model, Resource};
use adit_control::snapshot::Generation;
use adit_control::store::memory::MemoryStore;
use adit_control::{Actor, Changes, Local, Rules, Snapshot, Snapshots, Subject, Who, authorize};
use adit_proto::names::ServiceName;
use divan::Bencher;
use serde_json::{Value, json};

const IDENTITIES: usize = 10_000;
const SERVICES: usize = 1_000;
const POLICIES: usize = 1_000;
const NOW: u64 = 1_800_000_000;

fn main() {
    divan::main();
}

fn identity(number: usize) -> Value {
    let attributes =
        [format!("team{}", number % 100), format!("site{}", number % 37), format!("rank{}", number % 5)];
    json!({"kind": "identity", "name": format!("person{number}"), "attributes": attributes})
}

fn service(number: usize) -> Value {
    let attributes = [format!("area{}", number % 50), format!("level{}", number % 3)];
    json!({"kind": "service", "name": format!("service{number}"), "attributes": attributes})
}

/// Half of them for one service and a team; the others for areas and two attributes, for one person, and for all.
fn policy(number: usize) -> Value {
    let verb = if number.is_multiple_of(3) { "Bind" } else { "Dial" };
    let one = format!("@service{number}");
    let (semantic, services, identities) = match number % 10 {
        0..5 => ("AnyOf", vec![one], vec![format!("#team{}", number % 100)]),
        5..7 => (
            "AllOf",
            vec![format!("#area{}", number % 50)],
            vec![format!("#team{}", number % 100), format!("#site{}", number % 37)],
        ),
        7..9 => ("AnyOf", vec![one], (0..10).map(|at| format!("@person{}", number * 10 + at)).collect()),
        _ => ("AnyOf", vec![one], vec!["#all".to_owned()]),
    };
    json!({"kind": "service-policy", "name": format!("policy{number}"), "type": verb, "semantic": semantic,
        "service_roles": services, "identity_roles": identities})
}

fn resources() -> Vec<Resource> {
    let identities = (0..IDENTITIES).map(identity);
    let all = identities.chain((0..SERVICES).map(service)).chain((0..POLICIES).map(policy));
    all.map(|value| serde_json::from_value(value).expect("it is a resource")).collect()
}

fn model() -> Model {
    let mut model = Model::default();
    resources().into_iter().for_each(|resource| model.put(resource));
    model
}

#[divan::bench(sample_count = 50)]
fn compile(bencher: Bencher<'_, '_>) {
    let (model, local) = (model(), Local::default());
    bencher.bench(|| Snapshot::compile(Generation::FIRST, black_box(&model), &local));
}

fn person(number: usize) -> Who {
    Who::Identity(format!("person{number}").parse().expect("it is a name"))
}

fn decision(bencher: Bencher<'_, '_>, who: Who, is_allowed: bool) {
    let snapshot = Snapshot::compile(Generation::FIRST, &model(), &Local::default());
    let subject = Subject { who, address: None };
    // A Dial policy of team 1.
    let service: ServiceName = "@service1".parse().expect("it is a service");
    assert_eq!(authorize(&snapshot, &subject, &service).is_ok(), is_allowed, "what is measured");
    bencher.bench(|| authorize(black_box(&snapshot), black_box(&subject), black_box(&service)));
}

#[divan::bench]
fn decide_yes(bencher: Bencher<'_, '_>) {
    decision(bencher, person(101), true);
}

/// Whoever asks as the public is not looked up in every policy.
#[divan::bench]
fn decide_no_to_the_public(bencher: Bencher<'_, '_>) {
    decision(bencher, Who::Public, false);
}

/// With the sentence that says why, and the command that would change it.
#[divan::bench]
fn decide_no_and_say_why(bencher: Bencher<'_, '_>) {
    decision(bencher, person(102), false);
}

/// From one change that is asked for to the snapshot that has it: checked, committed, compiled, published.
#[divan::bench(sample_count = 50)]
fn publish_a_change(bencher: Bencher<'_, '_>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let snapshots = Arc::new(Snapshots::new(Rules::default()));
    let actor = Actor { name: "local".to_owned(), address: None };
    let put = |resources: Vec<Resource>| Batch {
        changes: resources.into_iter().map(Change::Put).collect(),
        ..Batch::default()
    };
    let changes = runtime.block_on(async {
        let store = Arc::new(MemoryStore::new());
        let changes =
            Changes::open(store, Local::default(), Arc::clone(&snapshots), NOW).await.expect("it opens");
        changes.apply(&actor, put(resources()), NOW).await.expect("it is taken");
        changes
    });
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        let before = snapshots.current().generation();
        // Another team, so that there is something to change.
        let mut changed = identity(7);
        changed["attributes"] = json!([format!("team{}", number % 2)]);
        let changed = serde_json::from_value(changed).expect("it is a resource");
        runtime.block_on(changes.apply(&actor, put(vec![changed]), NOW)).expect("it is taken");
        assert!(snapshots.current().generation() > before, "it is published");
    });
}
