//! What a primary needs inside: roles in a new cluster, and one physical slot for each member (R11).

use super::action::{Action, Decision};
use crate::view::{Postgres, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Postgres::Primary(primary) = &view.local.postgres else { return };
    if !view.has_right() {
        return;
    }
    if view.durable.bootstrapping {
        d.want(Action::EnsureRoles);
        return;
    }
    let wanted: Vec<_> = view.peers.keys().map(crate::NodeName::slot).collect();
    if wanted.iter().any(|s| !primary.slots.contains(s)) || primary.slots.len() != wanted.len() {
        d.want(Action::SyncSlots { wanted });
    }
}
