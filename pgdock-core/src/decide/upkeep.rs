//! What a node needs inside: roles in a new cluster, and one physical slot for each other member (R11), on standbys as
//! well, so that whoever takes over still has the WAL that the others lack.

use super::action::{Action, Decision};
use crate::postgres::lsn::Lsn;
use crate::view::{Postgres, Primary, Standby, View};

/// A slot of a standby is moved on once it holds back so much more than it must, in bytes: a segment.
const SLACK: u64 = 16 << 20;

pub(super) fn check(view: &View, d: &mut Decision) {
    match &view.local.postgres {
        Postgres::Primary(primary) if view.has_right() => on_primary(view, primary, d),
        Postgres::Standby(standby) => on_standby(view, standby, d),
        _ => {}
    }
}

fn on_primary(view: &View, primary: &Primary, d: &mut Decision) {
    if view.durable.bootstrapping {
        d.want(Action::EnsureRoles);
        return;
    }
    let wanted: Vec<_> = view.peers.keys().map(crate::NodeName::slot).collect();
    if wanted.iter().any(|s| !primary.slots.contains(s)) || primary.slots.len() != wanted.len() {
        d.want(Action::SyncSlots { wanted });
    }
}

fn on_standby(view: &View, standby: &Standby, d: &mut Decision) {
    // One that leads in a moment is left alone.
    if !standby.receiving || standby.upstream.as_ref() != view.other_leader() {
        return;
    }
    let held = &view.local.slots;
    // What lies behind the last restart point is there anyway. The old leader needs no less, should it be rewound.
    // A node of which nothing is heard may have anything: its slot stays where it is.
    let needed_from = |node| view.report(node).map_or(Lsn(0), |report| report.flushed.min(view.local.redo));
    let wanted: Vec<_> = view.peers.keys().map(|node| (node.slot(), needed_from(node))).collect();
    let behind = wanted.iter().any(|(slot, to)| held.get(slot).is_none_or(|at| to.ahead_of(*at) >= SLACK));
    if behind || held.len() != wanted.len() || view.local.stale_slots {
        d.want(Action::FollowSlots { wanted });
    }
}
