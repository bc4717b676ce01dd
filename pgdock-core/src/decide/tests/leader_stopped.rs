use super::support::*;
use crate::decide::{Action, Verdict, decide};
use crate::postgres::lsn::Lsn;
use crate::view::{Order, Postgres, View};

fn crashed() -> View {
    let mut view = leader();
    view.local.postgres = Postgres::Stopped(stopped(false));
    view
}

/// The leader has stopped to hand over to `n2`.
fn switching() -> View {
    let mut view = leader();
    view.local.postgres = Postgres::Stopped(stopped(true));
    view.order = Some(Order::Switchover { to: Some(name("n2")), deadline: NOW + ms(5000) });
    view
}

#[test]
fn a_crash_hands_over_to_the_member_of_the_sync_set_and_the_giver_joins_it() {
    let d = decide(&crashed());
    let next = swapped(&d).unwrap();
    assert_eq!((next.leader.clone(), next.handoff_to.clone()), (None, Some(name("n2"))));
    assert_eq!((next.sync_set.clone(), next.acks), (members(&["n1", "n2"]), 2));
}

#[test]
fn a_crash_with_a_wide_sync_set_names_no_heir_since_reports_may_be_old() {
    let mut view = crashed();
    document(&mut view).sync_set = members(&["n2", "n3"]);
    let d = decide(&view);
    let next = swapped(&d).unwrap();
    assert_eq!((next.leader.clone(), next.handoff_to.clone()), (None, None));
    assert_eq!((next.sync_set.clone(), next.acks), (members(&["n1", "n2", "n3"]), 2));
}

#[test]
fn in_async_it_hands_over_to_the_most_advanced_that_is_near_enough() {
    let mut view = asynchronous(crashed());
    // Nobody took the end of the WAL in time.
    view.local.postgres = Postgres::Stopped(crate::view::Stopped { ended_at: Some(ago(2000)), ..stopped(false) });
    view.right.as_mut().unwrap().sent_at = ago(2100);
    peer_report(&mut view, "n2").flushed = Lsn(950);
    assert_eq!(swapped(&decide(&view)).unwrap().handoff_to, Some(name("n3")));
    for peer in ["n2", "n3"] {
        peer_report(&mut view, peer).flushed = Lsn(899);
    }
    assert_eq!(swapped(&decide(&view)).unwrap().handoff_to, None);
}

#[test]
fn without_an_heir_it_starts_in_place_after_a_renewal_that_followed_the_end() {
    let mut view = crashed();
    kill(&mut view, "n2");
    let d = decide(&view);
    assert_eq!(swapped(&d).unwrap().leader, Some(name("n1")));
    assert!(!wants(&d, &Action::StartPrimary));
    // Renewed since: the end was 10 ms ago.
    view.right.as_mut().unwrap().sent_at = ago(5);
    let d = decide(&view);
    assert!(wants(&d, &Action::StartPrimary) && d.deadline.is_some(), "{d:?}");
    // Not while a later swap is open.
    doubt(&mut view, 1);
    assert!(!wants(&decide(&view), &Action::StartPrimary));
}

#[test]
fn paused_it_starts_in_place() {
    let mut view = crashed();
    document(&mut view).paused = true;
    assert_eq!(swapped(&decide(&view)).unwrap().leader, Some(name("n1")));
}

#[test]
fn a_leader_that_never_promoted_starts_in_recovery() {
    let mut view = crashed();
    view.local.postgres = Postgres::Stopped(crate::view::Stopped { was_primary: false, ..stopped(true) });
    assert!(wants(&decide(&view), &Action::StartStandby { upstream: None }));
}

#[test]
fn a_switchover_waits_until_the_heir_holds_the_shutdown_checkpoint() {
    let mut view = switching();
    let d = decide(&view);
    assert_eq!((swapped(&d), d.verdict.clone()), (None, None), "the heir has replayed up to it, not past it");
    assert!(!wants(&d, &Action::StartPrimary) && d.watchful, "{d:?}");
    peer_report(&mut view, "n2").replayed = Lsn(1001);
    assert_eq!(swapped(&decide(&view)).unwrap().handoff_to, Some(name("n2")));
}

#[test]
fn a_switchover_is_undone_if_the_heir_does_not_catch_up_or_the_stop_was_not_clean() {
    let mut late = switching();
    late.order = Some(Order::Switchover { to: Some(name("n2")), deadline: NOW });
    let mut killed = switching();
    killed.local.postgres = Postgres::Stopped(stopped(false));
    for view in [late, killed] {
        let d = decide(&view);
        assert!(matches!(&d.order, Some(Order::UndoSwitchover { .. })) && d.verdict.is_none(), "{d:?}");
        assert_eq!(swapped(&d).unwrap().leader, Some(name("n1")), "it renews its right, to start again");
    }
}

#[test]
fn a_switchover_that_is_undone_starts_the_primary_again_and_hands_nothing_over() {
    let mut view = crashed();
    view.order = Some(Order::UndoSwitchover { why: "it hung".into(), deadline: NOW + ms(60_000) });
    let d = decide(&view);
    assert_eq!(swapped(&d).unwrap().leader, Some(name("n1")), "it renews, and is no heir's");
    view.right.as_mut().unwrap().sent_at = ago(5);
    assert!(wants(&decide(&view), &Action::StartPrimary));
    // One that does not start any more is a crash like any other.
    view.local.start_failures = 2;
    let d = decide(&view);
    assert!(matches!(&d.verdict, Some(Verdict::Failed(why)) if why.contains("does not start again")), "{d:?}");
    assert_eq!(swapped(&d).unwrap().handoff_to, Some(name("n2")));
}

#[test]
fn an_undone_switchover_ends_when_the_primary_is_back() {
    let mut view = leader();
    view.order = Some(Order::UndoSwitchover { why: "it hung".into(), deadline: NOW + ms(60_000) });
    let d = decide(&view);
    assert!(
        matches!(&d.verdict, Some(Verdict::Failed(why)) if why.contains("it hung; the old primary goes on")),
        "{d:?}"
    );
    assert!(!d.actions.iter().any(|a| matches!(a, Action::Stop { .. })));
}
