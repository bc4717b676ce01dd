//! R6 in `async`: the heir of a primary whose PostgreSQL crashed takes the end of its WAL before the lead is handed
//! over. The crashed server is dead, but its files are there, and so is its agent, which serves them.
//!
//! ```text
//!   crash ──▶ report: tail for n2 ──▶ n2 fetches, syncs ──▶ report: took ──▶ swap: handoff_to n2 ──▶ n2 leads
//!               │ TAIL_BUDGET is over: without it, within lag_bytes_max ──▲
//! ```

use std::time::Duration;

use super::action::{Action, Decision};
use super::leader_stopped::Successor;
use super::rules::Rule;
use crate::report::{Crash, Report, Tail};
use crate::view::{Stopped, View};
use crate::witness::record::Durability;

/// How long a hand over after a crash waits for the heir to take the end of the WAL, counted from the crash. After
/// that a gap of up to `lag_bytes_max` is put up with, as after the loss of the whole node.
const TAIL_BUDGET: Duration = Duration::from_secs(2);

/// Which crash left a stopped primary.
fn crash(view: &View, stopped: &Stopped) -> Crash {
    let at = stopped.ended_at.unwrap_or_default();
    Crash { node: view.me.clone(), session: view.session, at }
}

/// Whether a peer says that it has the end of this crashed primary's WAL.
pub(super) fn taken_by(view: &View, peer: &Report, stopped: &Stopped) -> bool {
    peer.aid.took.as_deref() == Some(&crash(view, stopped))
}

/// Serves the end of the WAL to the successor. Whether the hand over waits for that.
pub(super) fn serve(view: &View, d: &mut Decision, successor: &Successor<'_>, stopped: &Stopped) -> bool {
    let Successor::Heir(heir) = successor else { return false };
    // In `sync` the heir holds every acknowledged commit already.
    let is_async = view.witness.record().is_some_and(|r| r.durability == Durability::Async);
    let over = view.now.since(stopped.ended_at.unwrap_or_default()) >= TAIL_BUDGET;
    if !is_async || over || taken_by(view, heir, stopped) || !view.policy.rules.hold(Rule::ServeTail) {
        return false;
    }
    d.tail = Some(Tail { heir: heir.node.clone(), crash: crash(view, stopped), timeline: stopped.timeline });
    true
}

/// The heir takes what is served, once its WAL receiver is gone.
pub(super) fn take(view: &View, d: &mut Decision) {
    let Some(standby) = view.local.postgres.as_standby() else { return };
    let Some(leader) = view.other_leader() else { return };
    let Some(tail) = view.report(leader).and_then(|r| r.aid.tail.as_deref()) else { return };
    if tail.heir != view.me || tail.crash.node != *leader || view.took.as_ref() == Some(&tail.crash) {
        return;
    }
    d.watchful = true;
    if standby.timeline == tail.timeline && !standby.receiving && view.busy.is_none() {
        d.want(Action::TakeTail { tail: tail.clone() });
    }
}
