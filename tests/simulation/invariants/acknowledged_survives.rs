//! What was acknowledged is in the WAL of every later leader: in `sync`, and in `async` where nothing is lost but a
//! server's processes.

use crate::simulation::world::World;

/// A server comes out of recovery: it holds all that was acknowledged in earlier reigns, and in its own.
pub fn becomes_primary(world: &mut World, node: usize) {
    let Some(data) = &world.nodes[node].pg.data else { return };
    let term = world.reign(node);
    let missing: Vec<u64> =
        world.ledger.acked.iter().filter(|(id, reign)| *reign <= term && !data.holds(*id)).map(|(id, _)| *id).collect();
    if missing.is_empty() {
        return;
    }
    if super::may_lose(world) {
        world.ledger.lost += missing.len();
        // What is lost is counted once.
        world.ledger.acked.retain(|(id, _)| !missing.contains(id));
    } else {
        let detail = format!("n{} is primary of term {term} without acknowledged commits {missing:?}", node + 1);
        world.violated("acknowledged_survives", detail);
    }
}

/// A commit was acknowledged: all primaries of later reigns hold it.
pub fn acknowledged(world: &mut World, node: usize, id: u64) {
    if super::may_lose(world) {
        return;
    }
    let term = world.reign(node);
    for other in 0..world.nodes.len() {
        let pg = &world.nodes[other].pg;
        let later = pg.primary().is_some() && world.reign(other) > term;
        if later && pg.data.as_ref().is_some_and(|d| !d.holds(id)) {
            let detail = format!("n{} acknowledges {id}, which n{}, a later leader, lacks", node + 1, other + 1);
            world.violated("acknowledged_survives", detail);
        }
    }
}
