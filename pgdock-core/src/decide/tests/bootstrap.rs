use super::support::*;
use crate::Term;
use crate::decide::{Action, Verdict, decide};
use crate::view::{Order, Postgres, Task, View};

/// A node that is told to found a cluster of which there is nothing yet.
fn founder() -> View {
    let mut view = standby("n2");
    view.witness.seen = None;
    view.witness.absent = true;
    view.local.postgres = Postgres::Empty;
    view.local.system_identifier = None;
    view.order = Some(Order::Bootstrap);
    view
}

#[test]
fn first_the_data_directory_then_the_document() {
    let mut view = founder();
    assert!(wants(&decide(&view), &Action::Bootstrap));

    view.local.postgres = Postgres::Stopped(stopped(true));
    view.local.system_identifier = Some(SYSTEM);
    view.durable.bootstrapping = true;
    let d = decide(&view);
    let [Action::SwapWitness { expected: None, next }] = d.actions.as_slice() else { panic!("{d:?}") };
    assert_eq!((next.term, next.leader.clone(), next.system_identifier), (Term(1), Some(name("n2")), SYSTEM));
    assert_eq!(next.members.len(), 3);
}

#[test]
fn before_the_witness_has_answered_nothing_is_made() {
    let mut view = founder();
    view.witness.absent = false;
    assert!(!wants(&decide(&view), &Action::Bootstrap));
}

#[test]
fn a_data_directory_that_was_not_made_for_it_founds_no_cluster() {
    let mut view = founder();
    view.local.postgres = Postgres::Stopped(stopped(true));
    let d = decide(&view);
    assert!(matches!(&d.verdict, Some(Verdict::Refused(why)) if why.contains("needs an empty one")), "{d:?}");
    assert_eq!(swapped(&d), None);
}

#[test]
fn a_data_directory_that_is_still_being_made_is_waited_for() {
    let mut view = founder();
    view.local.postgres = Postgres::Stopped(stopped(true));
    view.busy = Some((Task::Bootstrap, NOW));
    assert_eq!(decide(&view).verdict, None);
}

#[test]
fn a_cluster_is_founded_once() {
    let mut view = standby("n2");
    view.order = Some(Order::Bootstrap);
    let d = decide(&view);
    assert!(matches!(&d.verdict, Some(Verdict::Refused(why)) if why.contains("leader=n1")), "{d:?}");
}

#[test]
fn it_is_done_once_the_first_primary_has_its_roles() {
    let mut view = leader();
    view.order = Some(Order::Bootstrap);
    view.durable.bootstrapping = true;
    assert_eq!(decide(&view).verdict, None);
    view.durable.bootstrapping = false;
    assert!(matches!(decide(&view).verdict, Some(Verdict::Done(_))));
}
