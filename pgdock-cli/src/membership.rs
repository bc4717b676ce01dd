//! A node that joins a running cluster, or leaves it: all agents learn of it, one after the other, and PostgreSQL goes on.

use std::time::Duration;

use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::{Cluster, Error, ErrorKind, NodeName, Result};

use crate::commands::config;
use crate::output::progress::Progress;

/// How long an agent may take to begin anew, what it is in the midst of included.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Brings the settings, as they are in the folder now, to the agents of these nodes, and has each begin anew that knows of
/// other nodes than there are: standbys first, the leader last, or first where `leader_first`. Those that do not answer are
/// told of: they read the settings when they start.
pub(crate) async fn tell(
    cluster: &Cluster,
    nodes: &[NodeName],
    leader_first: bool,
    progress: &Progress,
) -> Result<Vec<NodeName>> {
    config::bring(cluster.settings(), nodes).await?;
    let leader = cluster.document().await?.and_then(|record| record.leader);
    let mut ordered: Vec<_> = nodes.iter().collect();
    ordered.sort_by_key(|node| (Some(*node) == leader.as_ref()) != leader_first);
    let mut silent = Vec::new();
    for node in ordered {
        progress.say(format!("the agent of {node} begins anew"));
        if !begun(cluster, node).await? {
            silent.push(node.clone());
        }
    }
    Ok(silent)
}

/// Has one agent begin anew, and waits until it knows of the nodes that there are. False where it did not answer at first.
async fn begun(cluster: &Cluster, node: &NodeName) -> Result<bool> {
    let agent = cluster.agent(node)?;
    let wanted: Vec<&NodeName> = cluster.settings().nodes.keys().collect();
    let deadline = SystemClock.now() + LIMIT;
    let mut told = false;
    loop {
        match agent.status().await {
            Ok(status) if status.members.iter().eq(wanted.iter().copied()) => return Ok(true),
            Ok(_) if !told => match cluster.begin_anew(node).await {
                Ok(()) => told = true,
                // It is in the midst of something, or its last word was lost.
                Err(e) if e.kind() == ErrorKind::Conflict || !e.outcome_known() => {}
                Err(e) if e.kind() == ErrorKind::NeedsOperator && SystemClock.now() < deadline => {}
                Err(e) => return Err(e),
            },
            Err(_) if !told => return Ok(false),
            _ => {}
        }
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!("the agent does not begin anew in time. node={node}"))
                .hint("run the command again: it goes on where it was")
                .hint(format!("`pgdock node logs {node}` shows what its agent says")));
        }
        tokio::time::sleep(POLL).await;
    }
}
