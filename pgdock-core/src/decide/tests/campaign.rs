use super::support::*;
use crate::Term;
use crate::decide::{Action, Verdict, decide};
use crate::node::Incarnation;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::view::{Order, View};
use crate::witness::record::Durability;

fn begins() -> Action {
    Action::Detach { pledge: Some(version()) }
}

/// `n2`, detached and pledged, and two members of which one must hold a commit.
fn one_of_two() -> View {
    let mut view = standby("n2");
    document(&mut view).sync_set = members(&["n2", "n3"]);
    kill(&mut view, "n1");
    detach(&mut view);
    view
}

#[test]
fn the_only_member_detaches_then_takes_over() {
    let mut view = standby("n2");
    kill(&mut view, "n1");
    let d = decide(&view);
    assert!(wants(&d, &begins()) && swapped(&d).is_none(), "{d:?}");
    assert_eq!(d.campaign, Some(version()));

    detach(&mut view);
    let d = decide(&view);
    let next = swapped(&d).unwrap();
    assert_eq!((next.term, next.leader.clone()), (Term(4), Some(name("n2"))));
    assert_eq!((next.sync_set.len(), next.acks, next.timeline), (0, 0, TimelineId(3)));
}

#[test]
fn it_waits_until_it_knows_the_end_of_its_wal() {
    let mut view = standby("n2");
    kill(&mut view, "n1");
    detach(&mut view);
    my_standby(&mut view).end_known = false;
    assert_eq!(swapped(&decide(&view)), None);
}

#[test]
fn silence_must_last_longer_than_a_living_leader_needs_to_drop_a_member() {
    let mut view = standby("n2");
    silence(&mut view, "n1", 2499);
    let d = decide(&view);
    assert!(!wants(&d, &begins()) && d.watchful, "{d:?}");
    silence(&mut view, "n1", 2500);
    assert!(wants(&decide(&view), &begins()));
}

#[test]
fn a_leader_whose_postgresql_is_heard_is_not_suspected() {
    let mut view = standby("n2");
    kill(&mut view, "n1");
    my_standby(&mut view).receiving = true;
    my_standby(&mut view).heard_at = Some(ago(100));
    assert!(!wants(&decide(&view), &begins()));
}

#[test]
fn a_leader_that_was_never_heard_is_given_the_time_of_a_right() {
    let mut view = standby("n2");
    kill(&mut view, "n1");
    view.peers.get_mut(&name("n1")).unwrap().heard_at = None;
    assert!(!wants(&decide(&view), &begins()));
    stand(&mut view, 5350);
    assert!(wants(&decide(&view), &begins()));
}

#[test]
fn who_is_not_in_the_sync_set_does_not_campaign() {
    let mut view = standby("n3");
    kill(&mut view, "n1");
    assert!(!wants(&decide(&view), &begins()));
    // The node is, but not in this life.
    let mut view = standby("n2");
    kill(&mut view, "n1");
    view.local.incarnation = Some(Incarnation(2));
    assert!(!wants(&decide(&view), &begins()));
    // It is, and an operator does not want it.
    let mut view = standby("n2");
    kill(&mut view, "n1");
    view.policy.members.get_mut(&name("n2")).unwrap().failover = false;
    assert!(!wants(&decide(&view), &begins()));
}

#[test]
fn one_of_two_members_needs_the_others_pledge() {
    let mut view = one_of_two();
    assert_eq!(swapped(&decide(&view)), None);
    peer_report(&mut view, "n3").pledge = Some(pledge("n3", Lsn(900)));
    assert_eq!(swapped(&decide(&view)).unwrap().leader, Some(name("n2")));
}

#[test]
fn a_pledge_for_another_version_or_of_another_life_does_not_count() {
    let mut view = one_of_two();
    let mut old = pledge("n3", END);
    old.version.0 = "v9".into();
    peer_report(&mut view, "n3").pledge = Some(old);
    assert_eq!(swapped(&decide(&view)), None);
    let mut other = pledge("n3", END);
    other.member.incarnation = Incarnation(9);
    peer_report(&mut view, "n3").pledge = Some(other);
    assert_eq!(swapped(&decide(&view)), None);
}

#[test]
fn only_the_most_advanced_takes_over() {
    let mut view = one_of_two();
    peer_report(&mut view, "n3").pledge = Some(pledge("n3", Lsn(1001)));
    assert_eq!(swapped(&decide(&view)), None);
    // As advanced: the higher priority, then the name that sorts first.
    peer_report(&mut view, "n3").pledge = Some(pledge("n3", END));
    assert!(swapped(&decide(&view)).is_some());
    view.policy.members.get_mut(&name("n3")).unwrap().priority = 1;
    assert_eq!(swapped(&decide(&view)), None);
    // Unless that one may not lead.
    view.policy.members.get_mut(&name("n3")).unwrap().failover = false;
    assert!(swapped(&decide(&view)).is_some());
}

#[test]
fn paused_it_campaigns_only_by_order() {
    let mut view = standby("n2");
    document(&mut view).paused = true;
    kill(&mut view, "n1");
    assert!(!wants(&decide(&view), &begins()));
    view.order = Some(Order::Failover { allow_data_loss: false, deadline: NOW + ms(5000) });
    assert!(wants(&decide(&view), &begins()));
}

#[test]
fn a_quorum_is_taken_over_like_any_sync_set() {
    let mut view = one_of_two();
    let record = document(&mut view);
    *record = record.clone().with_durability(Durability::Quorum);
    assert_eq!(swapped(&decide(&view)), None, "n3 may hold a commit that is nowhere else");
    peer_report(&mut view, "n3").pledge = Some(pledge("n3", END));
    assert_eq!(swapped(&decide(&view)).unwrap().leader, Some(name("n2")));
    // Where each commit is held by both, one of them is enough.
    peer_report(&mut view, "n3").pledge = None;
    document(&mut view).acks = 2;
    assert!(swapped(&decide(&view)).is_some());
}

#[test]
fn it_tells_whose_pledge_is_missing() {
    let mut view = one_of_two();
    assert!(!tells(&decide(&view), "cannot take over"), "n3 is up, and about to pledge");
    silence(&mut view, "n3", 5000);
    detach(&mut view);
    let d = decide(&view);
    assert!(tells(&d, "cannot take over") && tells(&d, "answer=1, needed=2, silent=n3"), "{d:?}");
}

#[test]
fn an_order_while_paused_names_the_member_that_holds_more() {
    let mut view = one_of_two();
    document(&mut view).paused = true;
    view.order = Some(Order::Failover { allow_data_loss: false, deadline: NOW });
    peer_report(&mut view, "n3").pledge = Some(pledge("n3", Lsn(1001)));
    match decide(&view).verdict {
        Some(Verdict::Failed(why)) => assert!(why.contains("`pgdock failover --to n3`"), "{why}"),
        other => panic!("{other:?}"),
    }
}
