//! The state of a gateway as a file, and back.

use std::path::Path;

use adit_control::store::sqlite::SqliteStore;
use adit_control::store::{Store as _, Transaction, Write};

use crate::support::world::World;

fn with_store<T>(directory: &Path, work: impl AsyncFnOnce(&SqliteStore) -> T) -> T {
    let store = SqliteStore::open(directory).unwrap();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work(&store))
}

fn put(directory: &Path, value: &str) {
    with_store(directory, async |store| {
        let write = Write::Put { key: "/a".to_owned(), value: value.into(), lease: None };
        store.commit(Transaction { expect: Vec::new(), writes: vec![write] }).await.unwrap();
    });
}

fn value(directory: &Path) -> String {
    let entry = with_store(directory, async |store| store.get("/a").await.unwrap().unwrap());
    String::from_utf8(entry.value).unwrap()
}

#[test]
fn a_backup_is_put_back_unless_a_gateway_uses_the_state_or_it_is_none() {
    let world = World::new();
    let (state, backup) = (world.path("state"), world.path("backup.db"));
    put(&state, "old");
    with_store(&state, async |store| store.backup(&backup).await.unwrap());
    put(&state, "new");

    let restore = ["backup", "restore", "backup.db", "--state-dir", "state"];
    let said = with_store(&state, async |_| world.run(&restore));
    assert_eq!(said.code, 1, "{said:#?}");
    let holder = format!("is used by another gateway (pid {}); stop that one first", std::process::id());
    assert!(said.err.contains("cannot restore backup.db") && said.err.contains(&holder), "{said:#?}");

    world.write("text", "no database\n");
    for (file, why) in
        [("text", "is not a database of this program"), ("none", "cannot read the backup none")]
    {
        let said = world.run(&["backup", "restore", file, "--state-dir", "state"]);
        assert_eq!(said.code, 1, "{said:#?}");
        assert!(said.err.contains(why) && said.err.contains("next: "), "{said:#?}");
    }
    assert_eq!(value(&state), "new", "what was refused changed nothing");

    let said = world.run(&restore);
    assert_eq!(said.code, 0, "{said:#?}");
    assert!(said.out.contains("restored into state, entries: 1"), "{said:#?}");
    assert!(said.out.contains("kept as state/adit.db.replaced"), "{said:#?}");
    assert!(said.err.contains("what was revoked since the backup was made is valid again"), "{said:#?}");
    assert!(said.err.contains("state has no ca.crt and no ca.key"), "{said:#?}");
    assert_eq!(value(&state), "old");

    world.write("state/ca.crt", "kept\n");
    let said = world.run(&restore);
    assert!(said.code == 0 && !said.err.contains("no ca.key"), "{said:#?}");
}
