//! What is counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Decision, Reason, Target};

/// A number that only grows, here and, with the feature `metrics`, in the recorder that was installed when the router
/// was built.
pub(super) struct Counter {
    value: AtomicU64,
    #[cfg(feature = "metrics")]
    shared: metrics::Counter,
}

impl Counter {
    /// One with labels beside that of the router.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "the names are for the recorder"))]
    fn new(name: &'static str, router: &str, labels: &[(&'static str, &str)]) -> Self {
        Self {
            value: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            shared: {
                let own = metrics::Label::new("router", router.to_owned());
                let others = labels.iter().map(|(key, value)| metrics::Label::new(*key, (*value).to_owned()));
                metrics::counter!(name, std::iter::once(own).chain(others).collect::<Vec<_>>())
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
        let counter = |name| Counter::new(name, router, &[("node", node)]);
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

/// How often the classifier decided what, and why. A counter appears with the first decision of its kind.
pub(super) struct Decisions([[OnceLock<Counter>; Reason::ALL.len()]; 4]);

impl Decisions {
    fn new() -> Self {
        Self(std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())))
    }

    pub(super) fn count(&self, router: &str, decision: &Decision) {
        let target = match decision.target {
            Target::Replica => 0,
            Target::Primary => 1,
            Target::All => 2,
            Target::Pin(_) => 3,
        };
        let counter = self.0[target][decision.reason as usize].get_or_init(|| {
            let labels = [("target", decision.target.as_str()), ("reason", decision.reason.as_str())];
            Counter::new("pgdock_router_decisions_total", router, &labels)
        });
        counter.increment();
    }

    fn snapshot(&self) -> Vec<DecisionCount> {
        let mut counts = Vec::new();
        for (target, counters) in ["replica", "primary", "all", "pin"].into_iter().zip(&self.0) {
            for (reason, counter) in Reason::ALL.into_iter().zip(counters) {
                if let Some(counter) = counter.get() {
                    counts.push(DecisionCount { target, reason, count: counter.get() });
                }
            }
        }
        counts
    }
}

/// What is counted for the router as a whole.
pub(super) struct RouterStats {
    pub(super) decisions: Decisions,
    pub(super) misrouted: Counter,
    pub(super) fallbacks: Counter,
    pub(super) retries: Counter,
    pub(super) unconfirmed: Counter,
    pub(super) stale_tokens: Counter,
    pub(super) behind: Counter,
}

impl RouterStats {
    pub(super) fn new(router: &str) -> Self {
        let counter = |name| Counter::new(name, router, &[]);
        Self {
            decisions: Decisions::new(),
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
            decisions: self.decisions.snapshot(),
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
    /// Statements by what was decided of them, and why. `pgdock_router_decisions_total`, with `target` and `reason`.
    pub decisions: Vec<DecisionCount>,
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

/// How often one thing was decided for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecisionCount {
    /// [`Target::as_str`].
    pub target: &'static str,
    /// What decided it.
    pub reason: Reason,
    /// How often.
    pub count: u64,
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
