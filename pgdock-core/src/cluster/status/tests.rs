use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::Error;
use crate::node::{Incarnation, Member};
use crate::postgres::timeline::History;
use crate::report::Downstream;
use crate::witness::record::FORMAT;

pub(crate) fn settings() -> Settings {
    let text = "[cluster]\nname = \"shop\"\n[nodes.n1]\naddress = \"127.0.0.11\"\n[nodes.n2]\naddress = \"127.0.0.12\"\n\
                [nodes.n3]\naddress = \"127.0.0.13\"\n";
    Settings::from_toml(text, Path::new("/c")).unwrap()
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn member(node: &str) -> Member {
    Member { node: name(node), incarnation: Incarnation(7) }
}

fn record() -> Record {
    Record {
        format: FORMAT,
        cluster: "shop".into(),
        system_identifier: 1,
        term: Term(3),
        leader: Some(name("n1")),
        heartbeat: 10,
        nonce: "a".into(),
        ttl: Duration::from_secs(5),
        durability: Durability::Sync,
        sync_set: [member("n2")].into(),
        acks: 1,
        handoff_to: None,
        timeline: TimelineId(2),
        leader_lsn: Lsn(900),
        members: Default::default(),
        barred: Default::default(),
        paused: false,
        bundle: Default::default(),
        history: History::default(),
        backup: None,
    }
}

fn report(node: &str, role: Role, state: State) -> Report {
    Report {
        node: name(node),
        cluster: "shop".into(),
        system_identifier: Some(1),
        incarnation: Some(Incarnation(7)),
        role,
        state,
        timeline: TimelineId(2),
        flushed: Lsn(1000),
        replayed: Lsn(990),
        upstream: (role == Role::Standby).then(|| name("n1")),
        history: None,
        standbys: Vec::new(),
        witness: None,
        witness_reachable: true,
        campaign: None,
        pledge: None,
        disk_low: false,
        bundle: None,
        aid: Default::default(),
        problems: Vec::new(),
    }
}

fn says(report: Report) -> (NodeName, Result<NodeStatus>) {
    let status = NodeStatus {
        now: Timestamp::UNIX_EPOCH,
        age_seconds: 0.1,
        address: format!("127.0.0.1{}:5432", &report.node.as_str()[1..]),
        right_seconds: None,
        record: Some(record()),
        peers: Vec::new(),
        members: Vec::new(),
        archive: None,
        backup: None,
        backups: None,
        report,
    };
    (status.report.node.clone(), Ok(status))
}

fn silent(node: &str) -> (NodeName, Result<NodeStatus>) {
    (name(node), Err(Error::unavailable("no agent listens there")))
}

/// All is well: n1 leads, n2 and n3 stream.
fn well() -> Vec<(NodeName, Result<NodeStatus>)> {
    let mut primary = report("n1", Role::Primary, State::Running);
    primary.standbys = ["n2", "n3"]
        .map(|node| Downstream {
            member: member(node),
            streaming: true,
            flushed: Lsn(1000),
            replayed: if node == "n2" { Lsn(1000) } else { Lsn(800) },
            replay_lag_ms: if node == "n2" { None } else { Some(1500) },
        })
        .into();
    vec![
        says(primary),
        says(report("n2", Role::Standby, State::Streaming)),
        says(report("n3", Role::Standby, State::Streaming)),
    ]
}

pub(crate) fn healthy() -> ClusterStatus {
    assemble(&settings(), &well(), Ok(Some(record())), "file")
}

#[test]
fn the_shape_is_this_one() {
    let status = healthy();
    assert!(status.is_healthy(), "{status:?}");
    insta::assert_snapshot!(serde_json::to_string_pretty(&status).unwrap(), @r#"
    {
      "cluster": "shop",
      "term": 3,
      "leader": "n1",
      "durability": "sync",
      "sync_set": [
        "n2"
      ],
      "acks": 1,
      "witness": {
        "kind": "file",
        "reachable": true
      },
      "nodes": [
        {
          "name": "n1",
          "role": "primary",
          "state": "running",
          "address": "127.0.0.11:5432",
          "upstream": null,
          "timeline": 2,
          "lsn": "0/3E8",
          "replay_lag_bytes": null,
          "replay_lag_seconds": null,
          "reachable": true,
          "bundle": null,
          "problems": []
        },
        {
          "name": "n2",
          "role": "standby",
          "state": "streaming",
          "address": "127.0.0.12:5432",
          "upstream": "n1",
          "timeline": 2,
          "lsn": "0/3E8",
          "replay_lag_bytes": 0,
          "replay_lag_seconds": 0.0,
          "reachable": true,
          "bundle": null,
          "problems": []
        },
        {
          "name": "n3",
          "role": "standby",
          "state": "streaming",
          "address": "127.0.0.13:5432",
          "upstream": "n1",
          "timeline": 2,
          "lsn": "0/3E8",
          "replay_lag_bytes": 200,
          "replay_lag_seconds": 1.5,
          "reachable": true,
          "bundle": null,
          "problems": []
        }
      ],
      "problems": []
    }
    "#);
}

#[test]
fn whoever_does_not_answer_is_unknown_rather_than_down() {
    let mut answers = well();
    answers[2] = silent("n3");
    let status = assemble(&settings(), &answers, Ok(Some(record())), "file");
    let n3 = status.node(&name("n3")).unwrap();
    assert_eq!((n3.role, n3.state, n3.reachable), (Role::Unknown, State::Unknown, false));
    assert_eq!(n3.address, "127.0.0.13:5432");
    assert_eq!(n3.problems, ["no agent listens there"]);
    assert!(status.problems.is_empty() && !status.is_healthy());
}

#[test]
fn two_primaries_are_a_loud_problem() {
    let mut answers = well();
    answers[1] = says(report("n2", Role::Primary, State::Running));
    let status = assemble(&settings(), &answers, Ok(Some(record())), "file");
    assert!(status.problems[0].starts_with("MORE THAN ONE NODE IS OUT OF RECOVERY: n1, n2."), "{:?}", status.problems);
    assert!(status.problems[0].contains("names n1"));
}

#[test]
fn old_words_and_those_of_strangers_count_for_nothing() {
    let mut answers = well();
    if let Ok(status) = &mut answers[0].1 {
        status.age_seconds = 9.0;
    }
    if let Ok(status) = &mut answers[1].1 {
        status.report.cluster = "other".into();
    }
    if let Ok(status) = &mut answers[2].1 {
        status.report.node = name("n9");
    }
    let status = assemble(&settings(), &answers, Ok(Some(record())), "file");
    for node in &status.nodes {
        assert_eq!((node.role, node.reachable), (Role::Unknown, true), "{}", node.name);
    }
    assert!(status.nodes[0].problems[0].contains("hangs"), "{:?}", status.nodes[0].problems);
    assert!(status.nodes[1].problems[0].contains("another cluster"));
    assert!(status.nodes[2].problems[0].contains("another node"));
    assert_eq!(status.problems, ["n1 leads term 3, but is not seen as primary"]);
}

#[test]
fn the_newest_document_counts() {
    let mut answers = well();
    if let Ok(status) = &mut answers[1].1 {
        status.record = Some(Record { heartbeat: 11, term: Term(4), leader: Some(name("n2")), ..record() });
    }
    let status = assemble(&settings(), &answers, Ok(Some(record())), "file");
    assert_eq!((status.term, status.leader), (Some(Term(4)), Some(name("n2"))));
}

#[test]
fn the_witness_is_reachable_where_anybody_reaches_it() {
    let unreachable = || Err(Error::unavailable("the witness did not answer in time"));
    let status = assemble(&settings(), &well(), unreachable(), "file");
    assert!(status.witness.reachable && status.is_healthy());
    assert_eq!(status.leader, Some(name("n1")), "the agents know the document");
    let alone: Vec<_> = ["n1", "n2", "n3"].map(silent).into();
    let status = assemble(&settings(), &alone, unreachable(), "file");
    assert!(!status.witness.reachable);
    assert_eq!(status.problems, ["the witness did not answer in time"]);
}

#[test]
fn what_ails_the_cluster_is_said() {
    for (change, problem) in [
        ((|r| r.paused = true) as fn(&mut Record), "paused"),
        (|r| r.sync_set.clear(), "no standby guards"),
        (|r| r.leader = None, "nobody leads"),
        (|r| (r.leader, r.handoff_to) = (None, Some(name("n2"))), "handed to n2"),
    ] {
        let mut newer = record();
        newer.heartbeat += 1;
        change(&mut newer);
        let status = assemble(&settings(), &well(), Ok(Some(newer)), "file");
        assert!(status.problems.iter().any(|p| p.contains(problem)), "{problem}: {:?}", status.problems);
    }
    let status = assemble(&settings(), &[], Ok(None), "file");
    assert_eq!(status.problems, ["the cluster was not founded yet: there is no witness document"]);
}

#[test]
fn a_standby_that_does_not_stream_is_told_of() {
    let mut answers = well();
    answers[2] = says(report("n3", Role::Standby, State::Following));
    let status = assemble(&settings(), &answers, Ok(Some(record())), "file");
    assert_eq!(status.nodes[2].problems, ["it does not stream. state=following"]);
}
