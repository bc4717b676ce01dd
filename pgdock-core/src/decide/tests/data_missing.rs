use super::support::*;
use crate::decide::{Action, decide};
use crate::report::State;
use crate::view::{Order, Postgres, View};

fn empty() -> View {
    let mut view = standby("n2");
    view.local.postgres = Postgres::Empty;
    (view.local.system_identifier, view.local.incarnation) = (None, None);
    view
}

fn copy() -> Action {
    Action::Clone { from: name("n1"), system_identifier: SYSTEM }
}

#[test]
fn without_data_the_leader_is_copied() {
    assert_eq!(decide(&empty()).actions, [copy()]);
}

#[test]
fn it_waits_for_a_primary_to_copy() {
    let mut view = empty();
    silence(&mut view, "n1", 1500);
    let d = decide(&view);
    assert!(!wants(&d, &copy()) && tells(&d, "no primary is reachable"), "{d:?}");
}

#[test]
fn it_waits_for_the_roles_of_a_new_cluster() {
    let mut view = empty();
    peer_report(&mut view, "n1").state = State::Starting;
    let d = decide(&view);
    assert!(!wants(&d, &copy()) && tells(&d, "its roles are still being made"), "{d:?}");
}

#[test]
fn the_leader_itself_copies_nobody() {
    let mut view = leader();
    view.local.postgres = Postgres::Empty;
    let d = decide(&view);
    assert!(d.actions.is_empty() && tells(&d, "leads but has no usable data directory"), "{d:?}");
}

#[test]
fn a_running_standby_is_copied_anew_only_by_order() {
    let mut view = standby("n2");
    view.durable.reclone = true;
    assert!(!wants(&decide(&view), &copy()));
    view.order = Some(Order::Reclone);
    assert!(wants(&decide(&view), &copy()));
    document(&mut view).paused = true;
    assert!(wants(&decide(&view), &copy()), "an order acts while paused");
}

#[test]
fn paused_no_copy_begins_by_itself() {
    let mut view = empty();
    document(&mut view).paused = true;
    let d = decide(&view);
    assert!(!wants(&d, &copy()) && tells(&d, "decisions are paused"), "{d:?}");
}

#[test]
fn an_interrupted_rewind_is_copied_over() {
    let mut view = standby("n2");
    view.local.postgres = Postgres::Stopped(stopped(false));
    view.durable.rewinding = true;
    assert_eq!(decide(&view).actions, [copy()]);
}

#[test]
fn one_that_was_rewound_and_never_catches_up_is_copied_once_its_budget_is_spent() {
    let mut view = standby("n2");
    view.local.postgres = Postgres::Starting { primary: false };
    view.durable.rewound = true;
    view.local.starting_since = Some(ago(599_000));
    assert!(!wants(&decide(&view), &copy()));
    view.local.starting_since = Some(ago(600_000));
    assert!(wants(&decide(&view), &copy()));
}

#[test]
fn before_the_cluster_is_founded_it_says_what_to_do() {
    let mut view = empty();
    view.witness.seen = None;
    view.witness.absent = true;
    assert!(tells(&decide(&view), "run `pgdock up`"));
}
