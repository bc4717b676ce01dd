//! The router: pools to every node, and each statement on the right one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Row};

use crate::clock::Clock;
use crate::{Balancer, Blacklist, Classifier};

mod builder;
mod error;
mod run;
mod session;
mod topology;

pub use builder::{Limits, RouterBuilder};
pub use error::Error;
use error::{Failure, failure};
use run::{Execute, Query};
pub use session::Session;
pub use topology::{Role, Topology};

/// Sends each statement to the node where it belongs: reads to a standby, writes to whichever node is the primary now.
///
/// Clones share pools and knowledge. When the last one is dropped, the polling of roles ends.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
    _polls: Arc<JoinSet<()>>,
}

/// What statements and polls have in common.
struct Shared {
    id: String,
    nodes: Vec<Node>,
    classifier: Classifier,
    sticky: Option<Duration>,
    limits: Limits,
    clock: Clock,
    replicas: Mutex<Balancer>,
    blacklist: Mutex<Blacklist>,
    topology: watch::Sender<Topology>,
    /// For each node, a call to ask it for its role at once.
    asked: Vec<Notify>,
    cancel: Box<dyn Fn(CancelToken) + Send + Sync>,
}

struct Node {
    name: String,
    pool: Pool,
    /// One connection apart, so that no load on the pool hides the role of the node.
    monitor: Pool,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.shared.nodes.iter().map(|node| &node.name).collect();
        f.debug_struct("Router").field("id", &self.shared.id).field("nodes", &names).finish_non_exhaustive()
    }
}

/// The arguments of a statement.
pub type Params<'a> = [&'a (dyn ToSql + Sync)];

impl Router {
    /// Begins a router.
    #[must_use]
    pub fn builder() -> RouterBuilder {
        RouterBuilder::default()
    }

    /// Runs a statement where it belongs, and returns its rows.
    ///
    /// A read that meets a node which is gone goes to the next, and at last to the primary. A statement for the
    /// primary waits until there is one, up to [`Limits::failover_wait`], and is **sent once**: only a refusal that
    /// proves that it did nothing (SQLSTATE 25006 and its kin, from a node that is no longer the primary) sends it
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error`] says for each case whether the statement may have had its effect. A statement that leaves state on
    /// its connection (`BEGIN`, `SET`, `LISTEN`, …) is [`Error::Pinned`], and not sent.
    pub async fn query(&self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, Error> {
        self.shared.run(sql, &Query { sql, params }).await
    }

    /// The same, and returns the number of rows that it touched.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &str, params: &Params<'_>) -> Result<u64, Error> {
        self.shared.run(sql, &Execute { sql, params }).await
    }

    /// A connection to the primary that is yours until you drop it: for transactions, and for statements that leave
    /// state behind. It sticks the session, as a write does.
    ///
    /// # Errors
    ///
    /// There is no primary, or no connection to it, in time.
    pub async fn primary(&self) -> Result<Object, Error> {
        let (_, client) = self.shared.primary().await?;
        self.shared.stick();
        Ok(client)
    }

    /// What is known of the nodes.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.shared.topology.borrow().clone()
    }

    /// The same, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Topology> {
        self.shared.topology.subscribe()
    }
}

impl Shared {
    fn bans(&self) -> MutexGuard<'_, Blacklist> {
        self.blacklist.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a role. Pooled connections to a node that changed it are closed.
    fn learn(&self, node: usize, role: Role) {
        self.topology.send_if_modified(|topology| {
            let before = std::mem::replace(&mut topology.roles[node], role);
            if before == role {
                return false;
            }
            tracing::info!(node = %self.nodes[node].name, ?before, now = ?role, "role changed");
            if before != Role::Unknown {
                self.nodes[node].pool.retain(|_, _| false);
            }
            true
        });
    }

    fn stick(&self) {
        if let Some(ttl) = self.sticky {
            session::stick(&self.id, ttl);
        }
    }
}
