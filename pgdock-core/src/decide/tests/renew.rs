use super::support::*;
use crate::decide::{Action, decide};
use crate::postgres::lsn::Lsn;
use crate::view::Postgres;

#[test]
fn the_leader_renews_once_a_heartbeat() {
    let mut view = leader();
    my_primary(&mut view).flushed = Lsn(1200);
    view.right.as_mut().unwrap().sent_at = ago(999);
    assert_eq!(swapped(&decide(&view)), None);
    view.right.as_mut().unwrap().sent_at = ago(1000);
    let d = decide(&view);
    let next = swapped(&d).unwrap();
    assert_eq!((next.heartbeat, next.leader_lsn, next.leader.clone()), (11, Lsn(1200), Some(name("n1"))));
}

#[test]
fn new_settings_are_written_at_once() {
    let mut view = leader();
    view.policy.ttl = ms(7000);
    assert_eq!(swapped(&decide(&view)).unwrap().ttl, ms(7000));
}

#[test]
fn after_a_swap_of_unknown_outcome_it_reads_first() {
    let mut view = leader();
    view.right.as_mut().unwrap().sent_at = ago(1500);
    doubt(&mut view, 50);
    let d = decide(&view);
    assert!(wants(&d, &Action::ReadWitness) && swapped(&d).is_none(), "{d:?}");
    // Read since, and the version has not moved: the same version is swapped again, which settles both.
    view.witness.seen.as_mut().unwrap().read_at = NOW;
    assert_eq!(swapped(&decide(&view)).unwrap().heartbeat, 11);
}

#[test]
fn a_leader_without_data_lets_its_right_end() {
    let mut view = leader();
    view.local.postgres = Postgres::Empty;
    view.right.as_mut().unwrap().sent_at = ago(3000);
    assert_eq!(swapped(&decide(&view)), None);
}
