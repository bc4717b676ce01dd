use super::support::*;
use crate::backup::Label;
use crate::decide::decide;
use crate::witness::record::BackupClaim;

fn label(n: u32) -> Label {
    Label::new("2026-11-30T23:15:00Z".parse().unwrap(), n)
}

fn claim(node: &str, n: u32) -> BackupClaim {
    BackupClaim { node: name(node), label: label(n) }
}

#[test]
fn the_leader_writes_down_who_asked_first() {
    let mut view = leader();
    assert_eq!(swapped(&decide(&view)).and_then(|r| r.backup.clone()), None);
    view.backup = Some(label(3));
    peer_report(&mut view, "n2").aid.backup = Some(label(2));
    let next = swapped(&decide(&view)).expect("it is written down at once").clone();
    assert_eq!(next.backup, Some(claim("n2", 2)));
    // Once it is there it stays, also where somebody asks for an older one.
    document(&mut view).backup = Some(claim("n2", 2));
    peer_report(&mut view, "n3").aid.backup = Some(label(1));
    assert_eq!(swapped(&decide(&view)), None);
}

#[test]
fn it_is_taken_back_when_it_ended_or_its_node_is_gone() {
    let mut ended = leader();
    document(&mut ended).backup = Some(claim("n2", 2));
    assert_eq!(swapped(&decide(&ended)).unwrap().backup, None);
    let mut gone = leader();
    document(&mut gone).backup = Some(claim("n3", 2));
    peer_report(&mut gone, "n3").aid.backup = Some(label(2));
    assert_eq!(swapped(&decide(&gone)), None);
    silence(&mut gone, "n3", 5000);
    assert_eq!(swapped(&decide(&gone)).unwrap().backup, None);
    // Another one takes its turn at once.
    let mut next = leader();
    document(&mut next).backup = Some(claim("n2", 2));
    next.backup = Some(label(3));
    assert_eq!(swapped(&decide(&next)).unwrap().backup, Some(claim("n1", 3)));
}

#[test]
fn only_the_leader_writes_it() {
    let mut view = standby("n2");
    view.backup = Some(label(1));
    assert_eq!(swapped(&decide(&view)), None);
    assert_eq!(view.aid(&decide(&view)).backup, Some(label(1)), "but everybody says what he wants");
}
