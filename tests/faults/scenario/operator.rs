//! What operators do, and what they are told.

use std::time::Duration;

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::event::EventKind;
use pgdock_core::{Error, Lsn, Result, Role};
use rustix::process::Pid;
use tokio::task::JoinSet;

use super::Extent;
use crate::faults::campaign::Campaign;
use crate::faults::fault::Part;
use crate::real::Route;
use crate::signals::stop;

/// How long a writer in bulk waits between two batches.
const BETWEEN_BATCHES: Duration = Duration::from_millis(100);

/// What is shown where no standby guards commits.
const DEGRADED: &str = "no standby guards commits: they are held by the primary alone";

/// **6. The standby dies, then the primary; the standby is back alone.** Writes resume without the standby, and
/// `pgdock status` says that nobody guards them. What the primary acknowledged alone dies with it: the standby does not
/// promote itself, `pgdock failover` refuses to do it, and with `--allow-data-loss` it does, and names the range that is
/// lost. What the old primary is rewound by lies in that range.
pub(super) async fn standby_back_alone(on: &mut Campaign) -> Result<()> {
    let primary = on.ground.leader().await;
    let standby = on.other(&primary);
    let standby_lost = on.ground.history.hurt(standby.as_str(), "kill -9 machine");
    on.ground.kill(&standby, Part::Machine).await;
    on.gets_on("without the standby").await;
    let degraded = |s: &ClusterStatus| {
        s.sync_set.is_empty() && s.node(&primary).is_some_and(|n| n.problems.iter().any(|p| p == DEGRADED))
    };
    on.wait("it is known that nobody guards commits", degraded).await?;
    let shown = on.ground.cluster.pgdock(&["status"]).await?;
    let text = String::from_utf8_lossy(&shown.stdout);
    on.expect(text.contains(DEGRADED) && shown.status.code() == Some(3), format!("not shown as degraded: {shown:?}"));
    // These are on the primary's disk, and nowhere else.
    on.gets_on("with nobody who guards commits").await;

    let primary_lost = on.ground.history.hurt(primary.as_str(), "kill -9 machine");
    on.ground.kill(&primary, Part::Machine).await;
    on.ground.revive(&standby);
    on.ground.history.healed(standby_lost);
    let back = |s: &ClusterStatus| s.node(&standby).is_some_and(|n| n.reachable && n.role == Role::Standby);
    on.wait("the standby is back", back).await?;
    // Long enough for a takeover, were there one.
    tokio::time::sleep(on.ttl() * 3).await;
    let status = on.status().await?;
    let alone = status.leader.as_ref() == Some(&primary) && status.nodes.iter().all(|n| n.role != Role::Primary);
    on.expect(alone, format!("a standby that lacks acknowledged commits promotes itself: {status:?}"));
    let refused = on.ground.cluster.pgdock(&["failover", "--to", standby.as_str()]).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    let with_reason = refused.status.code() == Some(4) && said.contains("acknowledged commits may be missing here");
    on.expect(with_reason, format!("the failover is not refused, or without a reason: {refused:?}"));

    on.forced = true;
    let forced = on.ground.cluster.pgdock(&["failover", "--to", standby.as_str(), "--allow-data-loss"]).await?;
    on.expect(forced.status.success(), format!("the failover cannot be forced: {forced:?}"));
    let named = named_range(on, &standby).await?;
    on.gets_on("though the failover was forced").await;
    on.ground.revive(&primary);
    on.ground.history.healed(primary_lost);
    on.well().await?;
    on.follows(&primary).await?;
    let lost = on.diverged.values().find(|report| report.node == primary).map(|report| (report.fork, report.end));
    let holds = named.zip(lost).is_some_and(|((from, to), (fork, end))| fork <= from && from < to && to <= end);
    on.expect(holds, format!("what is named as lost is not what was lost: {named:?}, {lost:?}"));
    Ok(())
}

/// The range of WAL that a forced failover named as lost: from where the node holds nothing, to where the old leader
/// was last known to be.
async fn named_range(on: &Campaign, node: &pgdock_core::NodeName) -> Result<Option<(Lsn, Lsn)>> {
    let events = on.events().await?;
    let told = events.iter().filter(|e| e.node == *node && e.kind == EventKind::Problem);
    Ok(told.rev().find_map(|e| {
        let (_, rest) = e.message.split_once("forced failover: commits between ")?;
        let (from, rest) = rest.split_once(" on timeline ")?;
        let (to, _) = rest.split_once("(last known ")?.1.split_once(')')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    }))
}

/// **10. A switchover whose old primary does not stop within its budget.** A backend that does not run keeps PostgreSQL
/// from stopping. The switchover fails and says so, the old primary goes on in the same reign and on its timeline,
/// and the next switchover goes through.
pub(super) async fn switchover_rolled_back(on: &mut Campaign) -> Result<()> {
    let before = on.reign().await?;
    let client = on.ground.cluster.route_to(&before.leader)?.connect().await?;
    let failed = |e: tokio_postgres::Error| Error::unavailable("a statement failed").because(e);
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(failed)?.get(0);
    let span = on.ground.history.hurt(before.leader.as_str(), "a backend stopped, then a switchover");
    stop(Pid::from_raw(backend).expect("a pid"));
    let told = on.ground.cluster.pgdock(&["switchover"]).await?;
    on.ground.history.healed(span);
    let said = String::from_utf8_lossy(&told.stderr);
    let undone = told.status.code() == Some(1) && said.contains("the old primary goes on, and nothing has changed");
    on.expect(undone, format!("the switchover is not said to be undone: {told:?}"));
    on.gets_on("after the switchover was undone").await;
    on.well().await?;
    on.still_reigns(&before, "though the switchover was undone").await?;

    let span = on.ground.history.hurt(before.leader.as_str(), "switchover");
    let done = on.ground.cluster.pgdock(&["switchover"]).await?;
    on.ground.history.healed(span);
    on.expect(done.status.success(), format!("the next switchover fails: {done:?}"));
    on.well().await?;
    on.follows(&before.leader).await
}

/// Writes rows in bulk to whoever is primary, for ever: some megabytes of WAL a second. Without them, fifty
/// timelines would lie in one and the same segment, each with its own file of it, and those are not removed.
async fn load(route: Route) {
    let batch = "CREATE TABLE IF NOT EXISTS ballast (filler text);
                 INSERT INTO ballast SELECT repeat(md5(n::text), 30) FROM generate_series(1, 300) n;
                 TRUNCATE ballast";
    loop {
        let Ok(client) = route.connect().await else {
            tokio::time::sleep(BETWEEN_BATCHES).await;
            continue;
        };
        while client.batch_execute(batch).await.is_ok() {
            tokio::time::sleep(BETWEEN_BATCHES).await;
        }
    }
}

/// **15. One switchover after the other under load.** Each one hands the lead to the other node and begins one reign.
/// Rows are written one by one, and in bulk. By the verdict, all acknowledgements of a timeline are of one node and lie
/// before those of the next, and the two nodes have one history in the end: there was no fork.
pub(super) async fn switchovers(on: &mut Campaign, extent: &Extent) -> Result<()> {
    let before = on.reign().await?;
    // Ends with this.
    let mut bulk = JoinSet::new();
    bulk.spawn(load(on.ground.cluster.route()?));
    for round in 1..=extent.switchovers {
        let from = on.ground.leader().await;
        let span = on.ground.history.hurt(from.as_str(), "switchover");
        let done = on.ground.cluster.cluster.switchover().await;
        on.ground.history.healed(span);
        match done {
            Ok(heir) => on.expect(heir != from, format!("switchover {round} left the lead with {from}")),
            Err(error) => on.fail(format!("switchover {round} failed: {}", error.chain())),
        }
        on.well().await?;
    }
    let after = on.reign().await?;
    let reigns = after.term.0 - before.term.0;
    on.expect(reigns == u64::from(extent.switchovers), format!("{} switchovers, {reigns} reigns", extent.switchovers));
    Ok(())
}
