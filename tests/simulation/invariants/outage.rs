//! An outage of the witness alone demotes nobody: in `async` because all others have promised to wait.

use crate::simulation::world::World;

/// A server is about to be killed by its agent or its deadman.
pub fn killed(world: &mut World, node: usize) {
    if world.scenario.outages_only && world.nodes[node].pg.primary().is_some() {
        world.violated("outage", format!("n{} was a primary, and nothing was wrong with it", node + 1));
    }
}
