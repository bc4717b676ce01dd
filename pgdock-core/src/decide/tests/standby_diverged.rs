use super::support::*;
use crate::decide::{Action, decide};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{Fork, History, TimelineId};
use crate::view::{Order, View};

/// The leader's timeline 3 forked off at 900, and this node holds timeline 2 up to 1000.
fn diverged() -> View {
    let mut view = standby("n2");
    let forks = vec![Fork { timeline: TimelineId(2), end: Lsn(900) }];
    peer_report(&mut view, "n1").history = Some(History { timeline: TimelineId(3), forks });
    detach(&mut view);
    view.durable.pledge = None;
    view
}

fn rewind() -> Action {
    Action::Rewind { from: name("n1"), fork: Lsn(900) }
}

#[test]
fn wal_past_the_fork_is_rewound() {
    let mut view = diverged();
    let d = decide(&view);
    assert!(wants(&d, &rewind()), "{d:?}");
    (my_standby(&mut view).flushed, my_standby(&mut view).replayed) = (Lsn(900), Lsn(900));
    assert!(!wants(&decide(&view), &rewind()));
}

#[test]
fn whoever_streams_from_a_newer_timeline_of_the_leaders_does_not_go_by_its_old_report() {
    let mut view = standby("n2");
    // The leader went through recovery within its reign, and began timeline 3. Its report is from before.
    my_standby(&mut view).timeline = TimelineId(3);
    let any_rewind = |view: &View| decide(view).actions.iter().any(|a| matches!(a, Action::Rewind { .. }));
    assert!(!any_rewind(&view));
    // The same without the leader's WAL behind it, or with another's: a timeline that the leader knows nothing of.
    my_standby(&mut view).receiving = false;
    assert!(any_rewind(&view));
    let standby = my_standby(&mut view);
    (standby.receiving, standby.upstream) = (true, Some(name("n3")));
    assert!(any_rewind(&view));
    // And what ends past the fork of a timeline that the leader tells of has diverged, whoever streams.
    let mut view = diverged();
    let standby = my_standby(&mut view);
    (standby.receiving, standby.detached, standby.upstream) = (true, false, Some(name("n1")));
    assert!(wants(&decide(&view), &rewind()));
}

#[test]
fn nothing_is_rewound_before_the_end_is_known_or_while_a_swap_is_open() {
    let mut view = diverged();
    my_standby(&mut view).end_known = false;
    assert!(!wants(&decide(&view), &rewind()));
    let mut view = diverged();
    doubt(&mut view, 50);
    assert!(!wants(&decide(&view), &rewind()));
}

#[test]
fn only_the_leader_of_the_documents_term_tells_the_history() {
    let mut view = diverged();
    peer_report(&mut view, "n1").witness = Some((9, crate::Term(2)));
    assert!(!wants(&decide(&view), &rewind()));
}

#[test]
fn paused_it_is_told_and_an_order_does_it() {
    let mut view = diverged();
    document(&mut view).paused = true;
    let d = decide(&view);
    assert!(!wants(&d, &rewind()) && tells(&d, "has diverged"), "{d:?}");
    view.order = Some(Order::Rejoin);
    assert!(wants(&decide(&view), &rewind()));
}
