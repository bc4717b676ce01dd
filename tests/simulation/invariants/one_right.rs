//! `async`: at any moment at most one node has an unexpired right to be primary and a server that uses it.
//!
//! The right of a node is what its deadman is armed with; a server without a deadman would run for ever.

use crate::simulation::world::World;

/// Looks at all nodes.
pub fn check(world: &mut World) {
    if !super::rights_only(world) {
        return;
    }
    let mut holder = None;
    for node in 0..world.nodes.len() {
        let n = &world.nodes[node];
        if n.pg.primary().is_some() && n.deadman.is_none_or(|until| n.clock(world.now) < until) {
            if let Some(other) = holder {
                let detail = format!("n{} and n{} both have one", other + 1, node + 1);
                world.violated("one_right", detail);
            }
            holder = Some(node);
        }
    }
}
