//! Publication, and what a snapshot says beside decisions.

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
