//! Roles that change, and who may answer while they do.

use std::time::Duration;

use pgdock_makara::{BanPolicy, Error, Limits, Reads, Role};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::cluster::{Cluster, HOSTS};
use super::{PATIENCE, answered_by, both_known, leader, router, until, until_answered_by};

/// Limits of a router that asks nobody by itself in the time of a test.
fn silent() -> Limits {
    let mut limits = Limits::default();
    limits.poll = Duration::from_secs(3600);
    limits.failover_wait = Duration::from_secs(5);
    limits.statement = Duration::from_secs(2);
    limits
}

#[tokio::test]
async fn a_promotion_is_known_with_the_next_answer() {
    let Some(cluster) = Cluster::start() else { return };
    let [_, standby] = HOSTS;
    let router = router(&cluster, |builder| builder.limits(silent()));
    both_known(&router).await;
    router.execute("create table t (a int)", &[]).await.unwrap();
    assert_eq!(answered_by(&router).await, standby);
    cluster.promote(1);
    // Nobody has asked. The answer to a read says it, and only then is the timeline asked for.
    let seen = async {
        while leader(&router.topology()) != Some("n2") {
            router.query("select 1", &[]).await.unwrap();
        }
    };
    timeout(PATIENCE, seen).await.expect("the new primary is known");
    let topology = router.topology();
    assert_eq!(topology.refused().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n1"]);
    assert_eq!(topology.node("n2").unwrap().role, Role::Primary { timeline: 2 });
    let insert = "insert into t values ($1)";
    router.execute(insert, &[&1]).await.unwrap();
    assert_eq!(router.stats().nodes[1].writes, 1);

    // A primary that is frozen: the write is given up at its deadline, and nobody knows.
    cluster.signal(1, "-STOP");
    let error = timeout(PATIENCE, router.execute(insert, &[&2])).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::OutcomeUnknown { node, .. } if node == "n2"), "{error:?}");
    // Where the statement had not been sent yet, it is known to have done nothing.
    let error = timeout(PATIENCE, router.execute("insert into t values (4)", &[])).await.unwrap().unwrap_err();
    assert!(error.had_no_effect(), "{error:?}");
    cluster.signal(1, "-CONT");
    until(&router, "the primary again", |topology| leader(topology) == Some("n2")).await;
    router.execute(insert, &[&3]).await.unwrap();
}

#[tokio::test]
async fn a_standby_that_is_late_or_gone_is_replaced_as_far_as_that_is_wanted() {
    let Some(cluster) = Cluster::start() else { return };
    let [primary, standby] = HOSTS;
    let usual = router(&cluster, |builder| {
        builder.id("usual").lag_bytes_max(64 * 1024).zone("east").ban(BanPolicy::lasting(Duration::from_millis(100)))
    });
    let only = router(&cluster, |builder| builder.id("only").reads(Reads::StandbyOnly));
    let all = router(&cluster, |builder| builder.id("all").reads(Reads::All));
    let none = router(&cluster, |builder| builder.id("none").fallback_max(0));
    let primary_only = router(&cluster, |builder| builder.reads(Reads::PrimaryOnly));
    for router in [&usual, &only, &all, &none, &primary_only] {
        both_known(router).await;
    }
    let (replay, connection) = cluster.address(1).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    usual.execute("create table t (a text)", &[]).await.unwrap();

    assert_eq!(answered_by(&primary_only).await, primary);
    let mut hosts = vec![answered_by(&all).await, answered_by(&all).await];
    hosts.sort();
    assert_eq!(hosts, [primary, standby], "in turn");
    until_answered_by(&usual, standby).await;

    // Too far behind.
    replay.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    usual.execute("insert into t select repeat('x', 2000) from generate_series(1, 1000)", &[]).await.unwrap();
    until_answered_by(&usual, primary).await;
    let late = usual.topology().node("n2").cloned().unwrap();
    assert!(late.lag_bytes > Some(64 * 1024) && late.lag.is_some() && late.banned.is_none(), "{late:?}");
    assert_eq!(answered_by(&only).await, standby, "where no limit is set");
    replay.batch_execute("select pg_wal_replay_resume()").await.unwrap();
    until_answered_by(&usual, standby).await;

    // Gone.
    cluster.stop(1);
    assert_eq!(answered_by(&usual).await, primary);
    assert!(usual.stats().fallbacks >= 1);
    assert!(matches!(only.query("select 1", &[]).await, Err(Error::NoReplica)));
    assert!(matches!(none.within(PATIENCE).query("select 1", &[]).await, Err(Error::NoReplica)));
    until(&usual, "the ban", |topology| topology.node("n2").is_some_and(|node| node.banned.is_some())).await;
    cluster.start_node(1);
    until_answered_by(&usual, standby).await;
    let back = async {
        while only.query("select 1", &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, back).await.expect("it is used again");
}

#[tokio::test]
async fn what_no_wait_mends_is_told_as_it_is() {
    let Some(cluster) = Cluster::start_one() else { return };
    let mut nowhere = cluster.address(0);
    nowhere.dbname("nowhere");
    let mut limits = Limits::default();
    limits.failover_wait = Duration::from_millis(500);
    let router = super::Router::builder().node("n1", nowhere, 1).limits(limits).build(NoTls).unwrap();
    until(&router, "the refusal", |topology| topology.nodes[0].banned.is_some()).await;
    let error = router.execute("insert into t values (1)", &[]).await.unwrap_err();
    assert!(error.to_string().contains("sqlstate=3D000"), "{error}");

    // A server that refuses its clients for a moment is waited for.
    let router = super::Router::builder().node("n1", cluster.address(0), 1).pool_size(1).build(NoTls).unwrap();
    until(&router, "the primary", |topology| topology.primary().is_some()).await;
    router.execute("create table t (a int)", &[]).await.unwrap();
    let hba = std::path::Path::new(&cluster.data(0)).join("pg_hba.conf");
    let open = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("host all all 0.0.0.0/0 reject\n{open}")).unwrap();
    cluster.restart(0);
    let write = tokio::spawn({
        let router = router.clone();
        async move { router.execute("insert into t values (1)", &[]).await }
    });
    let refuses = |topology: &pgdock_makara::Topology| {
        topology.nodes[0].banned.as_deref().is_some_and(|why| why.contains("sqlstate=28000"))
    };
    until(&router, "the refusal", refuses).await;
    std::fs::write(&hba, open).unwrap();
    cluster.restart(0);
    assert_eq!(timeout(PATIENCE, write).await.unwrap().unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let Some(other) = Cluster::start_one() else { return };
    let router = router(&cluster, |builder| builder);
    both_known(&router).await;
    let wrong = super::Router::builder().node("n1", cluster.address(0), 1).node("n2", cluster.address(1), 1).node(
        "other",
        other.address(0),
        1,
    );
    let mut limits = Limits::default();
    limits.poll = Duration::from_millis(100);
    let wrong = wrong.limits(limits).build(NoTls).unwrap();
    // Whichever answers first, the two do not mix.
    until(&wrong, "the refusal", |topology| {
        topology.nodes.iter().any(|node| node.banned.as_deref().is_some_and(|why| why.contains("another cluster")))
    })
    .await;
    let topology = wrong.topology();
    let known: Vec<_> =
        topology.nodes.iter().filter(|node| node.role != Role::Unknown).map(|node| &node.name).collect();
    assert!(!known.iter().any(|name| *name == "other") || known.len() == 1, "{topology:?}");
}
