//! Views to begin with: a cluster of three in which all is well, seen by one of its nodes.
//!
//! `n1` leads term 3 on timeline 2, `n2` guards its commits, everybody holds the WAL up to position 1000.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Moment;
use crate::decide::rules::Rules;
use crate::decide::{Action, Decision};
use crate::node::{Incarnation, Member};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{History, TimelineId};
use crate::report::{Pledge, Report, State};
use crate::view::{
    Attempt, MemberPolicy, Names, Policy, Postgres, Primary, Progress, Right, Seen, Sender, Standby, Stopped, View,
};
use crate::witness::record::{Durability, FORMAT};
use crate::witness::{Record, Version};
use crate::{NodeName, Role, Term};

pub(super) const NOW: Moment = Moment(Duration::from_secs(1000));
pub(super) const SYSTEM: u64 = 7;
pub(super) const END: Lsn = Lsn(1000);

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn ago(millis: u64) -> Moment {
    NOW - ms(millis)
}

pub(super) fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

/// The present life of a node.
pub(super) fn member(node: &str) -> Member {
    Member { node: name(node), incarnation: Incarnation(1) }
}

pub(super) fn members(nodes: &[&str]) -> BTreeSet<Member> {
    nodes.iter().map(|n| member(n)).collect()
}

pub(super) fn names(nodes: &[&str], count: u32) -> Names {
    Names { members: members(nodes), count }
}

/// The version of the document that everybody has seen.
pub(super) fn version() -> Version {
    Version("v10".into())
}

pub(super) fn policy() -> Policy {
    let member = |n: &str| {
        let policy = MemberPolicy { priority: 0, failover: true, address: format!("{n}:5432") };
        (name(n), policy)
    };
    Policy {
        cluster: "main".into(),
        durability: Durability::Sync,
        acks: 1,
        strict: false,
        heartbeat: ms(1000),
        ttl: ms(5000),
        margin: ms(300),
        silent_after: ms(1000),
        suspect_after: ms(2500),
        lag_bytes_max: 100,
        members: ["n1", "n2", "n3"].into_iter().map(member).collect(),
        rejoin_budget: Duration::from_secs(600),
        disk_free_min: 1000,
        archive: false,
        failover_ip: false,
        rules: Rules::default(),
    }
}

fn record() -> Record {
    let policy = policy();
    Record {
        format: FORMAT,
        cluster: policy.cluster,
        system_identifier: SYSTEM,
        term: Term(3),
        leader: Some(name("n1")),
        heartbeat: 10,
        nonce: "nonce".into(),
        ttl: policy.ttl,
        durability: Durability::Sync,
        sync_set: members(&["n2"]),
        acks: 1,
        handoff_to: None,
        timeline: TimelineId(2),
        leader_lsn: END,
        members: policy.members.iter().map(|(n, m)| (n.clone(), m.address.clone())).collect(),
        barred: Default::default(),
        paused: false,
        bundle: BTreeMap::new(),
        history: History::new(TimelineId(2)),
        backup: None,
    }
}

fn view(me: &str) -> View {
    let mut view = View::new(name(me), policy());
    view.now = NOW;
    view.local.system_identifier = Some(SYSTEM);
    view.local.incarnation = Some(Incarnation(1));
    view.witness.seen = Some(Seen { record: record(), version: version(), since: ago(100), read_at: ago(100) });
    view.witness.sent_at = Some(ago(110));
    view.witness.answered_at = Some(ago(100));
    view
}

/// What `n1` sees, that leads.
pub(super) fn leader() -> View {
    let mut view = view("n1");
    let sent_at = ago(110);
    view.right = Some(Right { term: Term(3), sent_at, until: (sent_at + ms(5000)) - ms(300) });
    let sender = Sender { streaming: true, flushed: END, replayed: END, replay_lag_ms: None };
    view.local.postgres = Postgres::Primary(Primary {
        timeline: TimelineId(2),
        flushed: END,
        history: History::new(TimelineId(2)),
        names: names(&["n2"], 1),
        names_settled: true,
        closed: false,
        senders: members(&["n2", "n3"]).into_iter().map(|m| (m, sender)).collect(),
        slots: ["pgdock_n2".to_owned(), "pgdock_n3".to_owned()].into(),
    });
    let progress = Progress { flushed: END, moved_at: NOW };
    view.local.progress = members(&["n2", "n3"]).into_iter().map(|m| (m, progress)).collect();
    view.local.primary_since = Some(ago(60_000));
    for peer in ["n2", "n3"] {
        hear(&mut view, report(peer, Role::Standby));
    }
    view
}

/// What a standby sees.
pub(super) fn standby(me: &str) -> View {
    let mut view = view(me);
    view.local.postgres = Postgres::Standby(Standby {
        timeline: TimelineId(2),
        flushed: END,
        replayed: END,
        end_known: true,
        upstream: Some(name("n1")),
        detached: false,
        receiving: true,
        heard_at: Some(NOW),
    });
    hear(&mut view, report("n1", Role::Primary));
    let other = if me == "n2" { "n3" } else { "n2" };
    hear(&mut view, report(other, Role::Standby));
    view.local.slots = view.peers.keys().map(|node| (node.slot(), END)).collect();
    view
}

/// The same in `async`: commits wait for nobody.
pub(super) fn asynchronous(mut view: View) -> View {
    view.policy.durability = Durability::Async;
    let record = document(&mut view);
    record.durability = Durability::Async;
    record.sync_set.clear();
    record.acks = 0;
    if let Postgres::Primary(primary) = &mut view.local.postgres {
        primary.names = Names::none();
    }
    view
}

/// The document as this node has seen it, to be changed by a test.
pub(super) fn document(view: &mut View) -> &mut Record {
    &mut view.witness.seen.as_mut().unwrap().record
}

pub(super) fn my_standby(view: &mut View) -> &mut Standby {
    match &mut view.local.postgres {
        Postgres::Standby(standby) => standby,
        other => panic!("{other:?}"),
    }
}

pub(super) fn my_primary(view: &mut View) -> &mut Primary {
    match &mut view.local.postgres {
        Postgres::Primary(primary) => primary,
        other => panic!("{other:?}"),
    }
}

pub(super) fn peer_report<'a>(view: &'a mut View, node: &str) -> &'a mut Report {
    view.peers.get_mut(&name(node)).unwrap().report.as_mut().unwrap()
}

/// What a node reports while all is well.
pub(super) fn report(node: &str, role: Role) -> Report {
    let primary = role == Role::Primary;
    Report {
        node: name(node),
        cluster: "main".into(),
        system_identifier: Some(SYSTEM),
        incarnation: Some(Incarnation(1)),
        role,
        state: if primary { State::Running } else { State::Streaming },
        timeline: TimelineId(2),
        flushed: END,
        replayed: END,
        upstream: (!primary).then(|| name("n1")),
        history: primary.then(|| History::new(TimelineId(2))),
        standbys: vec![],
        witness: Some((10, Term(3))),
        witness_reachable: true,
        campaign: None,
        pledge: None,
        aid: Default::default(),
        disk_low: false,
        bundle: None,
        problems: vec![],
    }
}

pub(super) fn hear(view: &mut View, report: Report) {
    let peer = view.peers.get_mut(&report.node).unwrap();
    peer.heard_at = Some(NOW);
    peer.report = Some(report);
}

/// A node has not been heard for so long.
pub(super) fn silence(view: &mut View, node: &str, millis: u64) {
    view.peers.get_mut(&name(node)).unwrap().heard_at = Some(ago(millis));
    if let Postgres::Standby(standby) = &mut view.local.postgres {
        standby.receiving = false;
        standby.heard_at = Some(ago(millis));
    }
}

/// A node's host says that its agent is gone, and its PostgreSQL gives no sign of life.
pub(super) fn kill(view: &mut View, node: &str) {
    silence(view, node, 500);
    view.peers.get_mut(&name(node)).unwrap().refused_at = Some(NOW);
}

/// The version of the document has stood for so long.
pub(super) fn stand(view: &mut View, millis: u64) {
    view.witness.seen.as_mut().unwrap().since = ago(millis);
}

pub(super) fn pledge(node: &str, flushed: Lsn) -> Pledge {
    Pledge { version: version(), member: member(node), timeline: TimelineId(2), flushed }
}

/// This node has detached for the present version, and pledged so.
pub(super) fn detach(view: &mut View) {
    let standby = my_standby(view);
    (standby.detached, standby.upstream, standby.receiving) = (true, None, false);
    view.durable.pledge = Some(pledge(view.me.clone().as_str(), END));
}

/// A PostgreSQL that was primary, and ended 10 ms ago.
pub(super) fn stopped(clean: bool) -> Stopped {
    Stopped {
        clean,
        was_primary: true,
        timeline: TimelineId(2),
        checkpoint: END,
        flushed: END,
        ended_at: Some(ago(10)),
    }
}

/// A swap of this node's own of which nothing is known was sent so long ago.
pub(super) fn doubt(view: &mut View, millis: u64) {
    let next = document(view).successor();
    view.witness.attempts.push(Attempt { expected: Some(version()), next, sent_at: ago(millis) });
}

/// What the decision makes of the document.
pub(super) fn swapped(d: &Decision) -> Option<&Record> {
    d.actions.iter().find_map(|a| match a {
        Action::SwapWitness { next, .. } => Some(next),
        _ => None,
    })
}

pub(super) fn wants(d: &Decision, action: &Action) -> bool {
    d.actions.contains(action)
}

pub(super) fn fences(d: &Decision) -> bool {
    d.actions.iter().any(|a| matches!(a, Action::Fence { .. }))
}

pub(super) fn tells(d: &Decision, words: &str) -> bool {
    d.problems.iter().any(|p| p.contains(words))
}
