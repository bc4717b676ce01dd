use super::support::*;
use crate::decide::{Action, Verdict, decide};
use crate::postgres::lsn::Lsn;
use crate::view::{Attempt, Names, Order, View};

/// `n1` was started in place and holds 1000; `n2`, which guards commits, holds so much.
fn restarted(flushed: u64) -> View {
    let mut view = leader();
    view.right.as_mut().unwrap().sent_at = ago(50);
    view.local.closed_at = Some(END);
    let primary = my_primary(&mut view);
    primary.closed = true;
    primary.senders.get_mut(&member("n2")).unwrap().flushed = Lsn(flushed);
    view
}

fn admits(view: &View) -> bool {
    wants(&decide(view), &Action::AdmitClients)
}

#[test]
fn clients_stay_out_until_the_guarding_standby_holds_what_was_recovered() {
    let view = restarted(999);
    let d = decide(&view);
    assert!(!admits(&view) && tells(&d, "clients are kept out") && d.watchful, "{d:?}");
    let view = restarted(1000);
    assert!(admits(&view));
    assert!(!admits(&leader()), "nobody is kept out");
}

#[test]
fn others_do_not_count_and_of_several_as_many_as_acknowledge() {
    let mut view = restarted(999);
    my_primary(&mut view).senders.get_mut(&member("n3")).unwrap().flushed = Lsn(2000);
    assert!(!admits(&view), "n3 is not in the set");
    let record = document(&mut view);
    (record.sync_set, record.acks) = (members(&["n2", "n3"]), 1);
    assert!(admits(&view));
    document(&mut view).acks = 2;
    assert!(!admits(&view));
}

#[test]
fn where_nobody_guards_commits_nobody_can_take_over_and_clients_come_in() {
    let mut view = restarted(0);
    let record = document(&mut view);
    (record.sync_set, record.acks) = (Default::default(), 0);
    assert!(admits(&view));
    // Unless a swap that is open may have put one there.
    let mut next = document(&mut view).successor();
    (next.sync_set, next.acks) = (members(&["n2"]), 1);
    view.witness.attempts.push(Attempt { expected: Some(version()), next, sent_at: ago(10) });
    assert!(!admits(&view));
}

#[test]
fn strict_they_come_in_only_where_commits_wait() {
    let mut view = restarted(0);
    view.policy.strict = true;
    let record = document(&mut view);
    (record.sync_set, record.acks) = (Default::default(), 0);
    let primary = my_primary(&mut view);
    primary.names = Names::none();
    primary.senders.clear();
    let nobody = Names { count: 1, ..Names::none() };
    let d = decide(&view);
    assert!(!admits(&view) && wants(&d, &Action::SetNames(nobody.clone())), "{d:?}");
    my_primary(&mut view).names = nobody;
    assert!(admits(&view));
}

#[test]
fn without_a_right_nobody_is_let_in() {
    let mut view = restarted(1000);
    view.right.as_mut().unwrap().until = NOW;
    assert!(!admits(&view));
}

#[test]
fn a_restart_is_done_once_clients_are_let_in() {
    let mut view = restarted(999);
    view.order = Some(Order::Restart { stopped: true });
    assert_eq!(decide(&view).verdict, None);
    my_primary(&mut view).closed = false;
    assert!(matches!(decide(&view).verdict, Some(Verdict::Done(_))));
}
