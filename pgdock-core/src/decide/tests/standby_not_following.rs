use super::support::*;
use crate::decide::{Action, decide};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{Fork, History, TimelineId};
use crate::view::View;

fn detached() -> View {
    let mut view = standby("n2");
    detach(&mut view);
    view.durable.pledge = None;
    view
}

fn attach() -> Action {
    Action::Attach { upstream: name("n1") }
}

#[test]
fn a_standby_attaches_to_the_leader() {
    let mut view = detached();
    assert!(wants(&decide(&view), &attach()));
    my_standby(&mut view).upstream = Some(name("n3"));
    assert!(wants(&decide(&view), &attach()), "from another one, too");
}

#[test]
fn a_pledge_keeps_it_detached_until_the_version_moves() {
    let mut view = detached();
    view.durable.pledge = Some(pledge("n2", END));
    assert!(!wants(&decide(&view), &attach()));
    view.witness.seen.as_mut().unwrap().version.0 = "v11".into();
    assert!(wants(&decide(&view), &attach()));
}

#[test]
fn a_swap_of_its_own_that_may_have_won_keeps_it_detached() {
    let mut view = detached();
    doubt(&mut view, 50);
    assert!(!wants(&decide(&view), &attach()));
}

#[test]
fn it_does_not_attach_to_a_history_that_it_does_not_lie_on() {
    let mut view = detached();
    let forks = vec![Fork { timeline: TimelineId(2), end: Lsn(900) }];
    peer_report(&mut view, "n1").history = Some(History { timeline: TimelineId(3), forks });
    assert!(!wants(&decide(&view), &attach()));
}

#[test]
fn it_tells_that_nobody_leads() {
    let mut view = detached();
    document(&mut view).leader = None;
    document(&mut view).handoff_to = Some(name("n3"));
    assert!(tells(&decide(&view), "nobody leads"));
    let mut view = detached();
    silence(&mut view, "n1", 1500);
    assert!(tells(&decide(&view), "the leader is not known to be primary"));
}
