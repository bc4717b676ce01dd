//! `sync` and `quorum`: what clients can read on a primary is in the WAL of every later leader, also what a primary
//! recovered and nobody was told is committed.

use crate::simulation::world::World;

/// Clients are let in: they see all that is there.
pub fn admitted(world: &mut World, node: usize) {
    if super::may_lose(world) {
        return;
    }
    let term = world.reign(node);
    let Some(data) = &world.nodes[node].pg.data else { return };
    let ids: Vec<u64> = data.wal.iter().map(|r| r.id).collect();
    for id in &ids {
        world.ledger.seen.entry(*id).or_insert(term);
    }
    // Whoever leads later already must hold it, too.
    for other in 0..world.nodes.len() {
        let pg = &world.nodes[other].pg;
        if pg.primary().is_some() && world.reign(other) > term {
            becomes_primary(world, other);
        }
    }
    if term == world.witness.record.term {
        guarded(world, node, &ids);
    }
}

/// A takeover that begins now must find it.
fn guarded(world: &mut World, node: usize, ids: &[u64]) {
    let record = &world.witness.record;
    let may_lack = record.sync_set.len().saturating_sub(record.acks as usize);
    let lacks = |id: u64| {
        let members = record.sync_set.iter().filter(|m| {
            let data = world.nodes.iter().find(|n| n.name == m.node).and_then(|n| n.pg.data.as_ref());
            data.is_some_and(|d| d.incarnation == m.incarnation && !d.holds(id))
        });
        members.count()
    };
    if let Some(id) = ids.iter().rev().copied().find(|id| lacks(*id) > may_lack) {
        let detail = format!("n{} shows {id}, held by too few of {} of {:?}", node + 1, record.acks, record.sync_set);
        world.violated("seen_survives", detail);
    }
}

/// A server comes out of recovery: it holds all that was seen in earlier reigns.
pub fn becomes_primary(world: &mut World, node: usize) {
    if super::may_lose(world) {
        return;
    }
    let Some(data) = &world.nodes[node].pg.data else { return };
    let term = world.reign(node);
    let missing: Vec<u64> =
        world.ledger.seen.iter().filter(|(id, reign)| **reign < term && !data.holds(**id)).map(|(id, _)| *id).collect();
    if !missing.is_empty() {
        let detail = format!("n{} is primary of term {term} without {missing:?}, which clients have seen", node + 1);
        world.violated("seen_survives", detail);
    }
}
