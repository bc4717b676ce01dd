//! When all faults stop, the cluster heals by itself: one primary, all others stream from it, the sync set
//! stands, and a write is acknowledged.

use pgdock_core::view::Order;
use pgdock_core::witness::record::Durability;

use crate::simulation::world::World;

/// Looks whether it has healed. What an operator began, he ends: a pause is lifted.
pub fn look(world: &mut World) {
    if world.witness.record.paused {
        let leader = world.witness.record.leader.clone();
        if let Some(leader) = leader.map(|l| world.index(&l)) {
            world.give_order(leader, Order::Pause(false));
        }
    }
    if complaint(world).is_none() {
        world.healed_at = Some(world.now);
    }
}

/// The time is up.
pub fn at_the_end(world: &mut World) {
    if let Some(complaint) = complaint(world) {
        let views: Vec<_> = world
            .nodes
            .iter()
            .map(|n| {
                let agent =
                    n.agent.as_ref().map(|a| (&a.view.busy, &a.view.order, pgdock_core::decide::decide(&a.view)));
                format!("{}: {:?} {:?} {:?}", n.name, n.durable, n.pg.run, agent)
            })
            .collect();
        world.violated("heals", format!("{complaint}\n{}", views.join("\n")));
    }
}

fn complaint(world: &World) -> Option<String> {
    let primaries: Vec<usize> = (0..world.nodes.len()).filter(|n| world.nodes[*n].pg.primary().is_some()).collect();
    let [leader] = primaries[..] else { return Some(format!("primaries: {primaries:?}")) };
    let record = &world.witness.record;
    if record.leader.as_ref() != Some(&world.nodes[leader].name) {
        return Some("the primary is not the leader".into());
    }
    let wal = &world.nodes[leader].pg.data.as_ref()?.wal;
    for node in (0..world.nodes.len()).filter(|n| *n != leader) {
        let pg = &world.nodes[node].pg;
        let stream = pg.standby().and_then(|s| s.receiver).map(|i| &world.streams[i]);
        if stream.is_none_or(|s| s.primary != leader || !s.sends || !s.streaming) {
            return Some(format!("n{} does not stream from the leader", node + 1));
        }
        let mine = &pg.data.as_ref()?.wal;
        if mine.len() > wal.len() || mine[..] != wal[..mine.len()] {
            return Some(format!("the WAL of n{} is not the leader's", node + 1));
        }
    }
    if record.paused {
        return Some("automatic decisions are paused".into());
    }
    if world.scenario.durability.is_guarded() && record.sync_set.is_empty() {
        return Some("no standby guards commits".into());
    }
    if world.scenario.durability == Durability::Quorum {
        let eligible = (0..world.nodes.len()).filter(|n| *n != leader && world.scenario.may_lead(*n)).count();
        if record.sync_set.len() != eligible || record.acks != world.scenario.acks {
            return Some(format!("{} of {:?} guard commits", record.acks, record.sync_set));
        }
    }
    let fresh = world.ledger.acked.last().is_some_and(|(id, _)| {
        world.nodes[leader].pg.data.as_ref().is_some_and(|d| d.holds(*id))
            && world.ledger.acked_at > world.healing_since
    });
    if fresh { None } else { Some("no write was acknowledged".into()) }
}
