//! One statement, from its text to its result: which node, what an error means, where to go next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::TimeoutType;
use futures_util::future::join;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::types::PgLsn;

use super::connection::{Connection, Lease, PoolError};
use super::error::{Failure, described, failure, is_for_good};
use super::fleet::Node;
use super::session::{Demand, Writing, demand};
use super::work::Work;
use super::{Error, Reads, Shared, Sticky};
use crate::{CommitToken, Decision, Target};

/// Where a commit has ended at the latest. `pg_current_wal_lsn()` would be too low: with `synchronous_commit = off` the
/// commit may not be written yet.
pub(super) const POSITION: &str = "select pg_current_wal_insert_lsn(), \
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int";

/// Whether a standby has replayed so far. It is a statement of its own before the read, since within it the snapshot
/// might be older than the answer.
const REPLAYED: &str = "select pg_last_wal_replay_lsn() >= $1";

/// Between two looks at a standby that is waited for. Replay moves by the record, and a look costs it little.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A result, and the connection that it came over.
pub(super) struct Ran<T> {
    pub(super) output: T,
    pub(super) lease: Lease,
    pub(super) node: Arc<Node>,
}

/// How one attempt on one node ended.
pub(super) enum Attempt<T> {
    Done(T, Option<(u64, u32)>),
    /// The standby has not replayed what the reader has to see.
    Behind,
    Refused(tokio_postgres::Error),
    /// Committed, but no standby confirmed it.
    Unconfirmed,
    /// The connection is gone. Whether the statement itself had been sent.
    Lost(tokio_postgres::Error, bool),
    Late(bool),
}

/// What goes with a statement, on the same connection and without a wait in between.
pub(super) enum Beside {
    Nothing,
    /// Before it: has the node replayed so far?
    Replayed(u64),
    /// After it: where did it end?
    Position,
}

/// What a standby must have replayed.
struct Floor {
    lsn: u64,
    /// The number of the question to which it has told that it has.
    told: Option<u64>,
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
    pub(super) async fn run<W: Work>(
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

    /// Tries standbys one after the other, each once, and then the primary.
    async fn read<W: Work>(
        &self,
        work: &W,
        limit: Duration,
        token: Option<CommitToken>,
    ) -> Result<Ran<W::Output>, Error> {
        if let Some(token) = token
            && !self.is_of_now(&token)
        {
            self.stats.stale_tokens.increment();
            return self.on_primary(work, limit, None).await;
        }
        let mut tried: Vec<Arc<Node>> = Vec::new();
        // All the time that the reader is ready to wait for standbys, however many there are.
        let wait = match self.sticky {
            Sticky::Lsn { wait, .. } => Instant::now() + wait,
            _ => Instant::now(),
        };
        while let Some((node, beside)) = self.pick(&tried, token.as_ref()) {
            if !tried.is_empty() {
                self.stats.retries.increment();
            }
            tried.push(node.clone());
            let Ok(lease) = self.connect(&node).await else { continue };
            let beside = match beside {
                // What it told counts for connections that were open when it was asked.
                Some(Floor { told: Some(question), .. }) if lease.was_open(question) => Beside::Nothing,
                Some(Floor { lsn, .. }) => Beside::Replayed(lsn),
                None => Beside::Nothing,
            };
            let mut attempt = self.attempt(&node, &lease, work, limit, &beside, true).await;
            if matches!(attempt, Attempt::Behind) {
                self.stats.behind.increment();
            }
            while let (Attempt::Behind, Beside::Replayed(lsn)) = (&attempt, &beside) {
                attempt = match self.catches_up(&lease, *lsn, wait, limit).await {
                    Ok(true) => self.attempt(&node, &lease, work, limit, &beside, true).await,
                    Ok(false) => break,
                    Err(failed) => failed,
                };
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
                        return self.on_primary(work, limit, Some(writing)).await;
                    }
                    _ => return Err(Error::Postgres(error)),
                },
            }
        }
        self.instead(work, limit).await
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

    /// Whether positions of this token mean something in the present reign.
    fn is_of_now(&self, token: &CommitToken) -> bool {
        let view = self.fleet.view();
        let timeline = view.primary.and_then(|primary| view.topology.nodes[primary].timeline);
        timeline == Some(token.timeline) && self.fleet.system() == Some(token.system)
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

    /// Waits until a standby has replayed so far. `false` when the time is over.
    async fn catches_up<T>(
        &self,
        lease: &Lease,
        lsn: u64,
        until: Instant,
        limit: Duration,
    ) -> Result<bool, Attempt<T>> {
        loop {
            if Instant::now() + LOOK_EVERY > until {
                return Ok(false);
            }
            sleep(LOOK_EVERY).await;
            lease.begin();
            let look = async {
                let statement = lease.prepared(REPLAYED, &[]).await?;
                replayed(lease, &statement, lsn).await
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

    /// Runs a statement on the primary. What may be a write is sent again only if it certainly did nothing.
    pub(super) async fn on_primary<W: Work>(
        &self,
        work: &W,
        limit: Duration,
        writing: Option<Writing<'_>>,
    ) -> Result<Ran<W::Output>, Error> {
        let (read, mut again) = (writing.is_none(), true);
        let beside = match &writing {
            // Behind a stream it would wait for whoever reads the stream, who is not asked to before it is here.
            Some(writing) if writing.wants_position() && !W::STREAMS => Beside::Position,
            _ => Beside::Nothing,
        };
        loop {
            let (node, lease) = match self.primary().await {
                Ok(found) => found,
                Err(error) => {
                    // Nothing was sent, or what was sent did nothing.
                    writing.into_iter().for_each(Writing::nothing);
                    return Err(error);
                }
            };
            let name = || node.name.clone();
            match self.attempt(&node, &lease, work, limit, &beside, true).await {
                Attempt::Done(output, position) => {
                    match read {
                        true => node.stats.reads.increment(),
                        false => node.stats.writes.increment(),
                    }
                    if let Some(writing) = writing {
                        writing.ended(position.and_then(|position| self.token(position)));
                    }
                    return Ok(Ran { output, lease, node });
                }
                Attempt::Unconfirmed => {
                    self.stats.unconfirmed.increment();
                    return Err(Error::NotReplicated { node: name() });
                }
                Attempt::Lost(_, sent) if (read || !sent) && again => {
                    node.stats.lost.increment();
                    self.fleet.forget(&node);
                }
                Attempt::Lost(cause, sent) => {
                    node.stats.lost.increment();
                    self.fleet.forget(&node);
                    return Err(match sent && !read {
                        true => Error::OutcomeUnknown { node: name(), cause: Some(cause) },
                        false => Error::NoConnection { node: name(), cause: cause.to_string() },
                    });
                }
                Attempt::Late(sent) => {
                    node.stats.timeouts.increment();
                    node.asked.notify_one();
                    return Err(match read || !sent {
                        true => Error::Timeout { node: name() },
                        false => Error::OutcomeUnknown { node: name(), cause: None },
                    });
                }
                // It may also be the transaction's own choice: then the same node answers the same again.
                Attempt::Refused(error) if again && failure(&error) == Failure::ReadOnly => self.fleet.forget(&node),
                Attempt::Refused(error) => return Err(Error::Postgres(error)),
                // Nobody asked.
                Attempt::Behind => {}
            }
            self.stats.retries.increment();
            again = false;
        }
    }

    /// A position, with the cluster that it is of.
    pub(super) fn token(&self, (lsn, timeline): (u64, u32)) -> Option<CommitToken> {
        Some(CommitToken { system: self.fleet.system()?, timeline, lsn })
    }

    /// A connection to the primary, once there is one.
    pub(super) async fn primary(&self) -> Result<(Arc<Node>, Lease), Error> {
        let wait = self.limits.failover_wait;
        let until = Instant::now() + wait;
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

    /// A connection to a standby, or to the primary where none will do, for a reader that keeps it.
    pub(super) async fn standby(&self) -> Result<(Arc<Node>, Lease), Error> {
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
                Sticky::Lsn { wait, .. } => Instant::now() + wait.max(2 * LOOK_EVERY),
                _ => Instant::now() + 2 * LOOK_EVERY,
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

    /// Takes a connection from the pool, whose own limits bound the wait.
    async fn connect(&self, node: &Arc<Node>) -> Result<Lease, NoClient> {
        match node.pool.get().await {
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

    /// Runs a statement on a connection. If its time ends, or its caller goes away, the connection is not used again.
    /// `alone` is one that no transaction is around, so that it can be sent again after a refusal.
    pub(super) async fn attempt<W: Work>(
        &self,
        node: &Node,
        lease: &Lease,
        work: &W,
        limit: Duration,
        beside: &Beside,
        alone: bool,
    ) -> Attempt<W::Output> {
        let sent = AtomicBool::new(false);
        lease.begin();
        let mut stale = alone;
        let began = Instant::now();
        let outcome = loop {
            let outcome = timeout_at(began + limit, both(lease, work, beside, &sent)).await;
            match outcome {
                // The table has changed since, or the server has dropped what was prepared.
                Ok(Err(error)) if stale && failure(&error) == Failure::Stale => {
                    lease.forget_statements();
                    stale = false;
                }
                outcome => break outcome,
            }
        };
        node.stats.took(began.elapsed());
        let was_sent = sent.load(Ordering::Relaxed);
        match outcome {
            Ok(_) if !lease.is_confirmed() => {
                lease.break_off();
                Attempt::Unconfirmed
            }
            Ok(Ok(Found::Output(output, position))) => {
                if !W::STREAMS {
                    lease.end();
                }
                Attempt::Done(output, position)
            }
            Ok(Ok(Found::Behind)) => {
                lease.end();
                Attempt::Behind
            }
            Ok(Err(error)) if failure(&error) == Failure::Lost => {
                lease.break_off();
                Attempt::Lost(error, was_sent)
            }
            Ok(Err(error)) => {
                lease.end();
                Attempt::Refused(error)
            }
            // The lease cancels what still runs, and closes the connection.
            Err(_) => Attempt::Late(was_sent),
        }
    }
}

enum Found<T> {
    Output(T, Option<(u64, u32)>),
    Behind,
}

/// Runs a statement and what goes with it, in one go.
async fn both<W: Work>(
    connection: &Connection,
    work: &W,
    beside: &Beside,
    sent: &AtomicBool,
) -> Result<Found<W::Output>, tokio_postgres::Error> {
    match beside {
        Beside::Replayed(lsn) => guarded(connection, work, *lsn, sent).await,
        Beside::Nothing => {
            let prepared = work.prepare(connection).await?;
            sent.store(true, Ordering::Relaxed);
            Ok(Found::Output(work.run(connection, &prepared).await?, None))
        }
        Beside::Position => {
            let prepared = work.prepare(connection).await?;
            let statement = connection.prepared(POSITION, &[]).await?;
            sent.store(true, Ordering::Relaxed);
            // What is sent goes out in the order in which the futures are first asked, which `join` keeps.
            let (output, position) = join(work.run(connection, &prepared), position(connection, &statement)).await;
            Ok(Found::Output(output?, position.ok()))
        }
    }
}

/// Runs a read on a standby, if that has replayed so far.
async fn guarded<W: Work>(
    connection: &Connection,
    work: &W,
    lsn: u64,
    sent: &AtomicBool,
) -> Result<Found<W::Output>, tokio_postgres::Error> {
    let statement = connection.prepared(REPLAYED, &[]).await?;
    let prepared = match work.prepare(connection).await {
        // It may be about a table that is not here yet.
        Err(error) if error.as_db_error().is_some() => match replayed(connection, &statement, lsn).await? {
            true => work.prepare(connection).await?,
            false => return Ok(Found::Behind),
        },
        prepared => prepared?,
    };
    if W::STREAMS {
        // Whoever does not get the stream could not read it to its end.
        if !replayed(connection, &statement, lsn).await? {
            return Ok(Found::Behind);
        }
        return Ok(Found::Output(work.run(connection, &prepared).await?, None));
    }
    sent.store(true, Ordering::Relaxed);
    // In this order, on the way and on the server.
    let (seen, output) = join(replayed(connection, &statement, lsn), work.run(connection, &prepared)).await;
    if !seen? {
        return Ok(Found::Behind);
    }
    Ok(Found::Output(output?, None))
}

async fn replayed(
    connection: &Connection,
    statement: &tokio_postgres::Statement,
    lsn: u64,
) -> Result<bool, tokio_postgres::Error> {
    let row = connection.query_one(statement, &[&PgLsn::from(lsn)]).await?;
    Ok(row.try_get::<_, Option<bool>>(0)?.unwrap_or(false))
}

pub(super) async fn position(
    connection: &Connection,
    statement: &tokio_postgres::Statement,
) -> Result<(u64, u32), tokio_postgres::Error> {
    let row = connection.query_one(statement, &[]).await?;
    let (lsn, timeline) = (row.try_get::<_, PgLsn>(0)?, row.try_get::<_, i32>(1)?);
    Ok((lsn.into(), timeline.cast_unsigned()))
}

/// Whether an error is one of those by which a standby refuses what only a primary does. Some of its texts are
/// translated, so that the code alone counts: a read that fails with it everywhere fails once more on the primary.
fn is_refusal_of_standby(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["25006", "55000", "XX000", "0A000"].contains(&code.code()))
}
