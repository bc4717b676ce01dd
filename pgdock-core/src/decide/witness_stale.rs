//! The witness document is read: when it may have changed, and now and then.

use std::time::Duration;

use super::action::{Action, Decision};
use super::swap;
use crate::view::View;

/// A hint that the document has changed is followed at most this often.
const HINT_PAUSE: Duration = Duration::from_millis(5);

pub(super) fn check(view: &View, d: &mut Decision) {
    // Said all the while, not only when the next request is due.
    if view.witness.failures >= 3 {
        let why = view.witness.error.as_deref().unwrap_or("no answer");
        d.problem(format!("the witness does not answer: {why}"));
    }
    if !swap::ready(view, d) {
        return;
    }
    let idle = view.witness.idle(view.now);
    let known = view.witness.record().map_or(0, |r| r.heartbeat);
    let hinted = view.reports().any(|r| r.witness.is_some_and(|(heartbeat, _)| heartbeat > known));
    let interval = if d.watchful { view.policy.heartbeat / 4 } else { view.policy.heartbeat };
    if idle >= interval || hinted && idle >= HINT_PAUSE {
        d.want(Action::ReadWitness);
    }
}
