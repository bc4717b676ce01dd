//! The acts, in order.

use std::time::Duration;

use pgdock_core::clock::{Clock as _, Moment, SystemClock};
use pgdock_core::cluster::{ClusterStatus, plan};
use pgdock_core::{Error, NodeName, Result};
use rustix::process::{Signal, kill_process};

use super::check::{self, ensure};
use super::restore;
use super::stage::{FAILOVER_ADDRESS, Stage};
use super::writer::{Writer, missing};
use crate::commands::smoke_test;
use crate::local;
use crate::output::progress::during;
use crate::output::table::Table;
use crate::output::{self, status};
use crate::sql::Route;

/// How long the cluster may take to be well after a change.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// How long the writer may take to get on.
const WRITE_BUDGET: Duration = Duration::from_secs(30);
/// Rows that the writer has acknowledged before something is done to the primary.
const WARM: usize = 100;
/// A number of rows that no writer reaches, so that the second begins after the first.
const SECOND: i64 = 1_000_000_000;

/// The whole story.
pub(super) async fn all(stage: &Stage) -> Result<()> {
    let first = bring_up(stage).await?;
    replicate(stage).await?;
    let writer = Writer::start(Route::to_primary(&stage.cluster)?, 0).await?;
    let killed_at = kill(stage, &first, &writer).await?;
    let second = fail_over(stage, &first, &writer, killed_at).await?;
    nothing_lost(stage, writer).await?;
    rejoin(stage, &first, &second).await?;
    switch_back(stage, &first).await?;
    restore::bring_back(stage, &first).await?;
    let seconds = SystemClock.now().since(stage.begun).as_secs_f64();
    output::data(&format!("\nThe story took {seconds:.0} s."))
}

pub(super) fn title(number: u32, title: &str, sentence: &str) -> Result<()> {
    output::data(&format!("\n── {number}. {title} ──\n{sentence}\n"))
}

/// Waits until nothing is wrong, and sees that a node leads.
async fn well(stage: &Stage, leader: &NodeName) -> Result<ClusterStatus> {
    let deadline = SystemClock.now() + PATIENCE;
    loop {
        let status = check::status(stage).await?;
        if status.is_healthy() {
            let primary = status.primary().map(|primary| &primary.name);
            ensure(primary == Some(leader), || format!("another node leads. found={primary:?}, expected={leader}"))?;
            return Ok(status);
        }
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!("the cluster is not well in time:\n{}", status::render(&status))));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn show(status: &ClusterStatus) -> Result<()> {
    output::data(&status::render(status))
}

async fn bring_up(stage: &Stage) -> Result<NodeName> {
    title(
        1,
        "Bring up three nodes",
        "`pgdock init` has written the folder; each node gets an agent, and the agents bring up PostgreSQL.",
    )?;
    let nodes = stage.nodes();
    let first = local::first_node(stage.settings(), &nodes)?;
    let plan = plan::up(false, &first, &nodes, &[]);
    during("bringing up", async |progress| {
        local::bring_up(&stage.context, &stage.cluster, &plan, &nodes, PATIENCE, progress).await
    })
    .await?;
    show(&well(stage, &first).await?)?;
    Ok(first)
}

async fn replicate(stage: &Stage) -> Result<()> {
    title(
        2,
        "Write a million rows, count them everywhere",
        "Made on the primary by shared/tests/insert.sql; each standby counts once it has replayed them.",
    )?;
    let counted = during("writing a million rows", async |_| smoke_test::test(&stage.cluster, None).await).await?;
    let silent: Vec<_> =
        stage.nodes().into_iter().filter(|node| !counted.iter().any(|counted| counted.node == *node)).collect();
    ensure(silent.is_empty(), || format!("these nodes have not counted: {silent:?}"))?;
    ensure(counted.iter().all(|node| node.rows == 1_000_000), || format!("the counts are wrong: {counted:?}"))?;
    check::status(stage).await?;
    output::data(&smoke_test::table(&counted).to_string())
}

async fn kill(stage: &Stage, victim: &NodeName, writer: &Writer) -> Result<Moment> {
    title(
        3,
        "Kill the primary",
        "While an application writes a row every few milliseconds: kill -9 of the agent and of PostgreSQL.",
    )?;
    writer.writes_on(Moment::default(), WARM, WRITE_BUDGET).await?;
    let node = stage.node(victim)?;
    let agent = local::agent_pid(node).ok_or_else(|| Error::internal("the primary's agent does not run"))?;
    let postmaster = local::postmaster_pid(node).ok_or_else(|| Error::internal("the primary does not run"))?;
    check::status(stage).await?;
    let rows = writer.count();
    let killed_at = SystemClock.now();
    for pid in [agent, postmaster] {
        kill_process(pid, Signal::KILL).map_err(|e| Error::internal("cannot kill the primary").because(e))?;
    }
    let mut table = Table::new(["Node", "Killed", "Process"]);
    table.row([victim.to_string(), "agent".into(), agent.as_raw_nonzero().to_string()]);
    table.row([victim.to_string(), "postmaster".into(), postmaster.as_raw_nonzero().to_string()]);
    output::data(&format!("{table}\n{rows} rows were acknowledged before."))?;
    Ok(killed_at)
}

async fn fail_over(stage: &Stage, old: &NodeName, writer: &Writer, killed_at: Moment) -> Result<NodeName> {
    title(
        4,
        "A standby takes over by itself",
        "The standbys agree on the one that holds every acknowledged commit; the failover script is told of it.",
    )?;
    during("waiting for the first write elsewhere", async |_| writer.writes_on(killed_at, WARM, WRITE_BUDGET).await)
        .await?;
    let gap = writer.longest_gap(killed_at);
    let status = check::status(stage).await?;
    let new = status.primary().map(|node| node.name.clone()).ok_or_else(|| Error::internal("nobody is primary"))?;
    ensure(new != *old, || format!("the node that was killed is primary. node={old}"))?;
    ensure(status.node(old).is_some_and(|node| !node.reachable), || format!("{old} answers, though it was killed"))?;
    let line = address_at(stage, &new).await?;
    show(&status)?;
    let mut table = Table::new(["What", "Seen"]);
    table.row(["new primary".into(), new.to_string()]);
    table.row(["write gap".into(), format!("{:.0} ms", gap.as_secs_f64() * 1e3)]);
    table.row([format!("failover address {FAILOVER_ADDRESS}"), format!("at {new}")]);
    table.row(["failover script's log".into(), line]);
    output::data(&table.to_string())?;
    Ok(new)
}

/// Waits until the failover script was told of a node. Returns what it noted.
async fn address_at(stage: &Stage, node: &NodeName) -> Result<String> {
    let deadline = SystemClock.now() + PATIENCE;
    loop {
        let (at, mut log) = stage.failover_notes();
        if at.as_deref() == Some(node.as_str())
            && let Some(line) = log.pop()
        {
            ensure(line.contains(&format!(" node={node} ")), || {
                format!("the failover script noted another node: {line}")
            })?;
            return Ok(line);
        }
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!(
                "the failover script was not called with the new primary. node={node}, found={}",
                at.unwrap_or_default()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn nothing_lost(stage: &Stage, writer: Writer) -> Result<()> {
    title(
        5,
        "No acknowledged row is missing",
        "What the application was told is committed is looked up on the new primary. \
         A row of unknown outcome may be there or not.",
    )?;
    lost_nothing(stage, writer).await?;
    check::status(stage).await.map(drop)
}

async fn lost_nothing(stage: &Stage, writer: Writer) -> Result<()> {
    let (acknowledged, sent) = writer.stop().await;
    let client = Route::to_primary(&stage.cluster)?.connect().await?;
    let missing = missing(&client, &acknowledged).await?;
    let mut table = Table::new(["Sent", "Acknowledged", "Missing"]);
    table.row([sent.to_string(), acknowledged.len().to_string(), missing.len().to_string()]);
    output::data(&table.to_string())?;
    ensure(missing.is_empty(), || format!("acknowledged rows are missing: {missing:?}"))
}

async fn rejoin(stage: &Stage, old: &NodeName, new: &NodeName) -> Result<()> {
    title(
        6,
        "The old primary comes back",
        "Its agent is started, nothing else; it finds its place as a standby by itself.",
    )?;
    during("waiting for the old primary to follow", async |progress| {
        local::launch(&stage.context, &stage.cluster, old).await?;
        local::settled(&stage.cluster, &stage.nodes(), PATIENCE, progress).await
    })
    .await?;
    let status = well(stage, new).await?;
    let upstream = status.node(old).and_then(|node| node.upstream.clone());
    ensure(upstream.as_ref() == Some(new), || format!("{old} follows another node. upstream={upstream:?}"))?;
    show(&status)
}

async fn switch_back(stage: &Stage, first: &NodeName) -> Result<()> {
    title(7, "Switch back", "A planned hand over to the first primary, while an application writes again.")?;
    let writer = Writer::start(Route::to_primary(&stage.cluster)?, SECOND).await?;
    writer.writes_on(Moment::default(), WARM, WRITE_BUDGET).await?;
    let begun = SystemClock.now();
    during("handing the lead over", async |_| stage.cluster.switchover().to(first.as_str()).await).await?;
    let ended = SystemClock.now();
    writer.writes_on(ended, WARM, WRITE_BUDGET).await?;
    let gap = writer.longest_gap(begun);
    let mut table = Table::new(["What", "Seen"]);
    table.row(["primary".into(), first.to_string()]);
    table.row(["write gap".into(), format!("{:.0} ms", gap.as_secs_f64() * 1e3)]);
    output::data(&format!("{table}\n"))?;
    lost_nothing(stage, writer).await?;
    address_at(stage, first).await?;
    let status = during("waiting for the others to follow", async |_| well(stage, first).await).await?;
    output::data("")?;
    show(&status)
}
