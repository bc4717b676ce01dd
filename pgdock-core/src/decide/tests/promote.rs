use super::support::*;
use crate::Term;
use crate::decide::{Action, decide};
use crate::postgres::timeline::TimelineId;
use crate::view::{Names, Right, View};

/// `n2` has just won term 4, which begins timeline 3.
fn elected() -> View {
    let mut view = standby("n2");
    let record = document(&mut view);
    (record.term, record.leader, record.timeline) = (Term(4), Some(name("n2")), TimelineId(3));
    record.sync_set.clear();
    record.acks = 0;
    view.right = Some(Right { term: Term(4), sent_at: ago(100), until: NOW + ms(4600) });
    detach(&mut view);
    view
}

fn promotes(view: &View) -> bool {
    wants(&decide(view), &Action::Promote { names: Names::none(), timeline: TimelineId(3) })
}

#[test]
fn the_elected_promotes_on_the_timeline_that_was_given_to_it_with_the_deadman_armed() {
    let view = elected();
    assert!(promotes(&view));
    assert_eq!(decide(&view).deadline, Some(NOW + ms(4600)));
}

#[test]
fn it_detaches_first() {
    let mut view = elected();
    my_standby(&mut view).detached = false;
    assert!(!promotes(&view) && wants(&decide(&view), &Action::Detach { pledge: None }));
}

#[test]
fn not_without_a_right_nor_while_a_swap_is_open() {
    let mut view = elected();
    view.right.as_mut().unwrap().until = NOW;
    assert!(!promotes(&view));
    let mut view = elected();
    doubt(&mut view, 50);
    assert!(!promotes(&view));
}

#[test]
fn a_leader_that_fell_back_into_recovery_asks_for_a_fresh_timeline() {
    let mut view = elected();
    my_standby(&mut view).timeline = TimelineId(3);
    let d = decide(&view);
    assert_eq!(swapped(&d).unwrap().timeline, TimelineId(4));
    assert!(!promotes(&view));
}

#[test]
fn strict_it_begins_with_names_that_nobody_can_answer() {
    let mut view = elected();
    view.policy.strict = true;
    let names = Names { count: 1, ..Names::none() };
    assert!(wants(&decide(&view), &Action::Promote { names, timeline: TimelineId(3) }));
}
