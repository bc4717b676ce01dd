//! Terms only grow, the heartbeat grows by one with each change, and a term has one leader.

use pgdock_core::witness::Record;

use crate::simulation::world::World;

/// The document changes.
pub fn document_changes(world: &mut World, next: &Record) {
    let now = &world.witness.record;
    let same_reign = next.term == now.term && (next.leader == now.leader || next.leader.is_none());
    let new_reign = next.term == now.term.next() && next.leader.is_some();
    if next.heartbeat != now.heartbeat + 1 || !(same_reign || new_reign) {
        let detail = format!(
            "term {} of {:?} became term {} of {:?}, heartbeat {} became {}",
            now.term, now.leader, next.term, next.leader, now.heartbeat, next.heartbeat
        );
        world.violated("terms", detail);
    }
}

/// A server comes out of recovery, in the term that its agent wrote down first.
pub fn becomes_primary(world: &mut World, node: usize) {
    let term = world.reign(node);
    let before = *world.ledger.reigns.entry(term).or_insert(node);
    if before != node {
        world.violated("terms", format!("n{} and n{} were both primary in term {term}", before + 1, node + 1));
    }
}
