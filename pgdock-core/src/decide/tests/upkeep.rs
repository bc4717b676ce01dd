use super::support::*;
use crate::decide::{Action, Decision, decide};
use crate::postgres::lsn::Lsn;
use crate::view::View;

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

/// A standby that has the slots it should have, each at the position of its member, and whose last restart point would let
/// them go further.
fn with_slots() -> View {
    let mut view = standby("n2");
    view.local.redo = Lsn(END.0 + (64 << 20));
    view
}

fn followed(d: &Decision) -> Option<&[(String, Lsn)]> {
    d.actions.iter().find_map(|a| match a {
        Action::FollowSlots { wanted } => Some(wanted.as_slice()),
        _ => None,
    })
}

#[test]
fn a_standby_has_the_slots_that_it_needs_once_it_leads() {
    let view = with_slots();
    assert_eq!(followed(&decide(&view)), None);
    let mut missing = view.clone();
    missing.local.slots.remove("pgdock_n3");
    let mut gone = view.clone();
    gone.local.slots.insert("pgdock_gone".into(), END);
    let mut stale = view.clone();
    stale.local.stale_slots = true;
    for view in [missing, gone, stale] {
        assert_eq!(followed(&decide(&view)), Some(&[("pgdock_n1".into(), END), ("pgdock_n3".into(), END)][..]));
    }
}

#[test]
fn slots_are_moved_on_by_segments_to_what_their_member_has() {
    let mut view = with_slots();
    let far = Lsn(END.0 + (16 << 20));
    peer_report(&mut view, "n3").flushed = Lsn(far.0 - 1);
    assert_eq!(followed(&decide(&view)), None, "that is not worth it yet");
    peer_report(&mut view, "n3").flushed = far;
    assert_eq!(followed(&decide(&view)).map(|s| s[1].1), Some(far));
    view.local.redo = END;
    assert_eq!(followed(&decide(&view)), None, "what recovery needs is there anyway");
    view.local.redo = far;
    silence(&mut view, "n3", 60_000);
    my_standby(&mut view).receiving = true;
    assert_eq!(followed(&decide(&view)), None, "nobody knows what it has");
    view.local.slots.remove("pgdock_n1");
    assert_eq!(followed(&decide(&view)).map(|s| s[1].1), Some(Lsn(0)), "its slot stays where it is");
}

#[test]
fn a_standby_that_does_not_follow_leaves_its_slots_alone() {
    let mut detached = with_slots();
    detached.local.slots.clear();
    let mut elsewhere = detached.clone();
    detach(&mut detached);
    my_standby(&mut elsewhere).upstream = Some(name("n3"));
    for view in [detached, elsewhere] {
        assert_eq!(followed(&decide(&view)), None);
    }
}
