//! R5 as a step function: from where things stand to where they should be, one safe step at a time.
//!
//! PostgreSQL enforces "k of G", the document records "a of D". An acknowledged commit is then held by at
//! least `k − |G∖D|` members of D, so this must never be less than a:
//!
//! ```text
//!   k − |G∖D| ≥ a      for the names and the document alike, before and after each step
//! ```
//!
//! That guards the commits to come. For those that were acknowledged already a change of the document also needs a
//! barrier: at least the new a members of the new D have flushed a position taken after the names had taken effect.
//! None is needed where the old document says no less than the new one: a of D leave at least `a − |D∖D′|` to D′.
//!
//! ```text
//!  a member joins         document               (it only weakens what is said: a of more)
//!  so does a rise of a    names, barrier, document
//!  a member leaves        names, barrier, document
//!  a falls                document, then names
//!  the last one leaves    document, then names
//!  all are replaced       names of both, barrier, document, names
//! ```
//!
//! Since the step depends on nothing but the present state, an interrupted change resumes.

use std::collections::BTreeSet;

use crate::node::Member;
use crate::view::Names;

/// Where things stand.
#[derive(Clone, Debug)]
pub struct SyncState<'a> {
    /// k of G, as PostgreSQL has it.
    pub names: &'a Names,
    /// Every process that acknowledges commits uses them.
    pub settled: bool,
    /// D.
    pub sync_set: &'a BTreeSet<Member>,
    /// a.
    pub acks: u32,
    /// The members that have flushed past the barrier of the present names; `None` where there is no
    /// barrier yet.
    pub past_barrier: Option<BTreeSet<Member>>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncStep {
    /// Nothing is to be done.
    Settled,
    /// Something is under way.
    Wait,
    /// Set `synchronous_standby_names`.
    SetNames(Names),
    /// Take a barrier.
    TakeBarrier,
    /// Swap the document to a of D.
    Record {
        /// D.
        sync_set: BTreeSet<Member>,
        /// a.
        acks: u32,
    },
}

/// Whether names guard a document: an acknowledged commit is held by at least a members of D.
#[must_use]
pub fn guards(names: &Names, sync_set: &BTreeSet<Member>, acks: u32) -> bool {
    let outside = names.members.difference(sync_set).count();
    (names.count as usize).saturating_sub(outside) >= acks as usize
}

/// The next step towards "a of D" being `acks` of `target`.
///
/// An empty target means that commits shall wait for nobody; whether that is allowed (`strict`) is the
/// caller's to say.
#[must_use]
pub fn next_step(now: &SyncState<'_>, target: &BTreeSet<Member>, acks: u32) -> SyncStep {
    if !now.settled {
        // An agent that found its primary running does not know whether every process uses these names:
        // to set them again settles that. Names that pgdock did not set guard nothing, and give way to some that do.
        let guard = guards(now.names, now.sync_set, now.acks);
        let recorded = || Names { members: now.sync_set.clone(), count: now.acks };
        return SyncStep::SetNames(if guard { now.names.clone() } else { recorded() });
    }
    if now.sync_set == target && now.acks == acks {
        let names = Names { members: target.clone(), count: acks };
        return if *now.names == names { SyncStep::Settled } else { SyncStep::SetNames(names) };
    }
    if target.is_empty() {
        // The last one leaves the document first: from then on nobody takes over.
        return SyncStep::Record { sync_set: BTreeSet::new(), acks: 0 };
    }
    let (sync_set, acks) = next_document(now, target, acks);
    if !guards(now.names, now.sync_set, now.acks) || !guards(now.names, &sync_set, acks) {
        return SyncStep::SetNames(between(now, &sync_set, acks));
    }
    let held = |past: &BTreeSet<Member>| past.intersection(&sync_set).count() >= acks as usize;
    match &now.past_barrier {
        _ if implied(now, &sync_set, acks) => SyncStep::Record { sync_set, acks },
        None => SyncStep::TakeBarrier,
        Some(past) if held(past) => SyncStep::Record { sync_set, acks },
        Some(_) => SyncStep::Wait,
    }
}

/// What the document is to say next. Who leaves does so before anybody joins, as long as enough stay: so a member
/// that died holds up nothing, and nobody is waited for who has only just come.
fn next_document(now: &SyncState<'_>, target: &BTreeSet<Member>, acks: u32) -> (BTreeSet<Member>, u32) {
    let staying: BTreeSet<Member> = now.sync_set.intersection(target).cloned().collect();
    let kept = now.acks.min(acks);
    let leave = staying.len() < now.sync_set.len() && !staying.is_empty() && staying.len() >= kept as usize;
    if leave { (staying, kept) } else { (target.clone(), acks) }
}

/// Whether the document says as much already of every commit that was acknowledged.
fn implied(now: &SyncState<'_>, sync_set: &BTreeSet<Member>, acks: u32) -> bool {
    let leaving = now.sync_set.difference(sync_set).count();
    (now.acks as usize).saturating_sub(leaving) >= acks as usize
}

/// Names that guard both the old document and the new one. With the new set alone, where that can be: a
/// member that joins makes k grow, a member that leaves is no longer waited for. Else with both sets.
fn between(now: &SyncState<'_>, sync_set: &BTreeSet<Member>, acks: u32) -> Names {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let joining = count(sync_set.difference(now.sync_set).count());
    let leaving = count(now.sync_set.difference(sync_set).count());
    // A document that says nothing is guarded by any names.
    let old = if now.acks == 0 { 0 } else { now.acks + joining };
    let alone = old.max(acks);
    if alone <= count(sync_set.len()) {
        return Names { members: sync_set.clone(), count: alone };
    }
    Names { members: now.sync_set.union(sync_set).cloned().collect(), count: old.max(acks + leaving) }
}

#[cfg(test)]
mod tests;
