//! `strict`: nothing is acknowledged that the primary alone holds.

use crate::simulation::world::World;

/// A commit is about to be acknowledged.
pub fn check(world: &mut World, node: usize, id: u64) {
    if !world.scenario.strict || super::may_lose(world) || world.reign(node) != world.witness.record.term {
        return;
    }
    let mut others = world.nodes.iter().enumerate().filter(|(other, _)| *other != node);
    let held = others.any(|(_, n)| n.pg.data.as_ref().is_some_and(|d| d.holds(id)));
    if !held {
        world.violated("strict", format!("n{} acknowledges {id}, which nobody else holds", node + 1));
    }
}
