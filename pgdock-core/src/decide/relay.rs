//! R7: a leader that is cut off from the witness alone has its swaps made by a peer.
//!
//! The leader tells in its report which swap of its own it does not hear of. A peer that reaches the witness, and
//! reads there the very version that the swap expects, makes it as it stands, nonce included, and tells the
//! document that it then read. To the leader such a swap is what every swap of unknown outcome is: an attempt,
//! open until a newer version settles it (R0). Two peers that make the same one, or a peer and the leader itself,
//! do no harm: only the first finds the version that it expects.

use super::action::{Action, Decision};
use super::rules::Rule;
use super::swap;
use crate::report::Relay;
use crate::view::View;
use crate::witness::Record;

/// The leader asks for the swap that it sent last, if that may still land and no answer came.
pub(super) fn ask(view: &View, d: &mut Decision) {
    let (true, Some(seen), Some(attempt)) = (view.am_leader(), &view.witness.seen, view.witness.attempts.last()) else {
        return;
    };
    let late = view.witness.failures > 0 || view.now.since(attempt.sent_at) >= view.policy.heartbeat / 2;
    if late && attempt.expected.as_ref() == Some(&seen.version) && of_leader(&seen.record, &attempt.next) {
        d.relay = Some(Relay { expected: seen.version.clone(), next: attempt.next.clone() });
    }
}

/// Whoever reaches the witness makes it, once, and again only after having read that it did not land.
pub(super) fn make(view: &View, d: &mut Decision) {
    let (Some(seen), Some(leader)) = (&view.witness.seen, view.other_leader()) else { return };
    let Some(relay) = view.report(leader).and_then(|r| r.aid.relay.as_ref()) else { return };
    let made =
        view.witness.relayed.as_ref().is_some_and(|(nonce, at)| *nonce == relay.next.nonce && *at >= seen.read_at);
    let exact = relay.expected == seen.version && of_leader(&seen.record, &relay.next);
    if view.witness.reachable()
        && swap::ready(view, d)
        && !made
        && (exact || !view.policy.rules.hold(Rule::RelayExactly))
    {
        d.want(Action::RelaySwap { expected: seen.version.clone(), next: relay.next.clone() });
    }
}

/// Whether a swap is one that the leader of a document may make of it: it goes on leading, or gives the lead up.
fn of_leader(record: &Record, next: &Record) -> bool {
    next.cluster == record.cluster
        && next.term == record.term
        && next.heartbeat == record.heartbeat + 1
        && !next.nonce.is_empty()
        && (next.leader == record.leader || next.leader.is_none())
}
