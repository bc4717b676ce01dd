//! A standby's WAL is one history: it never follows a primary from whose WAL its own has diverged.

use crate::simulation::world::World;

/// A standby streams from where its WAL is not the upstream's.
pub fn diverged(world: &mut World, node: usize, upstream: usize) {
    let detail = format!("n{} follows n{} across a divergence that PostgreSQL cannot see", node + 1, upstream + 1);
    world.violated("one_history", detail);
}
