use super::support::*;
use crate::decide::{Action, decide};
use crate::view::View;

/// `n3`, to which the leader is silent, but not for long, and which `n2` asks for a pledge.
fn asked() -> View {
    let mut view = standby("n3");
    document(&mut view).sync_set = members(&["n2", "n3"]);
    silence(&mut view, "n1", 2100);
    peer_report(&mut view, "n2").campaign = Some(version());
    view
}

fn pledges(view: &View) -> bool {
    wants(&decide(view), &Action::Detach { pledge: Some(version()) })
}

#[test]
fn a_member_that_doubts_the_leader_pledges_to_a_candidate() {
    let mut view = asked();
    assert!(pledges(&view));
    assert_eq!(decide(&view).campaign, None, "it does not campaign itself");
    peer_report(&mut view, "n2").campaign = None;
    assert!(!pledges(&view), "nobody asks");
}

#[test]
fn who_hears_the_leader_does_not_pledge() {
    let mut view = asked();
    hear(&mut view, report("n1", crate::Role::Primary));
    assert!(!pledges(&view));
}

#[test]
fn a_candidate_of_another_version_gets_nothing() {
    let mut view = asked();
    peer_report(&mut view, "n2").campaign = Some(crate::witness::Version("v9".into()));
    assert!(!pledges(&view));
}

#[test]
fn nor_does_anybody_outside_the_sync_set_pledge() {
    let mut view = asked();
    document(&mut view).sync_set = members(&["n2"]);
    assert!(!pledges(&view));
}

#[test]
fn paused_it_pledges_to_whom_an_operator_told_to_take_over() {
    let mut view = asked();
    document(&mut view).paused = true;
    assert!(pledges(&view), "nobody campaigns by himself now");
}
