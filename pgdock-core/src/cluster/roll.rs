//! Restarting a cluster's PostgreSQL while it serves: standbys one by one, the primary by handing over.

use std::time::Duration;

use super::{Cluster, ClusterStatus, NodeView};
use crate::report::State;
use crate::{Error, Lsn, NodeName, Result};

/// How long a node may take until it streams again.
const LIMIT: Duration = Duration::from_secs(300);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(100);

/// Who is restarted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RollFirst {
    /// The standbys, so that the primary can hand over to one.
    #[default]
    Standbys,
    /// The primary, in its place: where settings are lowered of which a standby must have no less than its primary.
    Primary,
}

impl Cluster {
    /// Restarts the PostgreSQL of these nodes, one after the other: each standby is waited for until it streams again; the
    /// primary comes last, after it has handed over to one of them. Or it comes first, in its place, and the standbys once they
    /// have replayed what it is set to. `say` is told what goes on.
    ///
    /// # Errors
    /// `NotReady` when the cluster is not well before, or a node does not stream again in five minutes; `NeedsOperator` when
    /// a node went back to its bundle before, since PostgreSQL did not start with the new one. The others are left as
    /// they are then.
    pub async fn roll(&self, nodes: &[NodeName], order: RollFirst, say: impl Fn(String)) -> Result<()> {
        let Some(first) = nodes.first() else { return Ok(()) };
        let status = self.status().await?;
        let leader = super::orders::leader_of(&status)?;
        if let Some(ill) = status.nodes.iter().find(|node| node.name != leader && node.state != State::Streaming) {
            return Err(Error::not_ready(format!(
                "a standby does not stream, so nothing is restarted. node={}, state={}, first={first}",
                ill.name, ill.state
            ))
            .hint("`pgdock status` shows why; `pgdock restart N` restarts one node all the same"));
        }
        let primary_first = order == RollFirst::Primary && nodes.contains(&leader);
        if primary_first {
            say(format!("restarting {leader}"));
            let before = bundle_of(&status, &leader);
            self.restart(&leader).await?;
            self.await_node(&leader, before, |n| n.state == State::Running).await?;
        }
        let set = if primary_first { self.end_of(&leader).await? } else { None };
        for node in nodes.iter().filter(|node| **node != leader) {
            if let Some(set) = set {
                say(format!("waiting until {node} has replayed what {leader} is set to"));
                self.await_replay(node, &leader, set).await?;
            }
            say(format!("restarting {node}"));
            let before = bundle_of(&status, node);
            self.restart(node).await?;
            self.await_node(node, before, |n| n.state == State::Streaming).await?;
        }
        if primary_first || !nodes.contains(&leader) {
            return Ok(());
        }
        let before = bundle_of(&status, &leader);
        if status.nodes.len() == 1 {
            say(format!("restarting {leader}"));
            self.restart(&leader).await?;
            return self.await_node(&leader, before, |n| n.state == State::Running).await;
        }
        // Handing over stops it, and starts it as a standby.
        say(format!("{leader} hands over"));
        let heir = self.switchover().await?;
        say(format!("{heir} leads; waiting for {leader} to follow"));
        self.await_node(&leader, before, |n| n.state == State::Streaming).await
    }

    /// Up to where a node's WAL is on disk.
    async fn end_of(&self, node: &NodeName) -> Result<Option<Lsn>> {
        Ok(self.status().await?.node(node).and_then(|n| n.lsn))
    }

    /// Waits until a standby has replayed up to a position of the primary's WAL.
    async fn await_replay(&self, node: &NodeName, leader: &NodeName, to: Lsn) -> Result<()> {
        let work = async {
            loop {
                let status = self.status().await?;
                let head = status.node(leader).and_then(|n| n.lsn).unwrap_or_default();
                let lag = status.node(node).filter(|n| n.reachable).and_then(|n| n.replay_lag_bytes);
                if lag.is_some_and(|lag| head.ahead_of(to) >= lag && head >= to) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(LIMIT, work).await {
            Ok(result) => result,
            Err(_) => {
                Err(Error::not_ready(format!("the standby does not replay in time. node={node}, limit={LIMIT:?}"))
                    .hint("`pgdock status` shows how it stands; it and the nodes after it were not restarted"))
            }
        }
    }

    /// Waits until a node is well again, and sees that it still has the same bundle.
    async fn await_node(
        &self,
        node: &NodeName,
        bundle: Option<String>,
        well: impl Fn(&NodeView) -> bool,
    ) -> Result<()> {
        let work = async {
            loop {
                let status = self.status().await?;
                if let Some(found) = status.node(node).filter(|found| found.reachable && well(found)) {
                    let gone_back = found.problems.iter().any(|problem| problem.contains("this node went back to"));
                    if found.bundle == bundle && !gone_back {
                        return Ok(());
                    }
                    let problem = found.problems.first().cloned().unwrap_or_default();
                    return Err(Error::needs_operator(format!(
                        "the node went back to its bundle before; the others were not restarted. node={node}, bundle={}, \
                         problem={problem}",
                        found.bundle.clone().unwrap_or_default()
                    ))
                    .hint("correct the bundle, and update again; `pgdock config rollback` takes the others back"));
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(LIMIT, work).await {
            Ok(result) => result,
            Err(_) => {
                Err(Error::not_ready(format!("the node is not well again in time. node={node}, limit={LIMIT:?}"))
                    .hint("`pgdock status` shows how it stands; the nodes after it were not restarted"))
            }
        }
    }
}

fn bundle_of(status: &ClusterStatus, node: &NodeName) -> Option<String> {
    status.node(node).and_then(|node| node.bundle.clone())
}
