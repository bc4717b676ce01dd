//! A primary whose agent has read that it leads no longer acknowledges nothing, as soon as a process can be
//! killed.

use std::time::Duration;

use crate::simulation::scenario::MS;
use crate::simulation::world::World;

/// How long an agent may take to kill what it found deposed.
const MOMENT: Duration = Duration::from_millis(300);

/// A commit is about to be acknowledged.
pub fn check(world: &mut World, node: usize) {
    let n = &world.nodes[node];
    let Some(agent) = &n.agent else { return };
    // Whoever has just come out of a pause was never given that long.
    let stood_still = n.paused_until.max(n.agent_paused_until);
    if world.now < stood_still + 300 * MS {
        return;
    }
    let Some(seen) = &agent.view.witness.seen else { return };
    let leads = seen.record.leader.as_ref() == Some(&n.name);
    if !leads && n.moment(world.now).since(seen.since) > MOMENT {
        let detail = format!("n{} acknowledges, and knows that {:?} leads", node + 1, seen.record.leader);
        world.violated("deposed", detail);
    }
}
