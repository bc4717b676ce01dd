use super::support::*;
use crate::decide::{Action, Decision, decide};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{Fork, History, TimelineId};
use crate::view::View;

/// A standby that came back too late: the leader's WAL begins behind what it has.
fn late() -> View {
    let mut view = standby("n3");
    my_standby(&mut view).receiving = false;
    peer_report(&mut view, "n1").aid.oldest_wal = Some(Lsn(1001));
    view
}

fn copies(d: &Decision) -> bool {
    wants(d, &Action::Clone { from: name("n1"), system_identifier: SYSTEM })
}

#[test]
fn it_copies_the_leader_and_says_so() {
    let d = decide(&late());
    assert!(copies(&d) && tells(&d, "no longer has the WAL"), "{d:?}");
}

#[test]
fn as_long_as_there_is_something_to_stream_it_waits() {
    let mut there = late();
    peer_report(&mut there, "n1").aid.oldest_wal = Some(Lsn(1000));
    let mut streaming = late();
    my_standby(&mut streaming).receiving = true;
    let mut unknown = late();
    peer_report(&mut unknown, "n1").aid.oldest_wal = None;
    let mut replaying = late();
    my_standby(&mut replaying).end_known = false;
    for view in [there, streaming, unknown, replaying] {
        assert!(!copies(&decide(&view)));
    }
}

#[test]
fn a_guard_of_commits_a_paused_cluster_and_a_second_time_wait_for_somebody() {
    let mut guard = late();
    document(&mut guard).sync_set = members(&["n3"]);
    let mut paused = late();
    document(&mut paused).paused = true;
    let mut again = late();
    again.durable.copied = true;
    for (mut view, words) in [(guard, "still guards"), (paused, "paused"), (again, "took too long")] {
        let d = decide(&view);
        assert!(!copies(&d) && tells(&d, words), "{d:?}");
        view.order = Some(crate::view::Order::Rejoin);
        assert_eq!(copies(&decide(&view)), words != "still guards", "{words}");
    }
}

#[test]
fn what_is_archived_is_taken_from_there_first() {
    let fetch = Action::FetchWal { timeline: TimelineId(2), to: Lsn(1001) };
    let mut view = late();
    view.policy.archive = true;
    let d = decide(&view);
    assert!(wants(&d, &fetch) && !copies(&d) && tells(&d, "taken from the archive"), "{d:?}");
    // The archive does not go on from here.
    view.archive_lacks = Some(END);
    assert!(copies(&decide(&view)));
    // It did from somewhere else: then it is worth a try.
    view.archive_lacks = Some(Lsn(900));
    assert!(wants(&decide(&view), &fetch));
    // Behind a fork the standby's own timeline ends.
    peer_report(&mut view, "n1").history =
        Some(History { timeline: TimelineId(3), forks: vec![Fork { timeline: TimelineId(2), end: Lsn(2000) }] });
    assert!(copies(&decide(&view)));
}

#[test]
fn a_guard_of_commits_and_a_paused_cluster_take_nothing_from_the_archive() {
    let mut guard = late();
    guard.policy.archive = true;
    document(&mut guard).sync_set = members(&["n3"]);
    let mut paused = late();
    paused.policy.archive = true;
    document(&mut paused).paused = true;
    for view in [guard, paused] {
        assert!(!decide(&view).actions.iter().any(|action| matches!(action, Action::FetchWal { .. })));
    }
}
