//! This node leads, and is still in recovery: detach, then promote.

use super::action::{Action, Decision};
use super::rules::Rule;
use super::{swap, sync_set};
use crate::postgres::timeline::TimelineId;
use crate::view::{Postgres, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Postgres::Standby(standby) = &view.local.postgres else { return };
    let Some(record) = view.witness.record().filter(|_| view.am_leader()) else { return };
    d.watchful = true;
    if view.busy.is_some() || !view.has_right() || view.witness.unsettled() {
        return;
    }
    if !standby.detached {
        d.want(Action::Detach { pledge: None });
    } else if record.timeline > standby.timeline || !view.policy.rules.hold(Rule::OwnTimeline) {
        let timeline = TimelineId(record.timeline.0.max(standby.timeline.0 + 1));
        d.want(Action::Promote { names: sync_set::initial_names(view), timeline });
    } else {
        // It was primary in this reign before, and went through recovery: it needs a timeline of its own
        // again, because a member of the sync set may be about to begin one.
        let mut next = swap::refreshed(view, record);
        next.timeline = swap::fresh_timeline(view, record);
        swap::swap(view, d, next);
    }
}
