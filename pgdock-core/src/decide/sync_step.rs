//! R5 as a step function: from where things stand to where they should be, one safe step at a time.
//!
//! PostgreSQL enforces "k of G", the document records "a of D". An acknowledged commit is then held by at
//! least `k − |G∖D|` members of D, so this must never be less than a:
//!
//! ```text
//!   k − |G∖D| ≥ a      for the names and the document alike, before and after each step
//! ```
//!
//! A change of the document also needs a barrier: at least the new a members of the new D have flushed a
//! position taken after the names had taken effect. Since the step depends on nothing but the present
//! state, an interrupted change resumes.

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
        // to set them again settles that.
        return SyncStep::SetNames(now.names.clone());
    }
    let final_names = Names { members: target.clone(), count: acks };
    if now.sync_set == target && now.acks == acks {
        return if *now.names == final_names { SyncStep::Settled } else { SyncStep::SetNames(final_names) };
    }
    if target.is_empty() {
        // The last one leaves the document first: from then on nobody takes over.
        return SyncStep::Record { sync_set: BTreeSet::new(), acks: 0 };
    }
    if guards(now.names, now.sync_set, now.acks) && guards(now.names, target, acks) {
        return match &now.past_barrier {
            None => SyncStep::TakeBarrier,
            Some(past) if past.intersection(target).count() >= acks as usize => {
                SyncStep::Record { sync_set: target.clone(), acks }
            }
            Some(_) => SyncStep::Wait,
        };
    }
    SyncStep::SetNames(between(now, target, acks))
}

/// Names that guard both the old document and the new one. With the target alone, where that can be: a
/// member that joins makes k grow, a member that leaves is no longer waited for. Else with both sets.
fn between(now: &SyncState<'_>, target: &BTreeSet<Member>, acks: u32) -> Names {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let joining = count(target.difference(now.sync_set).count());
    let leaving = count(now.sync_set.difference(target).count());
    let alone = (now.acks + joining).max(acks);
    if alone <= count(target.len()) {
        return Names { members: target.clone(), count: alone };
    }
    Names { members: now.sync_set.union(target).cloned().collect(), count: (now.acks + joining).max(acks + leaving) }
}

#[cfg(test)]
mod tests;
