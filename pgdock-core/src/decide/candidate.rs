//! Who is the best successor: a comparison that every node makes alike.

use std::cmp::Reverse;

use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::report::Report;
use crate::view::{Standby, View};
use crate::{NodeName, Role};

/// Where a candidate stands: the most advanced first, then priority, then name.
type Standing = (TimelineId, Lsn, u32, Reverse<NodeName>);

/// The standing of a node with the given WAL.
pub(super) fn standing(view: &View, node: &NodeName, timeline: TimelineId, flushed: Lsn) -> Standing {
    let (priority, name) = view.rank(node);
    (timeline, flushed, priority, name)
}

/// The standing of a peer by its report.
pub(super) fn of_report(view: &View, report: &Report) -> Standing {
    standing(view, &report.node, report.timeline, report.flushed)
}

/// Whether a peer holds WAL that this standby lacks.
pub(super) fn holds_more(report: &Report, standby: &Standby) -> bool {
    (report.timeline, report.flushed) > (standby.timeline, standby.flushed)
}

/// The peers that could take over from this primary: up, in recovery, on its timeline, and allowed to lead.
pub(super) fn successors<'a>(view: &'a View, timeline: TimelineId) -> impl Iterator<Item = &'a Report> + 'a {
    view.reports().filter(move |r| {
        r.role == Role::Standby && r.timeline == timeline && r.witness_reachable && view.may_lead(&r.node)
    })
}
