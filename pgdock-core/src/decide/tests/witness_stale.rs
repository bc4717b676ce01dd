use super::support::*;
use crate::Term;
use crate::decide::{Action, decide};

#[test]
fn the_document_is_read_once_a_heartbeat() {
    let mut view = standby("n2");
    view.witness.sent_at = Some(ago(999));
    assert!(!wants(&decide(&view), &Action::ReadWitness));
    view.witness.sent_at = Some(ago(1000));
    assert!(wants(&decide(&view), &Action::ReadWitness));
    view.witness.in_flight = true;
    assert!(!wants(&decide(&view), &Action::ReadWitness), "one request at a time");
}

#[test]
fn who_hears_of_a_newer_document_reads_at_once() {
    let mut view = standby("n2");
    peer_report(&mut view, "n3").witness = Some((11, Term(3)));
    assert!(wants(&decide(&view), &Action::ReadWitness));
}

#[test]
fn a_witness_that_does_not_answer_is_told_and_asked_less_often() {
    let mut view = standby("n2");
    view.witness.failures = 5;
    view.witness.error = Some("connection refused".into());
    view.witness.sent_at = Some(ago(999));
    let d = decide(&view);
    assert!(!wants(&d, &Action::ReadWitness) && tells(&d, "connection refused"), "{d:?}");
    view.witness.sent_at = Some(ago(1000));
    assert!(wants(&decide(&view), &Action::ReadWitness));
    view.witness.in_flight = true;
    assert!(tells(&decide(&view), "connection refused"), "also while it is asked");
}
