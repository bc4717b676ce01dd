//! What an operator can have done: each order goes to the one agent that can do it.

use std::pin::Pin;
use std::time::Duration;

use super::{Cluster, ClusterStatus};
use crate::agent::api::OrderRequest;
use crate::decide::Verdict;
use crate::{Error, NodeName, Result, Role};

/// How long an order may take that only changes the document, or reads a file.
const QUICK: Duration = Duration::from_secs(30);
/// How long PostgreSQL may take to be initialised, or to restart, replay included.
const SLOW: Duration = Duration::from_secs(300);
/// How many rewind budgets the way back into the cluster is waited for: to rewind, to catch up, and to copy
/// where that failed. A copy of much data goes on after the wait has ended.
const RUNGS: u32 = 3;

/// A hand over of the lead, to be awaited.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Switchover {
    cluster: Cluster,
    to: Option<String>,
}

impl Switchover {
    /// To whom. Without it the leader chooses the best of those that can.
    pub fn to(mut self, node: impl Into<String>) -> Self {
        self.to = Some(node.into());
        self
    }

    async fn run(self) -> Result<NodeName> {
        let cluster = &self.cluster;
        let to = match self.to {
            Some(name) => Some(cluster.named(&name)?),
            None => None,
        };
        let leader = cluster.leader().await?;
        // One that is undone ends when the old primary is back.
        let wait = cluster.settings().failover.stop_budget * 2 + QUICK * 2;
        cluster.order(&leader, OrderRequest::Switchover { to: to.clone() }, wait).await?;
        match to {
            Some(heir) => Ok(heir),
            None => cluster.leader().await,
        }
    }
}

impl IntoFuture for Switchover {
    type Output = Result<NodeName>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A failover by hand, to be awaited.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Failover {
    cluster: Cluster,
    node: NodeName,
    allow_data_loss: bool,
}

impl Failover {
    /// Whether the node may take over although acknowledged commits may be missing there. The range that is
    /// lost is named in its problems.
    pub fn allow_data_loss(mut self, allow: bool) -> Self {
        self.allow_data_loss = allow;
        self
    }

    async fn run(self) -> Result<()> {
        let failover = &self.cluster.settings().failover;
        let wait = failover.stop_budget * 2 + failover.ttl * 2;
        let order = OrderRequest::Failover { allow_data_loss: self.allow_data_loss };
        self.cluster.order(&self.node, order, wait).await
    }
}

impl IntoFuture for Failover {
    type Output = Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl Cluster {
    /// Hands the lead over, without loss. Answers with the new primary.
    ///
    /// # Errors
    /// `NeedsOperator` when the leader refuses, with the reason; `NotReady` when nobody leads. Where the
    /// outcome is unknown, look at the status first.
    pub fn switchover(&self) -> Switchover {
        Switchover { cluster: self.clone(), to: None }
    }

    /// Makes a node the primary, though the leader does not hand over.
    ///
    /// # Errors
    /// `NeedsOperator` when the leader is alive, or acknowledged commits may be missing on the node.
    pub fn failover(&self, node: &NodeName) -> Failover {
        Failover { cluster: self.clone(), node: node.clone(), allow_data_loss: false }
    }

    /// Founds the cluster: makes a data directory on this node, and the witness's document. The other nodes
    /// copy it by themselves.
    ///
    /// # Errors
    /// `NeedsOperator` when there is a cluster or a data directory already.
    pub async fn bootstrap(&self, node: &NodeName) -> Result<()> {
        self.order(node, OrderRequest::Bootstrap, SLOW).await
    }

    /// Founds the cluster on a data directory that another program looked after, and that was shut down in order as a
    /// primary. It goes on on its timeline. The other nodes' data directories follow it.
    ///
    /// # Errors
    /// `NeedsOperator` when there is a cluster already, or the data directory is not such a one.
    pub async fn adopt(&self, node: &NodeName, system_identifier: u64) -> Result<()> {
        self.order(node, OrderRequest::Adopt { system_identifier }, SLOW).await
    }

    /// Stops automatic decisions in the whole cluster.
    ///
    /// # Errors
    /// `NotReady` when nobody leads.
    pub async fn pause(&self) -> Result<()> {
        let leader = self.leader().await?;
        self.order(&leader, OrderRequest::Pause, QUICK).await
    }

    /// Lets automatic decisions go on.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<()> {
        let leader = self.leader().await?;
        self.order(&leader, OrderRequest::Resume, QUICK).await
    }

    /// Restarts a node's PostgreSQL in its present role.
    ///
    /// # Errors
    /// What the agent says.
    pub async fn restart(&self, node: &NodeName) -> Result<()> {
        self.order(node, OrderRequest::Restart, SLOW).await
    }

    /// Has a node's PostgreSQL read its configuration again.
    ///
    /// # Errors
    /// `NeedsOperator` when PostgreSQL does not run there.
    pub async fn reload(&self, node: &NodeName) -> Result<()> {
        self.order(node, OrderRequest::Reload, QUICK).await
    }

    /// Makes a standby's data directory anew, as a copy. The old one is moved aside.
    ///
    /// # Errors
    /// `NeedsOperator` when the node leads, or there is nothing to copy.
    pub async fn reclone(&self, node: &NodeName) -> Result<()> {
        let wait = self.settings().failover.rejoin_budget * RUNGS;
        self.order(node, OrderRequest::Reclone, wait).await
    }

    /// Has a node follow the leader, by rewind or copy if it must be.
    ///
    /// # Errors
    /// `NeedsOperator` when the node leads.
    pub async fn rejoin(&self, node: &NodeName) -> Result<()> {
        let wait = self.settings().failover.rejoin_budget * RUNGS;
        self.order(node, OrderRequest::Rejoin, wait).await
    }

    /// Has a node's agent begin anew with the settings as they are now, while its PostgreSQL goes on. Returns once it has been
    /// told, before it has begun.
    ///
    /// # Errors
    /// `NeedsOperator` when the agent is in the midst of something, or could not begin with the settings as they are.
    pub async fn begin_anew(&self, node: &NodeName) -> Result<()> {
        self.order(node, OrderRequest::BeginAnew, QUICK).await
    }

    /// Tells a node's agent to stop PostgreSQL in order, and to end. Returns once it has been told, before
    /// it has ended. With `hand_over` a leader looks for an heir first.
    ///
    /// # Errors
    /// `Unavailable` when the agent does not answer.
    pub async fn stop(&self, node: &NodeName, hand_over: bool) -> Result<()> {
        self.order(node, OrderRequest::Stop { hand_over }, QUICK).await
    }

    /// The leader, where its agent answers.
    async fn leader(&self) -> Result<NodeName> {
        leader_of(&self.status().await?)
    }

    fn named(&self, name: &str) -> Result<NodeName> {
        let node =
            NodeName::new(name).map_err(|e| Error::invalid(format!("no name of a node. node={name}")).because(e))?;
        self.settings().node(&node)?;
        Ok(node)
    }

    async fn order(&self, node: &NodeName, order: OrderRequest, wait: Duration) -> Result<()> {
        let name = order.name();
        match self.agent(node)?.order(&order, wait).await? {
            Verdict::Done(_) => Ok(()),
            Verdict::Refused(why) => Err(refused(name, node, &why)),
            Verdict::Failed(why) => Err(Error::internal(format!("{why}. order={name}, node={node}"))
                .hint("`pgdock events` tells what happened, `pgdock status` how things stand")),
        }
    }
}

fn refused(order: &str, node: &NodeName, why: &str) -> Error {
    let error = Error::needs_operator(format!("{why}. order={order}, node={node}"));
    match order {
        "switchover" => error.hint("nothing was done; `pgdock status` shows what is in the way"),
        _ => error.hint("nothing was done"),
    }
}

/// The node to give the leader's orders to.
pub(super) fn leader_of(status: &ClusterStatus) -> Result<NodeName> {
    let Some(leader) = &status.leader else {
        let why = if status.term.is_none() { "the cluster was not founded yet" } else { "nobody leads at present" };
        return Err(Error::not_ready(why).hint("`pgdock status` shows how things stand; `pgdock up` founds a cluster"));
    };
    match status.node(leader) {
        Some(node) if node.reachable && node.role != Role::Unknown => Ok(leader.clone()),
        _ => Err(Error::unavailable(format!("the leader's agent does not answer. leader={leader}"))
            .hint("a standby takes over by itself if it may; `pgdock failover --to N` has one do so")),
    }
}
