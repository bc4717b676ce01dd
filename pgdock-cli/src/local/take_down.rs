//! Takes nodes down: standbys first, the leader last.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use pgdock_core::agent::deadman;
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::cluster::plan::{Plan, Step};
use pgdock_core::settings::NodeSettings;
use pgdock_core::{Cluster, Error, NodeName, Result, Settings};
use rustix::process::Signal;

use super::{agent_pid, agents_of, is_up, kill_node, postmaster_at, postmaster_pid};
use crate::output::progress::Progress;

const POLL: Duration = Duration::from_millis(50);
/// How much longer than PostgreSQL's stop a node may take to be gone.
const GRACE: Duration = Duration::from_secs(15);
/// How long processes may take to be gone after they were killed.
const KILL_BUDGET: Duration = Duration::from_secs(10);

/// Does a plan that [`pgdock_core::cluster::plan::down`] made.
pub(crate) async fn take_down(cluster: &Cluster, plan: &Plan, progress: &Progress) -> Result<()> {
    let leader = cluster.document().await.ok().flatten().and_then(|record| record.leader);
    let force = plan.steps.iter().any(|step| matches!(step, Step::Kill { .. }));
    hand_over(cluster, plan, progress).await?;
    let stops = plan.steps.iter().filter_map(|step| match step {
        Step::StopAgent { node } => Some(node),
        _ => None,
    });
    let (last, first): (Vec<_>, Vec<_>) = stops.partition(|node| leader.as_ref() == Some(*node));
    for batch in [first, last] {
        if batch.is_empty() {
            continue;
        }
        let names: Vec<_> = batch.iter().map(|node| node.as_str()).collect();
        progress.say(format!("stopping {}", names.join(", ")));
        for result in join_all(batch.iter().map(|node| stop(cluster, node, force))).await {
            result?;
        }
    }
    Ok(())
}

/// Hands the lead over, where the plan says so: to a node that goes on.
pub(crate) async fn hand_over(cluster: &Cluster, plan: &Plan, progress: &Progress) -> Result<()> {
    let heir = plan.steps.iter().find_map(|step| match step {
        Step::TakeLead { node: Some(node), .. } => Some(node),
        _ => None,
    });
    if let Some(heir) = heir {
        progress.say(format!("handing the lead to {heir}"));
        cluster.switchover().to(heir.as_str()).await?;
    }
    Ok(())
}

/// Kills whatever runs of any node, and waits until it is gone.
pub(crate) async fn take_down_by_force(settings: &Settings) -> Result<()> {
    for node in settings.nodes.values() {
        kill_node(node);
    }
    for (name, node) in &settings.nodes {
        gone(name, node, KILL_BUDGET, kill_node).await?;
    }
    Ok(())
}

async fn stop(cluster: &Cluster, name: &NodeName, force: bool) -> Result<()> {
    let node = cluster.settings().node(name)?;
    let budget = cluster.settings().failover.stop_budget + GRACE;
    let told = if agent_pid(node).is_some() { cluster.stop(name, false).await } else { fast_stop(node) };
    let ended = match told {
        Err(error) if error.outcome_known() => Err(error),
        // Its last word may be lost when it ends.
        _ => gone(name, node, budget, |_| ()).await,
    };
    match ended {
        Err(_) if force => {
            kill_node(node);
            gone(name, node, KILL_BUDGET, kill_node).await
        }
        Err(error) if is_up(node) => Err(error.hint("`--force` kills what does not stop")),
        _ => Ok(()),
    }
}

/// A PostgreSQL whose agent is gone is stopped as `pg_ctl stop -m fast` does.
fn fast_stop(node: &NodeSettings) -> Result<()> {
    if !deadman::any_alive(&node.home.join("data")) {
        return Ok(());
    }
    match postmaster_pid(node) {
        Some(pid) => rustix::process::kill_process(pid, Signal::INT)
            .map_err(|e| Error::unavailable("PostgreSQL cannot be told to stop").because(e)),
        None => Ok(()),
    }
}

/// Stops what runs of a node's folder in order, and waits until nothing does.
pub(crate) async fn stop_at(home: &Path, stop_budget: Duration) -> Result<()> {
    let data = home.join("data");
    let runs = || !agents_of(home).is_empty() || deadman::any_alive(&data);
    for pid in agents_of(home) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    let deadline = SystemClock.now() + stop_budget + GRACE;
    while runs() {
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!("the node still runs. home={}", home.display())));
        }
        if agents_of(home).is_empty()
            && let Some(pid) = postmaster_at(home)
        {
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until nothing of a node runs, doing something at each look.
async fn gone(name: &NodeName, node: &NodeSettings, budget: Duration, also: impl Fn(&NodeSettings)) -> Result<()> {
    let deadline = SystemClock.now() + budget;
    while is_up(node) {
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!("the node still runs. node={name}")));
        }
        also(node);
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
