//! When a standby takes the leader for dead. Silence alone is not evidence.

use std::time::Duration;

use crate::NodeName;
use crate::view::{Link, View};

/// How long a version must stand before its leader's right has ended for certain: the clocks of two
/// machines may differ in speed by one in a hundred, and are never compared (R3).
pub(super) fn patience(view: &View) -> Duration {
    outlasting(view, view.witness.record().map_or(view.policy.ttl, |r| r.ttl))
}

/// The time after which a span has passed for certain on another node that began to count no later.
pub(super) fn outlasting(view: &View, span: Duration) -> Duration {
    span + span / 100 + view.policy.margin
}

/// Whether the newest version has stood so long.
pub(super) fn expired(view: &View) -> bool {
    view.witness.seen.as_ref().is_some_and(|seen| view.now.since(seen.since) >= patience(view))
}

/// Whether the leader's PostgreSQL gave a sign of life lately. An idle one answers the WAL receiver's
/// requests for a reply, so that its silence means something.
pub(super) fn hears_wal(view: &View) -> bool {
    let Some(standby) = view.local.postgres.as_standby() else { return false };
    let window = view.policy.suspect_after * 4 / 5;
    standby.receiving && standby.heard_at.is_some_and(|at| view.now.since(at) < window)
}

/// The leader may be dead: enough to help another node that campaigns.
pub(super) fn doubts(view: &View, leader: &NodeName) -> bool {
    view.link(leader) != Link::Up && !hears_wal(view)
}

/// The leader is taken for dead: its agent's host refuses connections, or its agent was silent for longer
/// than it would take a living leader to drop this node from the sync set; and its PostgreSQL gives no
/// sign of life either.
pub(super) fn suspects(view: &View, leader: &NodeName) -> bool {
    if !doubts(view, leader) {
        return false;
    }
    // A leader that was never heard since this agent began may just be starting, as we are.
    if view.peers.get(leader).is_none_or(|p| p.heard_at.is_none()) {
        return expired(view);
    }
    match view.link(leader) {
        Link::Up => false,
        Link::Refused => true,
        Link::Silent => view.peers.get(leader).is_some_and(|p| p.silence(view.now) >= view.policy.suspect_after),
    }
}
