//! R5: of the sync set D at most |D| − a members lack an acknowledged commit.
//!
//! A member whose data directory was made anew lacks nothing: it is not that member any more, and cannot
//! pledge as one.

use crate::simulation::world::World;

/// A commit is about to be acknowledged.
pub fn acknowledged(world: &mut World, node: usize, id: u64) {
    if world.reign(node) == world.witness.record.term {
        check(world, &[id]);
    }
}

/// The document names another set.
pub fn document_changed(world: &mut World) {
    let acked = std::mem::take(&mut world.ledger.acked);
    let ids: Vec<u64> = acked.iter().map(|(id, _)| *id).collect();
    check(world, &ids);
    world.ledger.acked = acked;
}

fn check(world: &mut World, ids: &[u64]) {
    if super::may_lose(world) {
        return;
    }
    let record = &world.witness.record;
    let may_lack = record.sync_set.len().saturating_sub(record.acks as usize);
    for id in ids {
        let lacking: Vec<_> = record
            .sync_set
            .iter()
            .filter(|m| {
                let data = world.nodes.iter().find(|n| n.name == m.node).and_then(|n| n.pg.data.as_ref());
                data.is_some_and(|d| d.incarnation == m.incarnation && !d.holds(*id))
            })
            .collect();
        if lacking.len() > may_lack {
            let detail =
                format!("acknowledged commit {id}: {lacking:?} lack it, {} of {:?}", record.acks, record.sync_set);
            world.violated("sync_set", detail);
            return;
        }
    }
}
