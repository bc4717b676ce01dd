use super::support::*;
use crate::Term;
use crate::decide::decide;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::view::View;

/// How long the document's version must stand: a ttl, one hundredth of it, and the margin.
const PATIENCE: u64 = 5350;

fn patient() -> View {
    let mut view = asynchronous(standby("n2"));
    silence(&mut view, "n1", PATIENCE);
    stand(&mut view, PATIENCE);
    view
}

#[test]
fn a_standby_takes_over_once_the_right_has_ended_for_certain() {
    let mut view = patient();
    stand(&mut view, PATIENCE - 1);
    assert_eq!(swapped(&decide(&view)), None);
    stand(&mut view, PATIENCE);
    let d = decide(&view);
    let next = swapped(&d).unwrap();
    assert_eq!((next.leader.clone(), next.term), (Some(name("n2")), Term(4)));
}

#[test]
fn one_that_lags_too_far_or_is_on_another_timeline_says_so() {
    let mut view = patient();
    peer_report(&mut view, "n3").flushed = Lsn(500);
    my_standby(&mut view).flushed = Lsn(899);
    let d = decide(&view);
    assert!(swapped(&d).is_none() && tells(&d, "too far behind"), "{d:?}");
    my_standby(&mut view).flushed = Lsn(900);
    assert!(swapped(&decide(&view)).is_some());
    my_standby(&mut view).timeline = TimelineId(1);
    assert_eq!(swapped(&decide(&view)), None);
}

#[test]
fn the_better_of_two_goes_first() {
    let mut view = patient();
    peer_report(&mut view, "n3").flushed = Lsn(1001);
    assert_eq!(swapped(&decide(&view)), None);
    view.policy.members.get_mut(&name("n3")).unwrap().failover = false;
    assert!(swapped(&decide(&view)).is_some(), "that one may not lead");
}

#[test]
fn in_sync_nobody_takes_over_by_patience() {
    let mut view = patient();
    document(&mut view).durability = crate::witness::record::Durability::Sync;
    assert_eq!(swapped(&decide(&view)), None);
}

#[test]
fn paused_nobody_takes_over_by_himself() {
    let mut view = patient();
    document(&mut view).paused = true;
    assert_eq!(swapped(&decide(&view)), None);
}
