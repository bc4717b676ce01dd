use super::support::*;
use crate::Term;
use crate::decide::{Action, decide};

#[test]
fn the_primary_moves_the_failover_ip_once_a_term() {
    let mut view = leader();
    view.policy.failover_ip = true;
    let assign = Action::AssignAddress { term: Term(3) };
    assert!(wants(&decide(&view), &assign));
    view.address_busy = Some(NOW + ms(1));
    let d = decide(&view);
    assert!(!wants(&d, &assign) && tells(&d, "does not point to this primary yet"), "{d:?}");
    view.address_busy = None;
    view.address_for = Some(Term(3));
    assert!(decide(&view).actions.is_empty());
}

#[test]
fn without_a_right_it_stays_where_it_is() {
    let mut view = leader();
    view.policy.failover_ip = true;
    view.right.as_mut().unwrap().until = NOW;
    assert!(!wants(&decide(&view), &Action::AssignAddress { term: Term(3) }));
}
