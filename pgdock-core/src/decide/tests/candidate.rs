//! Who goes first: every node must come to the same answer, whatever they hold, or two campaign or nobody does.

use super::support::*;
use crate::NodeName;
use crate::decide::decide;
use crate::postgres::lsn::Lsn;
use crate::view::{Postgres, View};

/// What n2 and n3 hold, and their priorities.
type Standing = [(Lsn, u32); 2];

/// All ways in which two standbys can stand to each other, ties among them, each with who should lead.
fn standings() -> impl Iterator<Item = (Standing, NodeName)> {
    let each = || [999, 1000].into_iter().flat_map(|lsn| [0, 7].map(|priority| (Lsn(lsn), priority)));
    each().flat_map(move |n2| each().map(move |n3| ([n2, n3], name(if n3 > n2 { "n3" } else { "n2" }))))
}

/// A node's view, where n2 and n3 stand like this and have both pledged.
fn see(mut view: View, standing: Standing) -> View {
    for (node, (flushed, priority)) in ["n2", "n3"].into_iter().zip(standing) {
        view.policy.members.get_mut(&name(node)).unwrap().priority = priority;
        if view.me == name(node) {
            my_standby(&mut view).flushed = flushed;
            continue;
        }
        let report = peer_report(&mut view, node);
        (report.flushed, report.replayed) = (flushed, flushed);
        report.pledge = Some(pledge(node, flushed));
    }
    view
}

/// Who of n2 and n3 swaps itself into the lead.
fn takes_over(see: impl Fn(View) -> View) -> Vec<NodeName> {
    let views = ["n2", "n3"].map(|node| see(standby(node)));
    views.iter().filter_map(|view| swapped(&decide(view))?.leader.clone()).collect()
}

#[test]
fn of_two_that_pledged_one_takes_over() {
    for (standing, best) in standings() {
        let who = takes_over(|view| {
            let mut view = see(view, standing);
            document(&mut view).sync_set = members(&["n2", "n3"]);
            kill(&mut view, "n1");
            detach(&mut view);
            view
        });
        assert_eq!(who, [best], "{standing:?}");
    }
}

#[test]
fn of_two_that_were_patient_one_takes_over() {
    for (standing, best) in standings() {
        let who = takes_over(|view| {
            let mut view = see(asynchronous(view), standing);
            silence(&mut view, "n1", 6000);
            stand(&mut view, 6000);
            view
        });
        assert_eq!(who, [best], "{standing:?}");
    }
}

#[test]
fn a_leader_whose_postgresql_crashed_names_the_same_one() {
    for (standing, best) in standings() {
        let mut view = see(leader(), standing);
        let record = document(&mut view);
        (record.sync_set, record.acks) = (members(&["n2", "n3"]), 2);
        view.local.postgres = Postgres::Stopped(stopped(false));
        assert_eq!(swapped(&decide(&view)).and_then(|r| r.handoff_to.clone()), Some(best), "{standing:?}");
    }
}
