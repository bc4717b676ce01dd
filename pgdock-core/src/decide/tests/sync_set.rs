use super::support::*;
use crate::clock::Moment;
use crate::decide::{Action, Decision, decide};
use crate::report::State;
use crate::view::{Barrier, Names, View};
use crate::witness::record::Durability;

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

/// `n1` leads in `quorum`, and wants this many acknowledgements of `n2` and `n3`.
fn quorum(acks: u32) -> View {
    let mut view = leader();
    (view.policy.durability, view.policy.acks) = (Durability::Quorum, acks);
    let record = document(&mut view);
    *record = record.clone().with_durability(Durability::Quorum);
    (record.sync_set, record.acks) = (members(&["n2", "n3"]), acks);
    my_primary(&mut view).names = names(&["n2", "n3"], acks);
    view
}

/// The document that is swapped in, if any.
fn document_of(d: &Decision) -> Option<(Vec<String>, u32)> {
    swapped(d).map(|r| (r.sync_set.iter().map(|m| m.node.to_string()).collect(), r.acks))
}

fn set_of(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn where_all_serve_a_quorum_is_at_rest() {
    for acks in [1, 2] {
        let d = decide(&quorum(acks));
        assert_eq!((d.actions, d.problems), (vec![], vec![]), "{acks}");
    }
}

#[test]
fn a_quorum_takes_in_whoever_serves() {
    let mut view = quorum(1);
    document(&mut view).sync_set = members(&["n2"]);
    my_primary(&mut view).names = names(&["n2"], 1);
    assert_eq!(document_of(&decide(&view)), Some((set_of(&["n2", "n3"]), 1)));
    // Who may not lead does not count.
    view.policy.members.get_mut(&name("n3")).unwrap().failover = false;
    let d = decide(&view);
    assert!(document_of(&d).is_none_or(|(set, _)| set == set_of(&["n2"])), "{d:?}");
}

#[test]
fn a_dead_member_leaves_by_names_first_where_others_acknowledge() {
    let mut view = quorum(1);
    kill(&mut view, "n3");
    let d = decide(&view);
    assert!(wants(&d, &Action::SetNames(names(&["n2"], 1))) && swapped(&d).is_none(), "{d:?}");
}

#[test]
fn where_every_member_must_acknowledge_the_number_falls_by_the_document_first() {
    let mut view = quorum(2);
    kill(&mut view, "n3");
    my_primary(&mut view).senders.remove(&member("n3"));
    view.policy.strict = true;
    let d = decide(&view);
    assert_eq!(document_of(&d), Some((set_of(&["n2"]), 1)));
    assert!(!d.actions.iter().any(|a| matches!(a, Action::SetNames(_))), "{d:?}");
    let record = document(&mut view);
    (record.sync_set, record.acks) = (members(&["n2"]), 1);
    let d = decide(&view);
    assert!(wants(&d, &Action::SetNames(names(&["n2"], 1))));
    assert!(tells(&d, "fewer standbys guard commits than wanted") && tells(&d, "acks=1, wanted=2"), "{d:?}");
    // And not below that, where writes rather wait.
    my_primary(&mut view).names = names(&["n2"], 1);
    kill(&mut view, "n2");
    my_primary(&mut view).senders.clear();
    let d = decide(&view);
    assert!(swapped(&d).is_none() && tells(&d, "writes wait (strict)"), "{d:?}");
    view.policy.strict = false;
    assert_eq!(document_of(&decide(&view)), Some((vec![], 0)));
}

#[test]
fn a_member_without_agent_counts_as_long_as_it_is_needed() {
    // Its PostgreSQL confirms commits, and nobody could take over without its pledge.
    let mut view = quorum(1);
    kill(&mut view, "n3");
    assert!(wants(&decide(&view), &Action::SetNames(names(&["n2"], 1))));
    let mut view = quorum(2);
    kill(&mut view, "n3");
    assert_eq!(decide(&view).actions, vec![]);
}

#[test]
fn a_standby_whose_postgresql_died_is_dropped_at_once() {
    let mut view = leader();
    my_primary(&mut view).senders.clear();
    // It reconnects, as far as anybody knows.
    assert_eq!(swapped(&decide(&view)), None);
    peer_report(&mut view, "n2").state = State::Stopped;
    assert_eq!(document_of(&decide(&view)), Some((vec![], 0)));
    // It streams: what its agent says is old.
    let sender = my_primary(&mut leader()).senders[&member("n2")];
    my_primary(&mut view).senders.insert(member("n2"), sender);
    assert_eq!(swapped(&decide(&view)), None);
}

#[test]
fn the_leader_wakes_when_a_standby_becomes_silent() {
    let mut view = leader();
    view.local.progress.get_mut(&member("n2")).unwrap().moved_at = ago(700);
    let wake_at = decide(&view).wake_at;
    assert_eq!(wake_at, Some(NOW + ms(300)));
    view.now = wake_at.unwrap();
    assert!(!decide(&view).actions.is_empty(), "another one takes its place");
    assert!(decide(&standby("n2")).wake_at.is_none_or(|at: Moment| at > NOW));
}

#[test]
fn durability_changes_keep_what_guards_commits() {
    let mut view = leader();
    view.policy.durability = Durability::Quorum;
    let d = decide(&view);
    let next = swapped(&d).unwrap();
    assert_eq!((next.durability, next.format, document_of(&d)), (Durability::Quorum, 2, Some((set_of(&["n2"]), 1))));
    let mut view = quorum(1);
    view.policy.durability = Durability::Sync;
    assert_eq!(swapped(&decide(&view)).unwrap().durability, Durability::Sync);
    *document(&mut view) = document(&mut view).clone().with_durability(Durability::Sync);
    assert!(wants(&decide(&view), &Action::SetNames(names(&["n2"], 1))), "one guards commits in sync");
    view.policy.durability = Durability::Async;
    let d = decide(&view);
    assert_eq!((swapped(&d).unwrap().durability, document_of(&d)), (Durability::Async, Some((vec![], 0))));
}

#[test]
fn strict_names_that_nobody_set_give_way_to_some_that_nobody_answers() {
    let mut view = leader();
    view.policy.strict = true;
    let record = document(&mut view);
    (record.sync_set, record.acks) = (Default::default(), 0);
    let primary = my_primary(&mut view);
    (primary.names, primary.names_settled) = (Names::none(), false);
    let nobody = Names { count: 1, ..Names::none() };
    assert!(wants(&decide(&view), &Action::SetNames(nobody)));
}
