use super::support::*;
use crate::decide::{Action, decide};
use crate::view::{Barrier, View};

/// `n2`, which guards commits, is dead.
fn bereaved() -> View {
    let mut view = leader();
    kill(&mut view, "n2");
    my_primary(&mut view).senders.remove(&member("n2"));
    view
}

#[test]
fn another_standby_takes_a_dead_members_place_step_by_step() {
    let mut view = bereaved();
    // Both first, so that old and new document alike are guarded.
    let both = names(&["n2", "n3"], 2);
    assert!(wants(&decide(&view), &Action::SetNames(both.clone())));
    my_primary(&mut view).names = both.clone();
    assert!(wants(&decide(&view), &Action::TakeBarrier { from_none: false }));
    view.barrier = Some(Barrier { names: both, lsn: END });
    assert_eq!(swapped(&decide(&view)).unwrap().sync_set, members(&["n3"]));
    // Only then are the names narrowed.
    document(&mut view).sync_set = members(&["n3"]);
    assert!(wants(&decide(&view), &Action::SetNames(names(&["n3"], 1))));
}

#[test]
fn where_nobody_else_streams_the_document_is_emptied_before_the_names() {
    let mut view = bereaved();
    my_primary(&mut view).senders.clear();
    view.local.progress.clear();
    let d = decide(&view);
    let next = swapped(&d).unwrap();
    assert!(next.sync_set.is_empty() && next.acks == 0);
    assert!(tells(&d, "held by the primary alone"), "{d:?}");
    assert!(!d.actions.iter().any(|a| matches!(a, Action::SetNames(_))), "{d:?}");
}

#[test]
fn strict_it_rather_blocks_commits() {
    let mut view = bereaved();
    my_primary(&mut view).senders.clear();
    view.local.progress.clear();
    view.policy.strict = true;
    let d = decide(&view);
    assert!(swapped(&d).is_none() && tells(&d, "writes wait (strict)"), "{d:?}");
}

#[test]
fn a_member_that_merely_paused_keeps_its_place() {
    let mut view = leader();
    view.local.progress.get_mut(&member("n2")).unwrap().moved_at = ago(900);
    assert!(decide(&view).actions.is_empty());
}
