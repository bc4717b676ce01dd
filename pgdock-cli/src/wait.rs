//! Waits until a cluster is well, and says what is in the way.

use std::time::Duration;

use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::cluster::{ClusterStatus, NodeView};
use pgdock_core::report::State;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Cluster, Error, NodeName, Result, Role};

use crate::output::progress::Progress;

const POLL: Duration = Duration::from_millis(200);

/// Waits until there is a primary, these nodes stream from it, and, in `sync` and `quorum`, one of them guards commits.
/// Ends early where `goes_on` says that it is in vain.
pub(crate) async fn until_well(
    cluster: &Cluster,
    nodes: &[NodeName],
    patience: Duration,
    progress: &Progress,
    goes_on: impl Fn(&NodeName) -> Result<()>,
) -> Result<ClusterStatus> {
    let deadline = SystemClock.now() + patience;
    loop {
        let status = cluster.status().await?;
        let Some(missing) = missing(&status, nodes) else { return Ok(status) };
        nodes.iter().try_for_each(&goes_on)?;
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
