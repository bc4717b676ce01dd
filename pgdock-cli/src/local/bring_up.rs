//! Brings nodes up: starts what does not run, founds the cluster where it is new, waits until all is well.

use std::time::Duration;

use futures_util::future::join_all;
use pgdock_core::cluster::ClusterStatus;
use pgdock_core::cluster::plan::{Plan, Step};
use pgdock_core::settings::NodeSettings;
use pgdock_core::{Cluster, Error, NodeName, Result, Settings};

use super::{is_up, launch};
use crate::context::Context;
use crate::output::progress::Progress;
use crate::wait;

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

/// Waits until these nodes are well, or the agent of one of them has ended.
pub(crate) async fn settled(
    cluster: &Cluster,
    nodes: &[NodeName],
    patience: Duration,
    progress: &Progress,
) -> Result<ClusterStatus> {
    wait::until_well(cluster, nodes, patience, progress, |node| {
        let node_settings = cluster.settings().node(node)?;
        if is_up(node_settings) {
            return Ok(());
        }
        let log = node_settings.home.join("logs").join("agent.log");
        Err(Error::unavailable(format!("the agent has ended. node={node}"))
            .hint(format!("the log is in {}", log.display())))
    })
    .await
}
