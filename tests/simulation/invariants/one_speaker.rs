//! Two primaries never acknowledge in turns: once a commit was acknowledged in a reign, none is in an
//! earlier one that was made after that.
//!
//! An old commit may be acknowledged late: its standby had it, and told so before it took over. That all
//! later leaders hold it is looked after by `acknowledged_survives`.

use crate::simulation::world::World;

/// A commit is about to be acknowledged.
pub fn check(world: &mut World, node: usize, id: u64) {
    if world.ledger.reckless {
        return;
    }
    let term = world.reign(node);
    match world.ledger.spoke {
        Some((other, speaker, since, first)) if term < other && (id > first || super::rights_only(world)) => {
            let detail = format!(
                "n{} acknowledges {id} in term {term}, though n{} acknowledged in term {other} since {:.3} ms",
                node + 1,
                speaker + 1,
                since as f64 / 1e3
            );
            world.violated("one_speaker", detail);
        }
        Some((other, ..)) if term <= other => {}
        _ => world.ledger.spoke = Some((term, node, world.now, id)),
    }
}
