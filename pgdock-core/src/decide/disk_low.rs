//! The disk is almost full: a leader hands over in order while it still can, to a standby that has room.
//!
//! PostgreSQL crashes when it cannot write WAL, recovers, and crashes again. A standby that has the same WAL on
//! a disk with room is better off as the primary. Where there is none, nothing is gained by a change.

use std::time::Duration;

use super::action::Decision;
use super::switchover;
use crate::view::{Order, Postgres, View};

/// How long the hand over may take.
const BUDGET: Duration = Duration::from_secs(20);
/// A primary that has just begun, or has just come back because it could not hand over, waits so many ttl
/// before it tries.
const SETTLED_TTLS: u32 = 2;

pub(super) fn check(view: &View, d: &mut Decision) {
    if !view.local.disk_low {
        return;
    }
    d.problem(format!("the disk is almost full. disk_free_min={}", view.policy.disk_free_min));
    let Some(record) = view.witness.record() else { return };
    let primary = matches!(view.local.postgres, Postgres::Primary(_));
    let settled = view.local.primary_since.is_some_and(|at| view.now.since(at) >= view.policy.ttl * SETTLED_TTLS);
    if !primary || !settled || record.paused || view.order.is_some() || view.busy.is_some() || !view.has_right() {
        return;
    }
    if let Ok(heir) = switchover::choose(view, None) {
        d.order = Some(Order::Switchover { to: Some(heir), deadline: view.now + BUDGET });
    }
}
