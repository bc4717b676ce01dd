use super::*;
use crate::ErrorKind;
use crate::cluster::status::tests::{healthy, name};

fn names(nodes: &[&str]) -> Vec<NodeName> {
    nodes.iter().map(|node| name(node)).collect()
}

fn words(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

/// n1, which leads, is silent.
fn headless() -> ClusterStatus {
    let mut status = healthy();
    status.nodes[0].role = Role::Unknown;
    status.nodes[0].reachable = false;
    status
}

#[test]
fn a_switchover_stops_before_it_promotes() {
    let plan = switchover(&healthy(), Some(&name("n2"))).unwrap();
    assert_eq!(
        words(&plan),
        [
            "checkpoint on n1",
            "stop PostgreSQL on n1 in order",
            "n2 takes the lead of term 4",
            "promote n2",
            "n1 follows n2",
            "n3 follows n2"
        ]
    );
    let open = switchover(&healthy(), None).unwrap();
    assert_eq!(
        words(&open)[2..],
        ["the best standby takes the lead of term 4", "promote the best standby", "n1 follows the new primary"]
    );
}

#[test]
fn a_switchover_needs_an_heir_and_a_leader() {
    assert_eq!(switchover(&healthy(), Some(&name("n1"))).unwrap_err().kind(), ErrorKind::NeedsOperator);
    let mut status = healthy();
    for node in &mut status.nodes[1..] {
        node.state = State::Following;
    }
    assert_eq!(switchover(&status, Some(&name("n2"))).unwrap_err().kind(), ErrorKind::NeedsOperator);
    assert_eq!(switchover(&status, None).unwrap_err().kind(), ErrorKind::NeedsOperator);
    assert_eq!(switchover(&headless(), None).unwrap_err().kind(), ErrorKind::Unavailable);
    status.leader = None;
    assert_eq!(switchover(&status, None).unwrap_err().kind(), ErrorKind::NotReady);
}

#[test]
fn a_failover_is_for_the_time_when_the_leader_is_gone() {
    assert_eq!(failover(&healthy(), &name("n2"), true).unwrap_err().kind(), ErrorKind::NeedsOperator);
    let plan = failover(&headless(), &name("n2"), false).unwrap();
    assert_eq!(words(&plan), ["n2 takes the lead of term 4", "promote n2", "n3 follows n2"]);
    let forced = failover(&headless(), &name("n2"), true).unwrap();
    assert_eq!(words(&forced)[0], "wait until the right of n1 has ended");
    assert_eq!(failover(&headless(), &name("n9"), true).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn the_leaders_data_are_never_replaced() {
    assert_eq!(reclone(&healthy(), &name("n1")).unwrap_err().kind(), ErrorKind::NeedsOperator);
    let plan = reclone(&healthy(), &name("n2")).unwrap();
    assert!(words(&plan).contains(&"move the data directory of n2 aside; it is kept".to_owned()));
}

#[test]
fn who_follows_already_has_nothing_to_do() {
    assert_eq!(rejoin(&healthy(), &name("n2")).unwrap(), Plan::default());
    let mut status = healthy();
    status.nodes[1].state = State::Detached;
    assert_eq!(words(&rejoin(&status, &name("n2")).unwrap()), ["n2 follows n1"]);
}

#[test]
fn up_leaves_alone_what_runs() {
    let all = names(&["n1", "n2", "n3"]);
    assert_eq!(up(true, &all[0], &all, &all), Plan::default());
    let plan = up(false, &all[0], &all, &all[..1]);
    assert_eq!(
        words(&plan)[..3],
        [
            "start the agent of n2",
            "start the agent of n3",
            "found the cluster on n1: first data directory, witness document"
        ]
    );
}

#[test]
fn a_cluster_is_founded_once_and_when_all_agents_answer() {
    let mut new = healthy();
    (new.term, new.leader) = (None, None);
    let plan = bootstrap(&new, &name("n2")).unwrap();
    assert_eq!(
        words(&plan),
        [
            "found the cluster on n2: first data directory, witness document",
            "wait until there is a primary, and all others of n1, n2, n3 stream"
        ]
    );
    assert_eq!(words(&bootstrap(&healthy(), &name("n2")).unwrap()), words(&plan)[1..]);
    assert_eq!(bootstrap(&new, &name("n9")).unwrap_err().kind(), ErrorKind::Invalid);
    new.nodes[2].reachable = false;
    let error = bootstrap(&new, &name("n2")).unwrap_err();
    assert!(error.kind() == ErrorKind::NotReady && error.to_string().contains("nodes=n3"), "{error}");
}

#[test]
fn down_takes_the_leader_last() {
    let all = names(&["n1", "n2", "n3"]);
    let plan = down(&healthy(), &all, &all, false).unwrap();
    let nodes: Vec<_> =
        plan.steps.iter().map(|step| matches!(step, Step::StopAgent { node } if *node == all[0])).collect();
    assert_eq!(nodes, [false, false, true]);
}

#[test]
fn a_leader_that_leaves_others_behind_hands_over_first() {
    let all = names(&["n1", "n2", "n3"]);
    let plan = down(&healthy(), &all[..1], &all, false).unwrap();
    let words = words(&plan);
    assert_eq!(words.first().unwrap(), "checkpoint on n1");
    assert_eq!(words.last().unwrap(), "stop PostgreSQL and the agent on n1 in order");
    let mut status = healthy();
    for node in &mut status.nodes[1..] {
        node.state = State::Following;
    }
    assert_eq!(down(&status, &all[..1], &all, false).unwrap_err().kind(), ErrorKind::NeedsOperator);
    let forced = down(&status, &all[..1], &all, true).unwrap();
    assert_eq!(forced.steps, [Step::StopAgent { node: all[0].clone() }, Step::Kill { node: all[0].clone() }]);
    assert!(down(&status, &all[..1], &all[..1], false).is_ok(), "nobody is left behind");
}

#[test]
fn only_a_node_that_is_not_needed_is_removed() {
    let text = |strict: bool, last: &str| {
        format!(
            "[cluster]\nname = \"main\"\n[failover]\nstrict = {strict}\n[nodes.n1]\naddress = \"127.0.0.2\"\n\
             [nodes.n2]\naddress = \"127.0.0.3\"\n[nodes.n3]\naddress = \"127.0.0.4\"\n{last}"
        )
    };
    let settings =
        |strict: bool, last: &str| Settings::from_toml(&text(strict, last), std::path::Path::new("/srv/pg")).unwrap();
    let relaxed = settings(false, "");
    assert_eq!(removable(&healthy(), &relaxed, &name("n1")).unwrap_err().kind(), ErrorKind::NeedsOperator);
    assert_eq!(removable(&headless(), &relaxed, &name("n2")).unwrap_err().kind(), ErrorKind::Unavailable);
    removable(&healthy(), &relaxed, &name("n2")).unwrap();
    let strict = settings(true, "");
    removable(&healthy(), &strict, &name("n2")).unwrap();
    let barred = settings(true, "failover = false\n");
    let error = removable(&healthy(), &barred, &name("n2")).unwrap_err();
    assert!(error.to_string().contains("strict"), "{error}");
    let mut status = healthy();
    status.nodes[2].state = State::Following;
    assert!(removable(&status, &strict, &name("n2")).is_err());
    removable(&status, &strict, &name("n3")).unwrap();
    removable(&status, &settings(false, "failover = false\n"), &name("n2")).unwrap();
}
