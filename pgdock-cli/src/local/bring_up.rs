//! Brings nodes up: starts what does not run, founds the cluster where it is new, waits until all is well.

use std::time::Duration;

use futures_util::future::join_all;
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::cluster::plan::{Plan, Step};
use pgdock_core::cluster::{ClusterStatus, NodeView};
use pgdock_core::report::State;
use pgdock_core::settings::NodeSettings;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Cluster, Error, NodeName, Result, Role, Settings};

use super::{is_up, launch};
use crate::context::Context;
use crate::output::progress::Progress;

const POLL: Duration = Duration::from_millis(200);

/// The node that founds a cluster: of these the one with the highest priority that may lead.
pub(crate) fn first_node(settings: &Settings, nodes: &[NodeName]) -> Result<NodeName> {
    let rank = |(name, node): &(&NodeName, &NodeSettings)| (node.priority, std::cmp::Reverse((*name).clone()));
    let eligible = settings.nodes.iter().filter(|(name, node)| node.failover && nodes.contains(name));
    eligible.max_by_key(rank).map(|(name, _)| name.clone()).ok_or_else(|| {
        Error::invalid("none of these nodes may lead: a cluster cannot be founded on them")
            .hint("name a node without `failover = false`")
    })
}

/// Does a plan that [`pgdock_core::cluster::plan::up`] made for these nodes, and waits until they are well,
/// also where nothing was to be done.
pub(crate) async fn bring_up(
    context: &Context,
    cluster: &Cluster,
    plan: &Plan,
    nodes: &[NodeName],
    patience: Duration,
    progress: &Progress,
) -> Result<()> {
    let starts = plan.steps.iter().filter_map(|step| match step {
        Step::StartAgent { node } => Some(node),
        _ => None,
    });
    progress.say("starting the agents");
    let launched = join_all(starts.map(|node| launch(context, cluster, node))).await;
    launched.into_iter().collect::<Result<Vec<_>>>()?;
    let first = plan.steps.iter().find_map(|step| match step {
        Step::Bootstrap { node } => Some(node),
        _ => None,
    });
    if let Some(node) = first {
        progress.say(format!("founding the cluster on {node}"));
        cluster.bootstrap(node).await?;
    }
    settled(cluster, nodes, patience, progress).await.map(drop)
}

/// Waits until there is a primary, these nodes stream from it, and, in `sync`, one of them guards commits.
pub(crate) async fn settled(
    cluster: &Cluster,
    nodes: &[NodeName],
    patience: Duration,
    progress: &Progress,
) -> Result<ClusterStatus> {
    let deadline = SystemClock.now() + patience;
    loop {
        let status = cluster.status().await?;
        let Some(missing) = missing(&status, nodes) else { return Ok(status) };
        let died = nodes.iter().find(|name| cluster.settings().node(name).is_ok_and(|node| !is_up(node)));
        if let Some(node) = died {
            let log = cluster.settings().node(node)?.home.join("logs").join("agent.log");
            return Err(Error::unavailable(format!("the agent has ended. node={node}"))
                .hint(format!("the log is in {}", log.display())));
        }
        if SystemClock.now() >= deadline {
            let seconds = patience.as_secs();
            return Err(Error::unavailable(format!("the cluster is not well in time: {missing}. seconds={seconds}"))
                .hint("it goes on by itself; `pgdock status` shows what is in the way")
                .hint("`pgdock events --since 5m` tells what was tried, logs/agent.log of a node in detail"));
        }
        progress.say(format!("waiting: {missing}"));
        tokio::time::sleep(POLL).await;
    }
}

/// What is still missing, in words.
fn missing(status: &ClusterStatus, nodes: &[NodeName]) -> Option<String> {
    let Some(primary) = status.primary() else {
        let standing = nodes.iter().filter_map(|name| status.node(name)).map(stands).collect::<Vec<_>>();
        return Some(format!("there is no primary yet ({})", standing.join(", ")));
    };
    let late = nodes
        .iter()
        .filter_map(|name| status.node(name))
        .find(|node| node.name != primary.name && !(node.role == Role::Standby && node.state == State::Streaming));
    if let Some(node) = late {
        return Some(stands(node));
    }
    let alone = nodes.iter().all(|name| *name == primary.name);
    let unguarded = status.durability.is_some_and(Durability::is_guarded) && status.sync_set.is_empty() && !alone;
    unguarded.then(|| "no standby guards commits yet".to_owned())
}

fn stands(node: &NodeView) -> String {
    // That it does not stream, its state says already.
    match node.problems.iter().find(|problem| !problem.starts_with("it does not stream")) {
        Some(problem) => format!("{} is {}: {problem}", node.name, node.state),
        None => format!("{} is {}", node.name, node.state),
    }
}
