//! The WAL that rewinds took off the nodes.

use super::Cluster;
use crate::postgres::diverged::{Kept, KeptChanges};
use crate::{Error, NodeName, Result};

/// The WAL that is kept on all nodes that could be asked.
#[derive(Debug)]
pub struct ClusterDiverged {
    /// What is kept, oldest first by the nodes' calendar clocks.
    pub kept: Vec<Kept>,
    /// Of which nodes nothing is known, and why.
    pub missing: Vec<(NodeName, Error)>,
}

impl Cluster {
    /// The WAL that rewinds took off the nodes, and that is kept there.
    ///
    /// # Errors
    /// `Invalid` when a node's address is none.
    pub async fn diverged(&self) -> Result<ClusterDiverged> {
        let (mut kept, mut missing) = (Vec::new(), Vec::new());
        for (node, answer) in self.ask_all(|agent| async move { agent.diverged().await }).await? {
            match answer {
                Ok(found) => kept.extend(found),
                Err(error) => missing.push((node, error)),
            }
        }
        kept.sort_by(|a: &Kept, b| (a.found_at, &a.node).cmp(&(b.found_at, &b.node)));
        Ok(ClusterDiverged { kept, missing })
    }

    /// What one of them held. From then on it counts as seen.
    ///
    /// # Errors
    /// `Invalid` when there is no such node, or none of this name on it; `Unavailable` when its agent does not answer.
    pub async fn diverged_changes(&self, node: &NodeName, id: &str) -> Result<KeptChanges> {
        self.agent(node)?.diverged_changes(id).await
    }

    /// Removes one of them for good.
    ///
    /// # Errors
    /// As [`diverged_changes`](Self::diverged_changes).
    pub async fn drop_diverged(&self, node: &NodeName, id: &str) -> Result<()> {
        self.agent(node)?.drop_diverged(id).await
    }
}
