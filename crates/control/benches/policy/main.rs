//! What policies cost, at 10,000 identities, 1,000 services and 1,000 policies and in shapes that are hard on them:
//! `cargo bench -p adit-control`.

use std::hint::black_box;
use std::sync::Arc;

use adit_control::changes::{Batch, Change};
use adit_control::model::{Model, Resource};
use adit_control::snapshot::Generation;
use adit_control::store::memory::MemoryStore;
use adit_control::{Actor, Changes, Local, Rules, Snapshot, Snapshots, Subject, Who, authorize};
use adit_proto::names::ServiceName;
use divan::Bencher;
use shapes::{SHAPES, Shape, USUAL, identity};

mod shapes;

const NOW: u64 = 1_800_000_000;

fn main() {
    divan::main();
}

fn model(shape: Shape) -> Model {
    let mut model = Model::default();
    shape.resources().into_iter().for_each(|resource| model.put(resource));
    model
}

#[divan::bench(args = SHAPES, sample_count = 15, sample_size = 1)]
fn compile(bencher: Bencher<'_, '_>, shape: Shape) {
    let (model, local) = (model(shape), Local::default());
    bencher.bench(|| Snapshot::compile(Generation::FIRST, black_box(&model), &local));
}

fn person(number: usize) -> Who {
    Who::Identity(format!("person{number}").parse().expect("it is a name"))
}

fn decision(bencher: Bencher<'_, '_>, who: Who, is_allowed: bool) {
    let snapshot = Snapshot::compile(Generation::FIRST, &model(USUAL), &Local::default());
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

#[divan::bench]
fn decide_no_to_the_public(bencher: Bencher<'_, '_>) {
    decision(bencher, Who::Public, false);
}

#[divan::bench]
fn decide_no_to_an_identity(bencher: Bencher<'_, '_>) {
    decision(bencher, person(102), false);
}

/// Whoever has nothing asks for something.
#[divan::bench(args = SHAPES)]
fn decide_no_in(bencher: Bencher<'_, '_>, shape: Shape) {
    let snapshot = Snapshot::compile(Generation::FIRST, &model(shape), &Local::default());
    let subject = Subject { who: Who::Public, address: None };
    let service: ServiceName = "@service0".parse().expect("it is a service");
    bencher.bench(|| authorize(black_box(&snapshot), black_box(&subject), black_box(&service)));
}

/// From one change that is asked for to the snapshot that has it: checked, committed, compiled, published.
#[divan::bench(args = SHAPES, sample_count = 15, sample_size = 1)]
fn publish_a_change(bencher: Bencher<'_, '_>, shape: Shape) {
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
        changes.apply(&actor, put(shape.resources()), NOW).await.expect("it is taken");
        changes
    });
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        let before = snapshots.current().generation();
        // Another team, so that there is something to change.
        let changed = identity("person7".to_owned(), vec![format!("team{}", number % 2)]);
        runtime.block_on(changes.apply(&actor, put(vec![changed]), NOW)).expect("it is taken");
        assert!(snapshots.current().generation() > before, "it is published");
    });
}
