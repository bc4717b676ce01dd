//! What these tests share.

use std::process::Output;
use std::time::{Duration, Instant};

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result, Role};
use pgdock_tests::real::{Ack, Options, Probe, RealCluster, Writer, available, healthy, missing, overlaps, until};

/// How long anything may take that should take a moment, on a machine that does much else.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// How long anything may take that PostgreSQL itself does only now and then.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// How long a right lasts in these clusters.
pub(crate) const TTL: Duration = Duration::from_secs(3);

/// A cluster on addresses that begin with 127.0.0.`first`.
pub(crate) fn options(first: u8, nodes: usize, durability: Durability) -> Options {
    let extra = [("failover", format!("heartbeat = \"500ms\"\nttl = \"{}s\"", TTL.as_secs()))];
    Options { nodes, durability, first, extra: extra.into(), ..Options::default() }
}

/// Brings a cluster up, and runs a test on it. Where it fails, the logs are printed.
pub(crate) async fn on(options: Options, test: impl AsyncFnOnce(&mut RealCluster) -> Result<()>) {
    if !available() {
        return;
    }
    let mut cluster = match RealCluster::up(options).await {
        Ok(cluster) => cluster,
        Err(error) => panic!("the cluster does not come up: {}", error.chain()),
    };
    if let Err(error) = test(&mut cluster).await {
        // Dropped in a panic, the cluster prints its logs.
        panic!("{}", error.chain());
    }
}

/// A client that writes to whoever is primary. Its table is on every standby: a takeover in `async` may lose
/// rows, but shall not lose that.
pub(crate) async fn writer(cluster: &RealCluster) -> Result<Writer> {
    let writer = Writer::start(cluster.route()?, 0).await?;
    writer.goes_on(SOON).await?;
    for node in cluster.cluster.status().await?.nodes.iter().filter(|n| n.role == Role::Standby) {
        let client = cluster.route_to(&node.name)?.connect().await?;
        until("the table is on the standby", SOON, async || missing(&client, &[]).await.is_ok()).await?;
    }
    Ok(writer)
}

/// A client at each node that tries to write to that one alone. The table must exist.
pub(crate) fn probes(cluster: &RealCluster) -> Result<Vec<(NodeName, Probe)>> {
    let routes = cluster.nodes().into_iter().zip(1i64..);
    routes.map(|(node, i)| Ok((node.clone(), Probe::start(cluster.route_to(&node)?, i * 1_000_000_000)))).collect()
}

/// Checks that the present primary holds all that was acknowledged.
pub(crate) async fn nothing_lost(cluster: &RealCluster, acks: &[Ack]) -> Result<()> {
    assert!(!acks.is_empty(), "nothing was acknowledged, so nothing could be lost");
    let client = cluster.route()?.connect().await?;
    let lost = missing(&client, acks).await?;
    assert!(lost.is_empty(), "{} of {} acknowledged rows are missing: {lost:?}", lost.len(), acks.len());
    Ok(())
}

/// Waits until another node than this one leads and is primary.
pub(crate) async fn taken_over(cluster: &RealCluster, from: &NodeName) -> Result<NodeName> {
    let status = cluster
        .wait("another node is primary", SOON, |s| {
            s.leader.as_ref().is_some_and(|l| l != from) && s.primary().is_some()
        })
        .await?;
    Ok(status.leader.expect("it was just seen"))
}

/// Waits until all is well with this node a standby; it may never be leader on the way there.
pub(crate) async fn rejoined(cluster: &RealCluster, node: &NodeName) -> Result<()> {
    let all_well = |s: &ClusterStatus| {
        assert_ne!(s.leader.as_ref(), Some(node), "{node} leads again");
        healthy(s, true)
    };
    cluster.wait("the old node follows", SOON, all_well).await.map(drop)
}

/// Stops the probes. No two nodes may have acknowledged at the same time, and this one nothing that was sent
/// since `deposed`. All that was acknowledged comes back.
pub(crate) async fn reigns(probes: Vec<(NodeName, Probe)>, old: &NodeName, deposed: Instant) -> Vec<Ack> {
    let mut reigns = Vec::new();
    for (node, probe) in probes {
        reigns.push((node, probe.stop().await));
    }
    assert_eq!(overlaps(&reigns), [], "two nodes acknowledged writes at the same time");
    for (node, found) in &reigns {
        let late = found.iter().filter(|probed| node == old && probed.sent > deposed).count();
        assert_eq!(late, 0, "{old} acknowledged writes though another node leads");
    }
    reigns.into_iter().flat_map(|(_, found)| found).map(|probed| probed.ack).collect()
}

/// The problems that a node has at present.
pub(crate) fn problems(status: &ClusterStatus, node: &NodeName) -> String {
    status.node(node).map(|n| n.problems.join("\n")).unwrap_or_default()
}

/// What a program said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until a node has a problem that says all this.
pub(crate) async fn complains(cluster: &RealCluster, node: &NodeName, words: &[&str]) -> Result<()> {
    let says = |s: &ClusterStatus| words.iter().all(|word| problems(s, node).contains(word));
    cluster.wait(&format!("a problem of {node} that says {words:?}"), SOON, says).await.map(drop)
}

/// A session of the superuser's, over the node's socket.
pub(crate) async fn superuser(cluster: &RealCluster, node: &NodeName) -> Result<tokio_postgres::Client> {
    let of = &cluster.settings.nodes[node];
    let mut config = tokio_postgres::Config::new();
    config.host_path(of.home.join("run")).port(of.postgres_port).user("postgres").dbname("postgres");
    let (client, connection) = config
        .connect(tokio_postgres::NoTls)
        .await
        .map_err(|e| Error::unavailable("the superuser cannot log in").because(e))?;
    tokio::spawn(connection);
    Ok(client)
}
