use super::support::*;
use crate::decide::{Action, Verdict, decide};
use crate::postgres::lsn::Lsn;
use crate::view::{Order, View};

fn ordered(to: Option<&str>) -> View {
    let mut view = leader();
    view.order = Some(Order::Switchover { to: to.map(name), deadline: NOW + ms(8000) });
    view
}

fn stop() -> Action {
    Action::Stop { checkpoint: true, budget: ms(4000) }
}

fn refusal(view: &View) -> String {
    match decide(view).verdict {
        Some(Verdict::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_primary_stops_for_the_heir_that_was_named() {
    let d = decide(&ordered(Some("n3")));
    assert!(wants(&d, &stop()), "{d:?}");
    assert_eq!(d.order, Some(Order::Switchover { to: Some(name("n3")), deadline: NOW + ms(8000) }));
}

#[test]
fn unnamed_the_best_is_chosen() {
    let mut view = ordered(None);
    view.policy.members.get_mut(&name("n3")).unwrap().priority = 5;
    let d = decide(&view);
    assert!(matches!(&d.order, Some(Order::Switchover { to: Some(heir), .. }) if *heir == name("n3")), "{d:?}");
}

#[test]
fn a_standby_that_has_not_seen_the_new_timeline_yet_is_chosen_all_the_same() {
    let mut view = ordered(None);
    for peer in ["n2", "n3"] {
        peer_report(&mut view, peer).timeline = crate::TimelineId(0);
    }
    assert!(wants(&decide(&view), &stop()));
}

#[test]
fn an_heir_that_is_not_ready_is_refused_and_the_primary_runs_on() {
    let mut behind = ordered(Some("n3"));
    my_primary(&mut behind).flushed = Lsn((16 << 20) + 1001);
    let mut deaf = ordered(Some("n3"));
    peer_report(&mut deaf, "n3").witness_reachable = false;
    let mut gone = ordered(Some("n3"));
    silence(&mut gone, "n3", 1500);
    let mut unwanted = ordered(Some("n3"));
    unwanted.policy.members.get_mut(&name("n3")).unwrap().failover = false;
    let cases = [
        (behind, "has not caught up"),
        (deaf, "cannot reach the witness"),
        (gone, "agent of n3 is not reachable"),
        (unwanted, "may not lead"),
        (ordered(Some("n1")), "is the primary already"),
        (ordered(Some("n9")), "there is no node n9"),
    ];
    for (view, why) in cases {
        assert!(refusal(&view).contains(why), "{why}");
        assert!(!wants(&decide(&view), &stop()), "{why}");
    }
}

#[test]
fn who_does_not_lead_says_who_does() {
    let mut view = standby("n2");
    view.order = Some(Order::Switchover { to: None, deadline: NOW + ms(8000) });
    assert!(refusal(&view).contains("leader=n1"));
}

#[test]
fn it_is_done_once_the_heir_is_primary() {
    let mut view = standby("n2");
    view.order = Some(Order::Switchover { to: Some(name("n1")), deadline: NOW + ms(8000) });
    assert!(matches!(decide(&view).verdict, Some(Verdict::Done(_))));
}
