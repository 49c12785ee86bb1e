//! Many resources at once, on a disk and in memory: `cargo bench -p adit-control --bench bulk`. Beside the times it
//! counts what is allocated; `max alloc` of a model or a snapshot is what it takes.

use std::sync::Arc;

use adit_control::changes::{Batch, Change};
use adit_control::model::{Model, Resource};
use adit_control::snapshot::Generation;
use adit_control::store::sqlite::SqliteStore;
use adit_control::{Actor, Changes, Local, Rules, Snapshot, Snapshots};
use divan::{AllocProfiler, Bencher};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const NOW: u64 = 1_800_000_000;
const KINDS: [&str; 3] = ["identity", "service", "service-policy"];

fn main() {
    divan::main();
}

fn resource(kind: &str, number: usize) -> Resource {
    let attributes = [format!("team{}", number % 100), format!("site{}", number % 37)];
    let value = match kind {
        "service-policy" => json!({"kind": kind, "name": format!("policy{number}"), "type": "Dial",
            "service_roles": [format!("@service{number}")], "identity_roles": [format!("#team{}", number % 100)]}),
        _ => json!({"kind": kind, "name": format!("{kind}{number}"), "attributes": attributes}),
    };
    serde_json::from_value(value).expect("it is a resource")
}

fn all_of(kind: &str) -> Vec<Resource> {
    (0..10_000).map(|number| resource(kind, number)).collect()
}

/// 8,000 identities, 1,000 services and 1,000 policies for one each.
fn mixed() -> Vec<Resource> {
    [("identity", 8_000), ("service", 1_000), ("service-policy", 1_000)]
        .into_iter()
        .flat_map(|(kind, count)| (0..count).map(move |number| resource(kind, number)))
        .collect()
}

fn model(resources: Vec<Resource>) -> Model {
    let mut model = Model::default();
    resources.into_iter().for_each(|resource| model.put(resource));
    model
}

#[divan::bench(args = KINDS, sample_count = 5, sample_size = 1)]
fn model_of_10_000(bencher: Bencher<'_, '_>, kind: &str) {
    bencher.bench(|| model(all_of(kind)));
}

#[divan::bench(args = KINDS, sample_count = 5, sample_size = 1)]
fn snapshot_of_10_000(bencher: Bencher<'_, '_>, kind: &str) {
    let model = model(all_of(kind));
    bencher.bench(|| Snapshot::compile(Generation::FIRST, &model, &Local::default()));
}

async fn open(directory: &TempDir) -> Arc<Changes> {
    let store = Arc::new(SqliteStore::open(directory.path()).expect("it opens"));
    let snapshots = Arc::new(Snapshots::new(Rules::default()));
    Changes::open(store, Local::default(), snapshots, NOW).await.expect("it opens")
}

async fn put(changes: &Arc<Changes>, resources: Vec<Resource>) {
    let changed = resources.into_iter().map(Change::Put).collect();
    let batch = Batch { changes: changed, ..Batch::default() };
    changes.apply(&Actor::local(), batch, NOW).await.expect("it is taken");
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// One transaction, on the disk and in force.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn apply_10_000(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().expect("a runtime");
    let fresh = || {
        let directory = directory();
        (runtime.block_on(open(&directory)), directory, mixed())
    };
    bencher.with_inputs(fresh).bench_local_values(|(changes, directory, resources)| {
        runtime.block_on(put(&changes, resources));
        (changes, directory)
    });
}

/// Of 10,000 resources, on the disk and in force.
#[divan::bench(sample_count = 30, sample_size = 1)]
fn change_one(bencher: Bencher<'_, '_>) {
    let (runtime, directory) = (Runtime::new().expect("a runtime"), directory());
    let changes = runtime.block_on(open(&directory));
    runtime.block_on(put(&changes, mixed()));
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        let json = json!({"kind": "identity", "name": "identity7", "attributes": [format!("team{number}")]});
        runtime.block_on(put(&changes, vec![serde_json::from_value(json).expect("it is a resource")]));
    });
}

/// The same by 32 writers at once: all of them.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn change_32_at_once(bencher: Bencher<'_, '_>) {
    let (runtime, directory) = (Runtime::new().expect("a runtime"), directory());
    let changes = runtime.block_on(open(&directory));
    runtime.block_on(put(&changes, mixed()));
    let mut round = 0;
    bencher.bench_local(|| {
        round += 1;
        let write = |number: usize| {
            let name = format!("identity{number}");
            let json = json!({"kind": "identity", "name": name, "attributes": [format!("team{round}")]});
            let changes = Arc::clone(&changes);
            runtime.spawn(async move {
                put(&changes, vec![serde_json::from_value(json).expect("it is a resource")]).await;
            })
        };
        let writers: Vec<_> = (0..32).map(write).collect();
        runtime
            .block_on(futures_util::future::join_all(writers))
            .into_iter()
            .for_each(|done| done.expect("it is done"));
    });
}

/// From the files of a state directory with 10,000 resources to the first snapshot.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn start_with_10_000(bencher: Bencher<'_, '_>) {
    let (runtime, directory) = (Runtime::new().expect("a runtime"), directory());
    runtime.block_on(async { put(&open(&directory).await, mixed()).await });
    bencher.bench_local(|| runtime.block_on(open(&directory)));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn export_10_000(bencher: Bencher<'_, '_>) {
    let (runtime, directory) = (Runtime::new().expect("a runtime"), directory());
    let changes = runtime.block_on(open(&directory));
    runtime.block_on(put(&changes, mixed()));
    bencher.bench_local(|| {
        let (all, _) = changes.export();
        let resources: Vec<_> = all.iter().map(|stored| &stored.resource).collect();
        serde_json::to_vec(&resources).expect("it is JSON")
    });
}
