use super::support::*;
use crate::Role;
use crate::decide::{Action, decide};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::report::{Crash, Tail};
use crate::view::{Postgres, Stopped, View};

/// The leader's PostgreSQL ended so long ago.
fn crashed(millis: u64) -> View {
    let mut view = asynchronous(leader());
    view.session = 77;
    view.local.postgres = Postgres::Stopped(Stopped { ended_at: Some(ago(millis)), ..stopped(false) });
    view.right.as_mut().unwrap().sent_at = ago(millis + 100);
    view
}

fn crash(millis: u64) -> Crash {
    Crash { node: name("n1"), session: 77, at: ago(millis) }
}

fn tail() -> Tail {
    Tail { heir: name("n2"), crash: crash(10), timeline: TimelineId(2) }
}

/// A standby that has lost its upstream, and hears what is served.
fn heir(tail: Tail) -> View {
    let mut view = asynchronous(standby("n2"));
    my_standby(&mut view).receiving = false;
    let mut report = report("n1", Role::Unknown);
    report.aid.tail = Some(Box::new(tail));
    view.heard(report);
    view
}

#[test]
fn after_a_crash_the_end_of_the_wal_is_served_to_the_best_before_anything_is_handed_over() {
    let mut view = crashed(10);
    peer_report(&mut view, "n2").flushed = Lsn(990);
    peer_report(&mut view, "n3").flushed = Lsn(980);
    let d = decide(&view);
    assert_eq!(d.tail, Some(tail()));
    assert_eq!(swapped(&d), None);
    assert!(!wants(&d, &Action::StartPrimary));
}

#[test]
fn whoever_has_taken_it_is_the_heir() {
    let mut view = crashed(10);
    // By its report n3 is ahead: that one is older than what n2 took.
    peer_report(&mut view, "n2").flushed = Lsn(980);
    peer_report(&mut view, "n2").aid.took = Some(Box::new(crash(10)));
    let d = decide(&view);
    assert_eq!(swapped(&d).unwrap().handoff_to, Some(name("n2")));
    assert_eq!(d.tail, None);
}

#[test]
fn what_was_taken_after_another_crash_counts_for_nothing() {
    for other in [crash(11), Crash { session: 78, ..crash(10) }, Crash { node: name("n3"), ..crash(10) }] {
        let mut view = crashed(10);
        peer_report(&mut view, "n2").aid.took = Some(Box::new(other));
        assert_eq!(swapped(&decide(&view)), None);
    }
}

#[test]
fn it_is_waited_for_only_so_long_and_then_the_lag_decides() {
    let mut view = crashed(1999);
    peer_report(&mut view, "n2").flushed = Lsn(950);
    peer_report(&mut view, "n3").flushed = Lsn(899);
    assert_eq!(swapped(&decide(&view)).unwrap().leader, Some(name("n1")), "meanwhile it renews");
    view.now = NOW + ms(1);
    assert_eq!(swapped(&decide(&view)).unwrap().handoff_to, Some(name("n2")));
    peer_report(&mut view, "n2").flushed = Lsn(899);
    assert_eq!(swapped(&decide(&view)).unwrap().leader, Some(name("n1")), "too far behind: it starts in place");
}

#[test]
fn in_sync_nobody_waits_for_it() {
    let mut view = leader();
    view.local.postgres = Postgres::Stopped(stopped(false));
    let d = decide(&view);
    assert_eq!(d.tail, None);
    assert_eq!(swapped(&d).unwrap().handoff_to, Some(name("n2")));
}

#[test]
fn the_heir_takes_it_once_its_receiver_is_gone() {
    let take = Action::TakeTail { tail: tail() };
    assert!(wants(&decide(&heir(tail())), &take));
    let mut receiving = heir(tail());
    my_standby(&mut receiving).receiving = true;
    assert!(!wants(&decide(&receiving), &take));
    let mut elsewhere = heir(tail());
    my_standby(&mut elsewhere).timeline = TimelineId(1);
    assert!(!wants(&decide(&elsewhere), &take));
    let for_another = Tail { heir: name("n3"), ..tail() };
    assert!(!wants(&decide(&heir(for_another.clone())), &Action::TakeTail { tail: for_another }));
}

#[test]
fn it_is_taken_once_and_said_so() {
    let mut view = heir(tail());
    view.took = Some(crash(10));
    let d = decide(&view);
    assert!(!wants(&d, &Action::TakeTail { tail: tail() }));
    assert_eq!(view.aid(&d).took.as_deref(), Some(&crash(10)));
}
