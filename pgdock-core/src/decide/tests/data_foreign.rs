use super::support::*;
use crate::decide::{Action, decide};
use crate::view::{Postgres, Task, View};

fn unusable() -> View {
    let mut view = standby("n2");
    view.local.postgres = Postgres::Unusable { reason: "a rewind of it was interrupted".into() };
    view
}

#[test]
fn the_data_of_another_cluster_is_not_touched() {
    let mut view = standby("n2");
    view.local.postgres = Postgres::Stopped(stopped(true));
    view.local.system_identifier = Some(8);
    let d = decide(&view);
    assert!(d.actions.is_empty() && tells(&d, "belongs to another cluster"), "{d:?}");
}

#[test]
fn what_cannot_be_used_is_told_and_left_alone() {
    let d = decide(&unusable());
    assert!(d.actions.is_empty() && tells(&d, "interrupted"), "{d:?}");
}

#[test]
fn while_a_rewind_runs_nobody_is_told_that_it_was_interrupted() {
    let mut view = unusable();
    view.durable.rewinding = true;
    view.busy = Some((Task::Rewind, ago(100)));
    let d = decide(&view);
    assert_eq!((d.actions, d.problems), (vec![], vec![]));
}

#[test]
fn what_an_interrupted_rewind_left_is_copied_over() {
    let mut view = unusable();
    view.durable.rewinding = true;
    assert!(wants(&decide(&view), &Action::Clone { from: name("n1"), system_identifier: SYSTEM }));
}
