//! One backup at a time: the document says who makes which. Nodes ask for it in their reports, the leader writes it down,
//! and takes it back from whoever does not make it any more. Two at once would harm nothing but the machines.

use super::action::Decision;
use super::swap;
use crate::view::View;
use crate::witness::Record;
use crate::witness::record::BackupClaim;

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(record) = view.witness.record() else { return };
    if view.has_right() && record.backup != standing(view, record) && !view.witness.unsettled() {
        swap::swap(view, d, swap::refreshed(view, record));
    }
}

/// What the document should say: the present one for as long as its node makes it, else the one that was asked for first.
pub(super) fn standing(view: &View, record: &Record) -> Option<BackupClaim> {
    let of_peers = view.reports().map(|report| (&report.node, &report.aid.backup));
    let asked: Vec<BackupClaim> = of_peers
        .chain([(&view.me, &view.backup)])
        .filter_map(|(node, label)| Some(BackupClaim { node: node.clone(), label: label.clone()? }))
        .collect();
    record
        .backup
        .clone()
        .filter(|claim| asked.contains(claim))
        .or_else(|| asked.into_iter().min_by(|a, b| (&a.label, &a.node).cmp(&(&b.label, &b.node))))
}
