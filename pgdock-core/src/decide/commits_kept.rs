//! R10: a rewind took commits off that nobody else has. They are kept, and somebody should look at them.

use super::action::Decision;
use crate::view::View;
use crate::witness::record::Durability;

pub(super) fn check(view: &View, d: &mut Decision) {
    // In the other modes they were never acknowledged, but where an operator forced a failover, who was told the range.
    if view.witness.record().is_none_or(|record| record.durability != Durability::Async) {
        return;
    }
    let unseen = view.local.kept.iter().flat_map(|kept| kept.iter());
    let unseen = unseen.filter(|kept| !kept.seen && kept.transactions != Some(0)).count();
    if unseen > 0 {
        d.problem(format!(
            "commits that nobody else has were taken off here by a rewind, and are kept. rewinds={unseen}"
        ));
    }
}
