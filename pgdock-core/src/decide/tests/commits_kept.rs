use std::sync::Arc;

use super::support::*;
use crate::decide::decide;
use crate::postgres::diverged::Kept;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::view::View;

fn kept(transactions: Option<u64>, seen: bool) -> Kept {
    Kept {
        id: "tl2-0-0".into(),
        node: name("n2"),
        found_at: jiff::Timestamp::UNIX_EPOCH,
        timeline: TimelineId(2),
        from: Lsn(0),
        to: END,
        bytes: END.0,
        transactions,
        incomplete: None,
        disk_bytes: 0,
        seen,
        path: "/".into(),
    }
}

fn with(all: Vec<Kept>) -> View {
    let mut view = asynchronous(standby("n2"));
    view.local.kept = Some(Arc::new(all));
    view
}

#[test]
fn lost_commits_are_told_until_somebody_has_looked() {
    let d = decide(&with(vec![kept(Some(3), false), kept(None, false), kept(Some(3), true), kept(Some(0), false)]));
    assert!(tells(&d, "are kept. rewinds=2"), "{d:?}");
    assert!(!tells(&decide(&with(vec![kept(Some(3), true), kept(Some(0), false)])), "are kept"));
}

#[test]
fn what_was_never_acknowledged_is_no_problem() {
    let mut view = standby("n2");
    view.local.kept = Some(Arc::new(vec![kept(Some(3), false)]));
    assert!(!tells(&decide(&view), "are kept"));
}
