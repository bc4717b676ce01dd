use super::support::*;
use crate::Term;
use crate::decide::{Action, decide};
use crate::report::State;
use crate::view::View;

fn handed_to_n2(me: &str) -> View {
    let mut view = standby(me);
    let record = document(&mut view);
    (record.leader, record.handoff_to) = (None, Some(name("n2")));
    record.sync_set = members(&["n1", "n2", "n3"]);
    record.acks = 3;
    view
}

#[test]
fn the_heir_answers_with_a_new_term() {
    let d = decide(&handed_to_n2("n2"));
    let next = swapped(&d).unwrap();
    assert_eq!((next.term, next.leader.clone(), next.handoff_to.clone()), (Term(4), Some(name("n2")), None));
}

#[test]
fn the_others_leave_it_the_first_word_for_the_time_of_a_right() {
    let mut view = handed_to_n2("n3");
    let campaigns = Action::Detach { pledge: Some(version()) };
    assert!(!wants(&decide(&view), &campaigns));
    stand(&mut view, 5350);
    assert!(wants(&decide(&view), &campaigns));
}

#[test]
fn a_standby_is_watchful_while_the_leader_stops() {
    let mut view = standby("n2");
    assert!(!decide(&view).watchful);
    peer_report(&mut view, "n1").state = State::Stopping;
    assert!(decide(&view).watchful);
}
