//! What must hold, a file each, and the ledger of what was promised.

use std::collections::BTreeMap;

use pgdock_core::Term;
use pgdock_core::witness::record::Durability;

use super::scenario::Micros;
use super::world::World;

pub mod acknowledged_survives;
pub mod deposed;
pub mod heals;
pub mod one_history;
pub mod one_right;
pub mod one_speaker;
pub mod outage;
pub mod right_ended;
pub mod seen_survives;
pub mod strict;
pub mod sync_set;
pub mod terms;

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which one: the name of its file.
    pub invariant: &'static str,
    /// How.
    pub detail: String,
    /// When.
    pub at: Micros,
}

/// What was promised to clients, and who reigned.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Commits that a client was told of, in the order in which they were made, each with the reign that
    /// told him.
    pub acked: Vec<(u64, Term)>,
    /// What clients could read though no primary had acknowledged it: the commits that a primary recovered, each with
    /// the reign in which they were let in.
    pub seen: BTreeMap<u64, Term>,
    /// The highest reign in which a commit was acknowledged: by whom, since when, and the first commit.
    pub spoke: Option<(Term, usize, Micros, u64)>,
    /// Who was primary in which term.
    pub reigns: BTreeMap<Term, usize>,
    /// An operator asked for a failover that may lose data.
    pub reckless: bool,
    /// In `async`: acknowledged commits that a later leader lacked.
    pub lost: usize,
    /// When a commit was acknowledged last.
    pub acked_at: Micros,
}

/// A commit is acknowledged.
pub fn acknowledge(world: &mut World, node: usize, id: u64) {
    world.note("ack", node, || id.to_string());
    one_speaker::check(world, node, id);
    right_ended::check(world, node);
    deposed::check(world, node);
    sync_set::acknowledged(world, node, id);
    strict::check(world, node, id);
    world.ledger.acked_at = world.now;
    let at = world.ledger.acked.partition_point(|(known, _)| *known < id);
    let reign = world.reign(node);
    world.ledger.acked.insert(at, (id, reign));
    acknowledged_survives::acknowledged(world, node, id);
}

/// A server comes out of recovery.
pub fn becomes_primary(world: &mut World, node: usize) {
    terms::becomes_primary(world, node);
    one_right::check(world);
    acknowledged_survives::becomes_primary(world, node);
    seen_survives::becomes_primary(world, node);
}

/// Whether a right is all that keeps two nodes from being primary.
#[must_use]
pub fn rights_only(world: &World) -> bool {
    world.scenario.durability == Durability::Async
}

/// Whether acknowledged commits may be lost: by the terms of `async`, or because an operator said so. A crash of
/// PostgreSQL alone loses none in `async` either.
#[must_use]
pub fn may_lose(world: &World) -> bool {
    rights_only(world) && !world.scenario.crashes_only || world.ledger.reckless
}
