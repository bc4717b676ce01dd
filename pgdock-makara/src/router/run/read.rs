//! Reads: standbys one after the other, and then the primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::attempt::{self, Attempt, Beside, REPLAYED};
use super::{Error, Ran};
use crate::router::connection::Lease;
use crate::router::error::{Failure, failure};
use crate::router::fleet::Node;
use crate::router::session::{Demand, Writing, demand};
use crate::router::work::Work;
use crate::router::{Reads, Shared, Sticky};
use crate::{CommitToken, clock};

/// Between two looks at a standby that is waited for. Replay moves by the record, and a look costs it little.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a standby must have replayed.
struct Floor {
    lsn: u64,
    /// The number of the question to which it has told that it has.
    told: Option<u64>,
}

impl Shared {
    /// Tries standbys one after the other, each once, and then the primary.
    pub(super) async fn read<W: Work>(
        &self,
        work: &W,
        limit: Duration,
        token: Option<CommitToken>,
    ) -> Result<Ran<W::Output>, Error> {
        if let Some(token) = token
            && !self.is_of_now(&token)
        {
            self.stats.stale_tokens.increment();
            return Box::pin(self.on_primary(work, limit, None)).await;
        }
        let mut tried: Vec<Arc<Node>> = Vec::new();
        // All the time that the reader is ready to wait for standbys, however many there are.
        let wait = token.map(|_| match self.sticky {
            Sticky::Lsn { wait, .. } => clock::after(wait),
            _ => clock::present(),
        });
        while let Some((node, beside)) = self.pick(&tried, token.as_ref()) {
            if !tried.is_empty() {
                self.stats.retries.increment();
            }
            let Ok(lease) = self.connect(&node).await else {
                tried.push(node);
                continue;
            };
            let beside = match beside {
                // What it told counts for connections that were open when it was asked.
                Some(Floor { told: Some(question), .. }) if lease.was_open(question) => Beside::Nothing,
                Some(Floor { lsn, .. }) => Beside::Replayed(lsn),
                None => Beside::Nothing,
            };
            let mut attempt = self.attempt(&node, &lease, work, limit, &beside, true).await;
            if let (Attempt::Behind, Beside::Replayed(lsn), Some(wait)) = (&attempt, &beside, wait) {
                self.stats.behind.increment();
                // What is rare is kept on the heap, so that what is not stays small.
                attempt = Box::pin(self.later(&node, &lease, work, limit, *lsn, wait)).await;
            }
            match attempt {
                Attempt::Done(output, _) => {
                    node.stats.reads.increment();
                    tracing::trace!(node = %node.name, "a standby answered");
                    return Ok(Ran { output, lease, node });
                }
                Attempt::Behind | Attempt::Unconfirmed => {}
                Attempt::Lost(error, _) => {
                    node.stats.lost.increment();
                    self.fleet.ban(&node, &error.to_string());
                }
                Attempt::Late(_) => {
                    node.stats.timeouts.increment();
                    self.fleet.ban(&node, "a statement took too long");
                    // The time of the caller is over as well.
                    return Err(Error::Timeout { node: node.name.clone() });
                }
                Attempt::Refused(error) => match failure(&error) {
                    Failure::Conflict => {}
                    // It was no read after all, and a standby does nothing that it refuses.
                    _ if is_refusal_of_standby(&error) => {
                        tracing::warn!(node = %node.name, %error, "a standby refused what was taken for a read");
                        self.stats.misrouted.increment();
                        let writing = Writing::begin(&self.id, self.sticky);
                        return Box::pin(self.on_primary(work, limit, Some(writing))).await;
                    }
                    _ => return Err(Error::Postgres(error)),
                },
            }
            tried.push(node);
        }
        Box::pin(self.instead(work, limit)).await
    }

    /// Reads from the primary in place of a standby, as far as that is wanted.
    async fn instead<W: Work>(&self, work: &W, limit: Duration) -> Result<Ran<W::Output>, Error> {
        if self.reads == Reads::StandbyOnly {
            return Err(Error::NoReplica);
        }
        let _turn = match &self.fallback {
            None => None,
            Some(turns) => match timeout(self.limits.connect, turns.acquire()).await {
                Ok(Ok(turn)) => Some(turn),
                _ => return Err(Error::NoReplica),
            },
        };
        self.stats.fallbacks.increment();
        self.on_primary(work, limit, None).await
    }

    /// The node whose turn it is, and for a token its position with the question that the node has answered by it.
    fn pick(&self, tried: &[Arc<Node>], token: Option<&CommitToken>) -> Option<(Arc<Node>, Option<Floor>)> {
        let view = self.fleet.view();
        let untried = |node: usize| !tried.iter().any(|tried| Arc::ptr_eq(tried, &view.nodes[node]));
        let zone = self.zone.as_deref();
        let Some(token) = token else {
            let node = view.pick(zone, untried).or_else(|| {
                // Rather than no answer at all: one try at a node that failed, when the primary cannot help.
                let helpless = view.primary.is_none() && tried.is_empty();
                helpless.then(|| view.last_resort(&self.fleet, untried)).flatten()
            })?;
            return Some((view.nodes[node].clone(), None));
        };
        let on_it = |node: usize| untried(node) && view.topology.nodes[node].timeline == Some(token.timeline);
        let node = view.pick(zone, |node| on_it(node) && view.replayed(node, token).is_some());
        let node = node.or_else(|| view.pick(zone, on_it))?;
        Some((view.nodes[node].clone(), Some(Floor { lsn: token.lsn, told: view.replayed(node, token) })))
    }

    /// Tries again and again on a standby that is behind, as long as the reader waits.
    async fn later<W: Work>(
        &self,
        node: &Node,
        lease: &Lease,
        work: &W,
        limit: Duration,
        lsn: u64,
        until: Instant,
    ) -> Attempt<W::Output> {
        loop {
            match self.catches_up(lease, lsn, until, limit).await {
                Ok(true) => match self.attempt(node, lease, work, limit, &Beside::Replayed(lsn), true).await {
                    Attempt::Behind => {}
                    attempt => return attempt,
                },
                Ok(false) => return Attempt::Behind,
                Err(failed) => return failed,
            }
        }
    }

    /// Waits until a standby has replayed so far. `false` when the time is over.
    async fn catches_up<T>(
        &self,
        lease: &Lease,
        lsn: u64,
        until: Instant,
        limit: Duration,
    ) -> Result<bool, Attempt<T>> {
        loop {
            if clock::after(LOOK_EVERY) > until {
                return Ok(false);
            }
            sleep(LOOK_EVERY).await;
            lease.begin();
            let look = async {
                let statement = lease.prepared(REPLAYED, &[]).await?;
                attempt::replayed(lease, &statement, lsn).await
            };
            match timeout(limit, look).await {
                Ok(Ok(true)) => {
                    lease.end();
                    return Ok(true);
                }
                Ok(Ok(false)) => lease.end(),
                Ok(Err(error)) => {
                    lease.break_off();
                    return Err(Attempt::Lost(error, false));
                }
                Err(_) => return Err(Attempt::Late(false)),
            }
        }
    }

    /// A connection to a standby, or to the primary where none will do, for a reader that keeps it.
    pub(in crate::router) async fn standby(&self) -> Result<(Arc<Node>, Lease), Error> {
        let token = match (self.reads, demand(&self.id)) {
            (Reads::PrimaryOnly | Reads::Audit, _) | (_, Demand::Primary) => return self.primary().await,
            (_, Demand::Any) => None,
            (_, Demand::Seen(token)) if self.is_of_now(&token) => Some(token),
            (_, Demand::Seen(_)) => {
                self.stats.stale_tokens.increment();
                return self.primary().await;
            }
        };
        let mut tried: Vec<Arc<Node>> = Vec::new();
        while let Some((node, asked)) = self.pick(&tried, token.as_ref()) {
            tried.push(node.clone());
            let Ok(lease) = self.connect(&node).await else { continue };
            let Some(Floor { lsn, .. }) = asked else { return Ok((node, lease)) };
            let until = match self.sticky {
                Sticky::Lsn { wait, .. } => clock::after(wait.max(2 * LOOK_EVERY)),
                _ => clock::after(2 * LOOK_EVERY),
            };
            match self.catches_up::<()>(&lease, lsn, until, self.limits.statement).await {
                Ok(true) => return Ok((node, lease)),
                Ok(false) => self.stats.behind.increment(),
                Err(_) => self.fleet.ban(&node, "it does not tell how far it has replayed"),
            }
        }
        if self.reads == Reads::StandbyOnly {
            return Err(Error::NoReplica);
        }
        self.stats.fallbacks.increment();
        self.primary().await
    }
}

/// Whether an error is one of those by which a standby refuses what only a primary does. Some of its texts are
/// translated, so that the code alone counts: a read that fails with it everywhere fails once more on the primary.
fn is_refusal_of_standby(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["25006", "55000", "XX000", "0A000"].contains(&code.code()))
}
