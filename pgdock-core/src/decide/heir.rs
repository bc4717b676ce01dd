//! R6: the lead was handed to this node: it answers with a new term.

use super::action::Decision;
use super::swap;
use crate::report::State;
use crate::view::{Postgres, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(record) = view.witness.record() else { return };
    // A leader that stops waits for a standby to say that it holds the last of the WAL.
    d.watchful |= view
        .other_leader()
        .and_then(|l| view.report(l))
        .is_some_and(|r| matches!(r.state, State::Stopping | State::Stopped));
    if record.leader.is_none()
        && record.handoff_to.as_ref() == Some(&view.me)
        && matches!(view.local.postgres, Postgres::Standby(_))
    {
        d.watchful = true;
        swap::swap(view, d, swap::taken_over(view, record));
    }
}
