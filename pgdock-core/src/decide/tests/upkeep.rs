use super::support::*;
use crate::decide::{Action, decide};

fn slots() -> Action {
    Action::SyncSlots { wanted: vec!["pgdock_n2".into(), "pgdock_n3".into()] }
}

#[test]
fn slots_follow_the_members() {
    let mut view = leader();
    my_primary(&mut view).slots.remove("pgdock_n3");
    assert!(wants(&decide(&view), &slots()), "one is missing, or has lost its WAL");
    my_primary(&mut view).slots.extend(["pgdock_n3".to_owned(), "pgdock_gone".to_owned()]);
    assert!(wants(&decide(&view), &slots()), "one is nobody's");
}

#[test]
fn a_new_cluster_gets_its_roles_first() {
    let mut view = leader();
    my_primary(&mut view).slots.clear();
    view.durable.bootstrapping = true;
    let d = decide(&view);
    assert!(wants(&d, &Action::EnsureRoles) && !wants(&d, &slots()), "{d:?}");
}

#[test]
fn a_primary_without_a_right_changes_nothing() {
    let mut view = leader();
    my_primary(&mut view).slots.clear();
    view.right.as_mut().unwrap().until = NOW;
    assert!(!wants(&decide(&view), &slots()));
}
