//! A connection that the caller keeps.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connection::Lease;
use super::fleet::Node;

/// A connection that is yours until you drop it: for statements that leave state behind, and for code that wants a
/// [`tokio_postgres::Client`], which it dereferences to. Nothing is routed on it, and no limit of the router holds.
///
/// When it is dropped, it is rolled back and reset (`ROLLBACK`, `DISCARD ALL`) before anybody else gets it, or closed
/// if that does not work.
pub struct Client {
    lease: Option<Lease>,
    node: Arc<Node>,
    within: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("node", &self.node.name).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(node: Arc<Node>, lease: Lease, within: Duration) -> Self {
        Self { lease: Some(lease), node, within }
    }

    /// The node that it is connected to.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node.name
    }

    /// Whether every commit on it so far was confirmed by as many standbys as it had to wait for. One whose wait was
    /// cancelled looks like a success to [`tokio_postgres`], and may be lost by a failover: ask after each commit.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_confirmed)
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        self.lease.as_ref().expect("only `drop` takes it")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        lease.begin();
        let within = self.within;
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let reset = async {
                    lease.batch_execute("ROLLBACK").await?;
                    lease.batch_execute("DISCARD ALL").await
                };
                lease.forget_statements();
                match timeout(within, reset).await {
                    Ok(Ok(())) => lease.end(),
                    Ok(Err(_)) => lease.break_off(),
                    // Something of the caller's still runs on it: it is cancelled with the lease.
                    Err(_) => {}
                }
            });
        }
    }
}
