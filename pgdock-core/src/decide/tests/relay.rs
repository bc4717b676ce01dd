use super::support::*;
use crate::Role;
use crate::decide::{Action, decide};
use crate::report::{Relay, Told};
use crate::view::{Answer, View};
use crate::witness::{Record, Version};

/// The leader has sent a renewal, and heard nothing.
fn unanswered(millis: u64) -> View {
    let mut view = leader();
    doubt(&mut view, millis);
    view.witness.attempts[0].next.nonce = "mine".into();
    view.witness.in_flight = true;
    view
}

fn renewal() -> Relay {
    let view = unanswered(0);
    Relay { expected: version(), next: view.witness.attempts[0].next.clone() }
}

/// A peer that reaches the witness, and hears what the leader asks for.
fn helper(relay: Relay) -> View {
    let mut view = standby("n2");
    let mut report = report("n1", Role::Primary);
    report.aid.relay = Some(Box::new(relay));
    view.heard(report);
    view
}

fn relays(view: &View) -> bool {
    decide(view).actions.iter().any(|a| matches!(a, Action::RelaySwap { .. }))
}

fn tell(view: &mut View, record: Record, version: &str) {
    let mut report = report("n2", Role::Standby);
    report.aid.document = Some(Box::new(Told { record, version: Version(version.into()) }));
    view.heard(report);
}

#[test]
fn the_leader_asks_for_a_swap_that_is_not_answered_in_time() {
    assert_eq!(decide(&unanswered(499)).relay, None);
    assert_eq!(decide(&unanswered(500)).relay, Some(renewal()));
    // The witness is known not to answer: at once.
    let mut view = unanswered(0);
    view.witness.failures = 1;
    assert_eq!(decide(&view).relay, Some(renewal()));
    assert_eq!(decide(&leader()).relay, None, "nothing is open");
}

#[test]
fn who_has_lost_the_lead_asks_for_nothing() {
    let mut view = unanswered(900);
    document(&mut view).leader = Some(name("n2"));
    assert_eq!(decide(&view).relay, None);
}

#[test]
fn whoever_reaches_the_witness_makes_exactly_that_swap() {
    let Relay { expected, next } = renewal();
    assert!(wants(&decide(&helper(renewal())), &Action::RelaySwap { expected, next }));
    let mut cut_off = helper(renewal());
    cut_off.witness.failures = 1;
    assert!(!relays(&cut_off));
    let mut behind = helper(renewal());
    behind.witness.seen.as_mut().unwrap().version = Version("v9".into());
    assert!(!relays(&behind));
}

#[test]
fn nothing_else_is_made_on_its_behalf() {
    let spoilt: [fn(&mut Record); 5] = [
        |r| r.leader = Some(name("n3")),
        |r| r.term = crate::Term(4),
        |r| r.heartbeat += 1,
        |r| r.cluster = "other".into(),
        |r| r.nonce.clear(),
    ];
    for spoil in spoilt {
        let mut relay = renewal();
        spoil(&mut relay.next);
        assert!(!relays(&helper(relay.clone())), "{relay:?}");
    }
    // It may give the lead up.
    let mut relay = renewal();
    (relay.next.leader, relay.next.handoff_to) = (None, Some(name("n2")));
    assert!(relays(&helper(relay)));
}

#[test]
fn it_is_made_again_only_after_a_look_at_the_document() {
    let mut view = helper(renewal());
    view.relay_sent("mine");
    assert!(view.witness.attempts.is_empty(), "it is no swap of this node's");
    view.witness_answered(Answer::Read(Err("no answer".into())));
    view.witness_answered(Answer::Conflict);
    view.witness.failures = 0;
    assert!(!relays(&view));
    view.now = NOW + ms(50);
    view.witness.seen.as_mut().unwrap().read_at = view.now;
    assert!(relays(&view));
}

#[test]
fn the_leader_takes_the_right_from_its_own_sending_when_it_is_told() {
    let mut view = unanswered(700);
    let next = renewal().next;
    tell(&mut view, next.clone(), "v11");
    assert!(!view.witness.unsettled());
    assert_eq!(view.right.unwrap().sent_at, ago(700));
    // The answer to its own request comes after all.
    view.witness_answered(Answer::Committed(Version("v11".into())));
    assert_eq!((view.witness.failures, view.witness.record()), (0, Some(&next)));
}

#[test]
fn an_answer_that_was_overtaken_is_no_older_document() {
    let mut view = leader();
    let before = view.witness.record().unwrap().clone();
    view.read_sent();
    view.now = NOW + ms(10);
    tell(&mut view, before.successor(), "v11");
    view.witness_answered(Answer::Read(Ok(Some((before.clone(), version())))));
    assert_eq!((view.witness.failures, view.witness.record().unwrap().heartbeat), (0, 11));
    // One that was asked for later is.
    view.now = NOW + ms(20);
    view.read_sent();
    view.witness_answered(Answer::Read(Ok(Some((before, version())))));
    assert_eq!(view.witness.failures, 1);
}

#[test]
fn what_is_told_counts_only_if_it_is_newer_than_what_was_read() {
    let mut view = leader();
    let known = view.witness.record().unwrap().clone();
    let older = Record { heartbeat: 9, leader: Some(name("n3")), ..known.clone() };
    tell(&mut view, older, "v9");
    assert_eq!(view.witness.record(), Some(&known));

    view.witness.seen = None;
    tell(&mut view, known.successor(), "v11");
    assert_eq!(view.witness.record(), None, "nobody can tell how old that is");
}

#[test]
fn who_is_cut_off_is_told_and_a_leader_that_was_deposed_learns_it() {
    let mut view = standby("n2");
    assert_eq!(view.aid(&decide(&view)).document, None);
    let mut report = report("n1", Role::Primary);
    (report.witness, report.witness_reachable) = (Some((9, crate::Term(3))), false);
    view.heard(report);
    let told = view.aid(&decide(&view)).document.unwrap();
    assert_eq!(told.version, version());

    let mut view = leader();
    let next = Record { leader: Some(name("n3")), term: crate::Term(4), ..told.record.successor() };
    tell(&mut view, next, "v11");
    assert!(fences(&decide(&view)));
}
