//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows, here and, with the feature `metrics`, in the recorder that was installed when the router
/// was built.
pub(super) struct Counter {
    value: AtomicU64,
    #[cfg(feature = "metrics")]
    shared: metrics::Counter,
}

impl Counter {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "the names are for the recorder"))]
    fn new(name: &'static str, router: &str, node: Option<&str>) -> Self {
        Self {
            value: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            shared: match node {
                Some(node) => metrics::counter!(name, "router" => router.to_owned(), "node" => node.to_owned()),
                None => metrics::counter!(name, "router" => router.to_owned()),
            },
        }
    }

    pub(super) fn increment(&self) {
        self.value.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        self.shared.increment(1);
    }

    fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// What is counted for each node.
pub(super) struct NodeStats {
    pub(super) reads: Counter,
    pub(super) writes: Counter,
    pub(super) lost: Counter,
    pub(super) timeouts: Counter,
    pub(super) bans: Counter,
    #[cfg(feature = "metrics")]
    seconds: metrics::Histogram,
}

impl NodeStats {
    pub(super) fn new(router: &str, node: &str) -> Self {
        let counter = |name| Counter::new(name, router, Some(node));
        Self {
            reads: counter("pgdock_router_reads_total"),
            writes: counter("pgdock_router_writes_total"),
            lost: counter("pgdock_router_connections_lost_total"),
            timeouts: counter("pgdock_router_timeouts_total"),
            bans: counter("pgdock_router_bans_total"),
            #[cfg(feature = "metrics")]
            seconds: metrics::histogram!(
                "pgdock_router_statement_seconds",
                "router" => router.to_owned(),
                "node" => node.to_owned()
            ),
        }
    }

    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, clippy::unused_self, reason = "for the recorder"))]
    pub(super) fn took(&self, time: Duration) {
        #[cfg(feature = "metrics")]
        self.seconds.record(time.as_secs_f64());
    }
}

/// What is counted for the router as a whole.
pub(super) struct RouterStats {
    pub(super) misrouted: Counter,
    pub(super) fallbacks: Counter,
    pub(super) retries: Counter,
    pub(super) unconfirmed: Counter,
    pub(super) stale_tokens: Counter,
    pub(super) behind: Counter,
}

impl RouterStats {
    pub(super) fn new(router: &str) -> Self {
        let counter = |name| Counter::new(name, router, None);
        Self {
            misrouted: counter("pgdock_router_misrouted_total"),
            fallbacks: counter("pgdock_router_fallback_reads_total"),
            retries: counter("pgdock_router_retries_total"),
            unconfirmed: counter("pgdock_router_unconfirmed_commits_total"),
            stale_tokens: counter("pgdock_router_stale_tokens_total"),
            behind: counter("pgdock_router_reads_behind_total"),
        }
    }

    pub(super) fn snapshot<'a>(&self, nodes: impl Iterator<Item = (&'a str, &'a NodeStats)>) -> Stats {
        Stats {
            misrouted: self.misrouted.get(),
            fallbacks: self.fallbacks.get(),
            retries: self.retries.get(),
            unconfirmed: self.unconfirmed.get(),
            stale_tokens: self.stale_tokens.get(),
            behind: self.behind.get(),
            nodes: nodes
                .map(|(name, stats)| NodeCounts {
                    name: name.to_owned(),
                    reads: stats.reads.get(),
                    writes: stats.writes.get(),
                    lost: stats.lost.get(),
                    timeouts: stats.timeouts.get(),
                    bans: stats.bans.get(),
                })
                .collect(),
        }
    }
}

/// What a router has counted since it was built. The feature `metrics` has the same, with the names given here, and
/// `pgdock_router_statement_seconds`, the time that statements took on each node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Statements that were taken for reads, and that a standby refused: they ran on the primary.
    /// `pgdock_router_misrouted_total`.
    pub misrouted: u64,
    /// Reads that went to the primary for want of a standby. `pgdock_router_fallback_reads_total`.
    pub fallbacks: u64,
    /// Statements that were sent again, elsewhere or after a change. `pgdock_router_retries_total`.
    pub retries: u64,
    /// Commits whose wait for a standby was cancelled. `pgdock_router_unconfirmed_commits_total`.
    pub unconfirmed: u64,
    /// Reads that went to the primary since the token of their session is of another timeline or cluster.
    /// `pgdock_router_stale_tokens_total`.
    pub stale_tokens: u64,
    /// Reads that met a standby which had not replayed what their session has to see.
    /// `pgdock_router_reads_behind_total`.
    pub behind: u64,
    /// By node.
    pub nodes: Vec<NodeCounts>,
}

/// What was counted of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeCounts {
    /// Its name.
    pub name: String,
    /// Statements for any node that ran there. `pgdock_router_reads_total`.
    pub reads: u64,
    /// Statements for the primary that ran there. `pgdock_router_writes_total`.
    pub writes: u64,
    /// Connections that were lost under a statement. `pgdock_router_connections_lost_total`.
    pub lost: u64,
    /// Statements that took too long. `pgdock_router_timeouts_total`.
    pub timeouts: u64,
    /// How often it failed a statement, and was left alone for that. `pgdock_router_bans_total`.
    pub bans: u64,
}
