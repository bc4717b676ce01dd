//! One statement, from its text to its result: which node, over which connection.
//!
//! ```text
//!   run ─┬─▶ read  ──▶ a standby, the next one, at last the primary ─┐
//!        └─▶ write ──▶ the primary, once there is one ───────────────┴─▶ attempt: one node, one connection
//! ```

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{TimeoutType, Timeouts};
use tokio::time::timeout_at;

use super::connection::{Lease, PoolError};
use super::error::{described, is_for_good};
use super::fleet::Node;
use super::session::{Demand, Writing, demand};
use super::work::Work;
use super::{Error, Reads, Shared};
use crate::{CommitToken, Decision, Target, clock};

mod attempt;
mod read;
mod write;

pub(super) use attempt::{Attempt, Beside, POSITION, position};

/// A result, and the connection that it came over.
pub(super) struct Ran<T> {
    pub(super) output: T,
    pub(super) lease: Lease,
    pub(super) node: Arc<Node>,
}

/// Why there is no connection.
struct NoClient {
    /// The node is at fault, rather than the load on it.
    gone: bool,
    /// The settings are at fault, and no wait helps.
    for_good: bool,
    cause: String,
}

impl Shared {
    /// Runs a statement where it belongs.
    pub(in crate::router) async fn run<W: Work>(
        &self,
        decision: Decision,
        work: &W,
        limit: Duration,
    ) -> Result<Ran<W::Output>, Error> {
        match decision.target {
            Target::Replica => match (self.reads, demand(&self.id)) {
                (Reads::PrimaryOnly | Reads::Audit, _) | (_, Demand::Primary) => {
                    self.on_primary(work, limit, None).await
                }
                (_, Demand::Any) => self.read(work, limit, None).await,
                (_, Demand::Seen(token)) => self.read(work, limit, Some(token)).await,
            },
            Target::Primary => {
                let writing = match decision.sticks() {
                    true => Writing::begin(&self.id, self.sticky),
                    false => Writing::forgotten(&self.id),
                };
                self.on_primary(work, limit, Some(writing)).await
            }
            Target::All | Target::Pin(_) => Err(Error::Pinned(decision.reason)),
        }
    }

    /// Whether positions of this token mean something in the present reign.
    fn is_of_now(&self, token: &CommitToken) -> bool {
        let view = self.fleet.view();
        let timeline = view.primary.and_then(|primary| view.topology.nodes[primary].timeline);
        timeline == Some(token.timeline) && self.fleet.system() == Some(token.system)
    }

    /// A position, with the cluster that it is of.
    pub(super) fn token(&self, (lsn, timeline): (u64, u32)) -> Option<CommitToken> {
        Some(CommitToken { system: self.fleet.system()?, timeline, lsn })
    }

    /// A connection to the primary, once there is one.
    pub(super) async fn primary(&self) -> Result<(Arc<Node>, Lease), Error> {
        let wait = self.limits.failover_wait;
        let until = clock::after(wait);
        let mut last = None;
        loop {
            let primary = self.fleet.view().primary().cloned();
            let Some(node) = primary else {
                let mut changes = self.fleet.watch();
                let appears = changes.wait_for(|topology| topology.primary().is_some());
                match timeout_at(until, appears).await {
                    Ok(_) => continue,
                    Err(_) => break,
                }
            };
            match timeout_at(until, self.connect(&node)).await {
                Ok(Ok(lease)) => return Ok((node, lease)),
                Ok(Err(NoClient { for_good: true, cause, .. })) => {
                    return Err(Error::NoConnection { node: node.name.clone(), cause });
                }
                Ok(Err(NoClient { gone, cause, .. })) => {
                    last = Some((node.name.clone(), cause));
                    if gone {
                        // Wait until another, or the same, says that it is the primary.
                        self.fleet.forget(&node);
                    }
                }
                Err(_) => break,
            }
        }
        Err(match last {
            Some((node, cause)) => Error::NoConnection { node, cause },
            None => Error::NoPrimary { waited: wait, nodes: self.fleet.view().topology.to_string() },
        })
    }

    /// Takes a connection from the pool, whose own limits bound the wait.
    async fn connect(&self, node: &Arc<Node>) -> Result<Lease, NoClient> {
        // One that lies there is taken without a timer.
        let at_once = Timeouts { wait: Some(Duration::ZERO), ..node.pool.timeouts() };
        let found = match node.pool.timeout_get(&at_once).await {
            Err(PoolError::Timeout(TimeoutType::Wait)) => Box::pin(node.pool.get()).await,
            found => found,
        };
        match found {
            Ok(object) => Ok(Lease::new(object, self.dial.clone(), self.limits.connect)),
            Err(error) => {
                let busy = matches!(error, PoolError::Timeout(TimeoutType::Wait));
                let cause = match &error {
                    _ if busy => "all connections are in use".to_owned(),
                    // Its own text says no more than that there is an error of the database.
                    PoolError::Backend(error) => described(error),
                    error => error.to_string(),
                };
                if !busy {
                    self.fleet.ban(node, &cause);
                }
                let for_good = matches!(&error, PoolError::Backend(error) if is_for_good(error));
                Err(NoClient { gone: !busy, for_good, cause })
            }
        }
    }
}
