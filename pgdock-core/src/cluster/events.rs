//! [`ClusterEvents`]: what happened, on all nodes together.

use jiff::Timestamp;

use super::Cluster;
use crate::event::Event;
use crate::{Error, NodeName, Result};

/// What happened on all nodes that could be asked.
#[derive(Debug)]
pub struct ClusterEvents {
    /// The events, oldest first by their nodes' calendar clocks.
    pub events: Vec<Event>,
    /// Whose events are missing, and why.
    pub missing: Vec<(NodeName, Error)>,
}

impl Cluster {
    /// What happened: at and after a time, or all that the agents still know. What several nodes saw, each
    /// of them tells.
    ///
    /// # Errors
    /// `Unavailable` when no agent answers.
    pub async fn events(&self, since: Option<Timestamp>) -> Result<ClusterEvents> {
        let answers = self.ask_all(|agent| async move { agent.events(since).await }).await?;
        let (mut events, mut missing) = (Vec::new(), Vec::new());
        for (node, answer) in answers {
            match answer {
                Ok(seen) => events.extend(seen),
                Err(error) => missing.push((node, error)),
            }
        }
        if missing.len() == self.settings().nodes.len() {
            let error = Error::unavailable("no agent answers").hint("`pgdock up` starts the agents");
            return Err(match missing.pop() {
                Some((_, cause)) => error.because(cause),
                None => error,
            });
        }
        events.sort_by(|a, b| (a.at, &a.node).cmp(&(b.at, &b.node)));
        Ok(ClusterEvents { events, missing })
    }
}
