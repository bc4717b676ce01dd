use super::support::*;
use crate::decide::{Action, decide};
use crate::view::{Local, Order, View};

fn low() -> View {
    let mut view = leader();
    view.local.disk_low = true;
    view
}

fn heir(view: &View) -> Option<crate::NodeName> {
    match decide(view).order {
        Some(Order::Switchover { to, .. }) => to,
        _ => None,
    }
}

#[test]
fn a_leader_without_room_hands_over_to_a_standby_with_room() {
    let mut view = low();
    assert_eq!(heir(&view), Some(name("n2")));
    assert!(decide(&view).problems.iter().any(|p| p.contains("the disk is almost full")));
    peer_report(&mut view, "n2").disk_low = true;
    assert_eq!(heir(&view), Some(name("n3")));

    // The order that it gave itself goes on like one of an operator.
    view.order = decide(&view).order;
    assert!(decide(&view).actions.iter().any(|a| matches!(a, Action::Stop { .. })));
}

#[test]
fn it_stays_where_nobody_has_room_and_while_people_or_a_failed_try_forbid_it() {
    let mut full = low();
    for node in ["n2", "n3"] {
        peer_report(&mut full, node).disk_low = true;
    }
    let mut paused = low();
    document(&mut paused).paused = true;
    let mut just_back = low();
    just_back.local.primary_since = Some(ago(5000));
    let mut ordered = low();
    ordered.order = Some(Order::Reload);
    for view in [full, paused, just_back, ordered] {
        let d = decide(&view);
        assert!(!matches!(d.order, Some(Order::Switchover { .. })), "{d:?}");
        assert!(!d.actions.iter().any(|a| matches!(a, Action::Stop { .. })), "{d:?}");
    }
    let mut standby = standby("n2");
    standby.local.disk_low = true;
    assert_eq!(heir(&standby), None);
}

#[test]
fn after_a_crash_one_with_room_is_preferred_and_one_without_is_better_than_nobody() {
    let mut view = leader();
    view.local.postgres = crate::view::Postgres::Stopped(stopped(false));
    document(&mut view).sync_set = members(&["n2", "n3"]);
    document(&mut view).acks = 2;
    let heir = |view: &View| swapped(&decide(view)).unwrap().handoff_to.clone();
    assert_eq!(heir(&view), Some(name("n2")));
    peer_report(&mut view, "n2").disk_low = true;
    assert_eq!(heir(&view), Some(name("n3")));
    peer_report(&mut view, "n3").disk_low = true;
    assert_eq!(heir(&view), Some(name("n2")));
}

#[test]
fn low_is_low_until_there_is_a_good_deal_more() {
    let mut view = leader();
    let mut see = |free| {
        view.observe_local(Local { disk_free: free, ..view.local.clone() });
        view.local.disk_low
    };
    assert!(!see(Some(1000)));
    assert!(see(Some(999)));
    assert!(see(Some(1249)));
    assert!(see(None), "nothing new is known");
    assert!(!see(Some(1250)));
    assert!(!see(Some(1000)));
}
