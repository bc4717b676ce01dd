//! Base backups, as an operator asks for them.

use crate::agent::best;
use crate::backup::Label;
use crate::cluster::Cluster;
use crate::cluster::orders::leader_of;
use crate::report::Report;
use crate::{Error, NodeName, Result};

impl Cluster {
    /// Has the agent of a node take a base backup: of this one, or else of a standby that streams, or of the leader where there
    /// is none. Returns once it has begun, with its node and its name; [`NodeStatus`](crate::agent::api::NodeStatus) of that node tells how far
    /// it is.
    ///
    /// # Errors
    /// `Conflict` when a backup is under way; `Invalid` when the settings of the agent have no `[backup]`.
    pub async fn begin_backup(&self, node: Option<&NodeName>) -> Result<(NodeName, Label)> {
        let node = match node {
            Some(node) => {
                self.settings().node(node)?;
                node.clone()
            }
            None => self.best_for_backup().await?,
        };
        let label = self.agent(&node)?.begin_backup().await?;
        Ok((node, label))
    }

    async fn best_for_backup(&self) -> Result<NodeName> {
        let leader = leader_of(&self.status().await?)?;
        let answers = self.ask_all(|agent| async move { agent.status().await }).await?;
        let reports: Vec<Report> = answers.into_iter().filter_map(|(_, answer)| Some(answer.ok()?.report)).collect();
        let of_leader = reports.iter().find(|report| report.node == leader);
        let of_leader = of_leader
            .ok_or_else(|| Error::unavailable(format!("the leader's agent does not answer. leader={leader}")))?;
        Ok(best(of_leader, &reports))
    }
}
