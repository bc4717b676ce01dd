use super::support::*;
use crate::decide::{Action, Verdict, decide};
use crate::view::Order;

#[test]
fn the_leader_writes_a_pause_down_and_says_when_it_stands() {
    let mut view = leader();
    view.order = Some(Order::Pause(true));
    let d = decide(&view);
    assert!(swapped(&d).unwrap().paused && d.verdict.is_none(), "{d:?}");
    document(&mut view).paused = true;
    assert!(matches!(decide(&view).verdict, Some(Verdict::Done(_))));
}

#[test]
fn others_cannot_pause() {
    let mut view = standby("n2");
    view.order = Some(Order::Pause(true));
    assert!(matches!(decide(&view).verdict, Some(Verdict::Refused(why)) if why.contains("leader=n1")));
}

#[test]
fn a_restart_stops_once_and_ends_when_postgresql_is_back() {
    let mut view = standby("n2");
    view.order = Some(Order::Restart { stopped: false });
    let d = decide(&view);
    assert!(d.actions.iter().any(|a| matches!(a, Action::Stop { .. })), "{d:?}");
    assert_eq!(d.order, Some(Order::Restart { stopped: true }));
    view.order = d.order;
    assert!(matches!(decide(&view).verdict, Some(Verdict::Done(_))));
}

#[test]
fn the_leader_is_neither_copied_anew_nor_does_it_rejoin() {
    for order in [Order::Reclone, Order::Rejoin] {
        let mut view = leader();
        view.order = Some(order);
        assert!(matches!(decide(&view).verdict, Some(Verdict::Refused(_))));
    }
}
