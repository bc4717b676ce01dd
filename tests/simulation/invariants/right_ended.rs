//! `async`: no primary acknowledges after its right ended.
//!
//! The deadman gets a moment to act: the margin between the end of a right and the earliest takeover is
//! many times that.

use crate::simulation::scenario::MS;
use crate::simulation::world::World;

/// A commit is about to be acknowledged.
pub fn check(world: &mut World, node: usize) {
    if !super::rights_only(world) {
        return;
    }
    let n = &world.nodes[node];
    let clock = n.clock(world.now);
    match n.deadman {
        Some(until) if clock <= until + 20 * MS => {}
        Some(until) => {
            let late = (clock - until) / MS;
            world.violated("right_ended", format!("n{} acknowledges {late} ms after its right", node + 1));
        }
        None => world.violated("right_ended", format!("n{} acknowledges without a right", node + 1)),
    }
}
