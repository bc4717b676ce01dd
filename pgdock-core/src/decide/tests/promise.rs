use super::support::*;
use crate::Role;
use crate::clock::Moment;
use crate::decide::{Decision, decide};
use crate::report::{Plea, Promise, Report};
use crate::view::View;

/// The leader's last renewal was sent so long ago, and the witness does not answer.
fn cut_off(millis: u64) -> View {
    let mut view = asynchronous(leader());
    view.session = 77;
    view.witness.moved = true;
    view.witness.failures = 3;
    let sent_at = ago(millis);
    let right = view.right.as_mut().unwrap();
    (right.sent_at, right.until) = (sent_at, (sent_at + ms(5000)) - ms(300));
    view
}

fn plea(number: Moment) -> Plea {
    Plea { term: crate::Term(3), session: 77, number, lasts: ms(5000) }
}

/// A peer answers the plea that was first made so long ago.
fn promises(view: &mut View, node: &str, millis: u64) {
    let mut report = report(node, Role::Standby);
    report.aid.promise = Some(Promise { to: name("n1"), plea: plea(ago(millis)) });
    view.heard(report);
}

/// What the leader says while it asks.
fn asking(number: Moment) -> Report {
    let mut report = report("n1", Role::Primary);
    report.aid.plea = Some(plea(number));
    report
}

/// A standby whose patience is over.
fn patient() -> View {
    let mut view = asynchronous(standby("n2"));
    silence(&mut view, "n1", 5350);
    stand(&mut view, 5350);
    view
}

fn noted(view: &mut View) -> Decision {
    let d = decide(view);
    view.extend_right(d.deadline);
    view.note_aid(&d);
    d
}

#[test]
fn the_leader_asks_once_a_renewal_is_overdue_and_anew_every_half_heartbeat() {
    assert_eq!(decide(&cut_off(1499)).plea, None);
    let mut view = cut_off(1500);
    assert_eq!(noted(&mut view).plea, Some(plea(NOW)));
    view.now = NOW + ms(499);
    assert_eq!(noted(&mut view).plea, Some(plea(NOW)));
    view.now = NOW + ms(500);
    assert_eq!(noted(&mut view).plea, Some(plea(NOW + ms(500))));
    view.right.as_mut().unwrap().sent_at = view.now;
    assert_eq!(noted(&mut view).plea, None, "it has renewed");
}

#[test]
fn in_sync_and_without_a_right_nobody_asks() {
    let mut view = cut_off(2000);
    document(&mut view).durability = crate::witness::record::Durability::Sync;
    assert_eq!(decide(&view).plea, None);
    assert_eq!(decide(&cut_off(4700)).plea, None);
}

#[test]
fn the_right_lasts_as_long_as_all_who_could_take_over_have_promised() {
    let mut view = cut_off(4000);
    let own = view.right.unwrap().until;
    promises(&mut view, "n2", 100);
    assert_eq!(decide(&view).deadline, Some(own), "n3 has not");
    promises(&mut view, "n3", 300);
    let d = decide(&view);
    assert_eq!(d.deadline, Some((ago(300) + ms(5000)) - ms(300)), "the earliest counts, from the asking");
    assert!(tells(&d, "rests on the promises"), "{d:?}");
}

#[test]
fn a_late_answer_takes_nothing_back_and_one_to_another_life_or_term_counts_for_nothing() {
    let mut view = cut_off(4000);
    promises(&mut view, "n3", 0);
    promises(&mut view, "n2", 100);
    promises(&mut view, "n2", 900);
    assert_eq!(view.promised_until(), Some((ago(100) + ms(5000)) - ms(300)));

    for (session, term) in [(78, 3), (77, 2)] {
        let mut view = cut_off(4000);
        promises(&mut view, "n3", 0);
        let mut answer = report("n2", Role::Standby);
        let plea = Plea { session, term: crate::Term(term), ..plea(NOW) };
        answer.aid.promise = Some(Promise { to: name("n1"), plea });
        view.heard(answer);
        assert_eq!(view.promised_until(), None, "session {session}, term {term}");
    }
}

#[test]
fn only_those_count_whom_every_possible_document_bars() {
    let mut view = cut_off(4000);
    promises(&mut view, "n2", 100);
    document(&mut view).barred.insert(name("n3"));
    assert!(view.promised_until().is_some());
    // A swap that may have landed lets n3 take over.
    doubt(&mut view, 50);
    view.witness.attempts[0].next.barred.clear();
    assert_eq!(view.promised_until(), None);
}

#[test]
fn with_nobody_who_could_take_over_an_outage_ends_no_right() {
    let mut view = cut_off(4600);
    document(&mut view).barred.extend([name("n2"), name("n3")]);
    assert_eq!(decide(&view).deadline, Some((NOW + ms(5000)) - ms(300)));
}

#[test]
fn an_agent_that_has_not_seen_the_document_move_knows_too_little() {
    let mut view = cut_off(4000);
    promises(&mut view, "n2", 100);
    promises(&mut view, "n3", 100);
    view.witness.moved = false;
    assert_eq!(view.promised_until(), None);
}

#[test]
fn whoever_is_asked_promises_and_ends_its_candidacy() {
    let mut view = patient();
    assert!(swapped(&decide(&view)).is_some());
    view.heard(asking(Moment(ms(7))));
    let d = noted(&mut view);
    assert_eq!(swapped(&d), None);
    let given = d.promise.unwrap();
    assert_eq!((given.promise.to.clone(), given.promise.plea.number), (name("n1"), Moment(ms(7))));
    assert_eq!(given.until, NOW + ms(5350), "longer than the plea says, on any clock");
    assert_eq!(view.aid(&decide(&view)).promise, Some(given.promise));
}

#[test]
fn it_binds_until_it_ends_and_is_not_counted_anew_for_the_same_plea() {
    let mut view = patient();
    view.heard(asking(Moment(ms(7))));
    noted(&mut view);
    view.now = NOW + ms(1000);
    view.heard(asking(Moment(ms(7))));
    assert_eq!(noted(&mut view).promise, None);
    // Silent since.
    view.now = NOW + ms(5349);
    assert_eq!(swapped(&noted(&mut view)), None);
    view.now = NOW + ms(5350);
    let d = noted(&mut view);
    assert!(swapped(&d).is_some(), "{d:?}");
    assert_eq!(view.aid(&d).promise, None);
}

#[test]
fn a_promise_to_one_who_was_deposed_binds_nobody() {
    let mut view = patient();
    view.heard(asking(NOW));
    noted(&mut view);
    assert!(view.bound().is_some());
    document(&mut view).term = crate::Term(4);
    assert!(view.bound().is_none());
}

#[test]
fn with_a_swap_of_its_own_under_way_or_for_another_term_nobody_promises() {
    let mut view = patient();
    doubt(&mut view, 50);
    view.heard(asking(NOW));
    assert_eq!(decide(&view).promise, None);

    let mut view = patient();
    let mut report = asking(NOW);
    report.aid.plea.as_mut().unwrap().term = crate::Term(2);
    view.heard(report);
    assert_eq!(decide(&view).promise, None);
}

#[test]
fn an_operator_waits_for_its_end_too() {
    let mut view = patient();
    view.heard(asking(NOW));
    noted(&mut view);
    silence(&mut view, "n1", 5350);
    detach(&mut view);
    view.order = Some(crate::view::Order::Failover { allow_data_loss: true, deadline: NOW + ms(60_000) });
    assert_eq!(swapped(&decide(&view)), None);
    view.now = NOW + ms(5350);
    assert!(swapped(&decide(&view)).is_some());
}
