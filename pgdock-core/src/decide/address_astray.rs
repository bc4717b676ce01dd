//! The failover IP points elsewhere: the leader of the term moves it, beside everything else.

use super::action::{Action, Decision};
use crate::view::{Postgres, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(record) = view.witness.record() else { return };
    if !view.policy.failover_ip
        || !view.has_right()
        || !matches!(view.local.postgres, Postgres::Primary(_))
        || view.address_for == Some(record.term)
    {
        return;
    }
    d.problem("the failover IP does not point to this primary yet");
    if view.address_busy.is_none_or(|until| view.now >= until) {
        d.want(Action::AssignAddress { term: record.term });
    }
}
