//! The router: pools to every node, and each statement on the right one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};
use tracing::Instrument;

use crate::{Classifier, Decision, PinTo, Target};

#[cfg(feature = "agents")]
mod agents;
mod builder;
mod client;
#[cfg(feature = "cluster")]
mod cluster;
mod connection;
mod deadline;
mod error;
mod fleet;
mod listen;
mod memo;
mod poll;
mod run;
mod session;
mod sources;
mod sql;
mod stats;
mod stream;
mod token;
mod topology;
mod transaction;
mod work;

#[cfg(feature = "agents")]
pub use agents::Agents;
pub use builder::{Limits, Reads, RouterBuilder};
pub use client::Client;
pub use error::Error;
pub use listen::{Heard, Notifications};
pub use session::{Memory, Session, Sticky, on_primary, without_sticking};
pub use sql::{Sql, Statement};
pub use stats::{DecisionCount, NodeCounts, Stats};
pub use stream::{CopyIn, CopyOut, RowStream, Streaming};
pub use token::{CommitToken, TokenError};
pub use topology::{NodeState, Role, Topology};
pub use transaction::{Transaction, TransactionBuilder};

use connection::Dial;
use fleet::{Fleet, Node};
use memo::Memo;
use run::Ran;
use session::Writing;
use sql::text;
use stats::RouterStats;
use work::{Execute, Prepare, Query, Simple, Stream, Work};

/// Sends each statement to the node where it belongs: reads to a standby, writes to whichever node is the primary now.
///
/// Clones share pools and knowledge. When the last one is dropped, the polling of roles ends.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
    /// For a statement.
    limit: Duration,
    _tasks: Arc<Tasks>,
}

/// What runs as long as there is a router.
struct Tasks {
    fleet: Arc<Fleet>,
    _sources: JoinSet<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.fleet.close();
    }
}

/// What statements and polls have in common.
struct Shared {
    id: String,
    fleet: Arc<Fleet>,
    dial: Arc<dyn Dial>,
    classifier: Classifier,
    memo: Memo,
    sticky: Sticky,
    reads: Reads,
    zone: Option<String>,
    limits: Limits,
    /// How many reads may run on the primary at a time in place of a standby.
    fallback: Option<Semaphore>,
    stats: RouterStats,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.shared.fleet.view();
        let names: Vec<_> = view.nodes.iter().map(|node| &node.name).collect();
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

    /// The name under which sessions remember this router.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The same router, but with this limit for a statement.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// Runs a statement where it belongs, and returns its rows.
    ///
    /// A read that meets a node which is gone goes to the next, and at last to the primary. A statement for the
    /// primary waits until there is one, up to [`Limits::failover_wait`], and is **sent once**: only a refusal that
    /// proves that it did nothing (SQLSTATE 25006 and its kin, from a node that is no longer the primary) sends it
    /// again.
    ///
    /// It can be dropped at any time: the statement is cancelled on the server, and what it ran on is not used again.
    ///
    /// # Errors
    ///
    /// [`Error`] says for each case whether the statement may have had its effect. A statement that leaves state on
    /// its connection (`BEGIN`, `SET`, `LISTEN`, …) is [`Error::Pinned`], and not sent.
    pub async fn query<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<Vec<Row>, Error> {
        Ok(self.run(sql, &Query(text(sql), params)).await?.output)
    }

    /// The same for a statement that brings one row.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and [`Error::RowCount`].
    pub async fn query_one<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<Row, Error> {
        one(self.query(sql, params).await?)
    }

    /// The same for a statement that brings one row or none.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and [`Error::RowCount`].
    pub async fn query_opt<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<Option<Row>, Error> {
        at_most_one(self.query(sql, params).await?)
    }

    /// The same, and returns the number of rows that it touched.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn execute<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<u64, Error> {
        Ok(self.run(sql, &Execute(text(sql), params)).await?.output)
    }

    /// The same, and returns the rows one after the other, as they come.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), for what happens until the first row; the stream has those after it.
    pub async fn query_raw<S, P>(&self, sql: &S, params: &[P]) -> Result<RowStream, Error>
    where
        S: Sql + ?Sized,
        P: BorrowToSql + Sync,
    {
        let writes = self.shared.decide(sql).sticks();
        let ran = self.run(sql, &Stream(text(sql), params)).await?;
        Ok(Streaming::new(ran, writes, self.limit))
    }

    /// Runs a text of one or more statements without arguments, each of which must be for the same kind of node.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        Ok(self.run(sql, &Simple(sql)).await?.output)
    }

    /// The same, without its results.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn batch_execute(&self, sql: &str) -> Result<(), Error> {
        self.simple_query(sql).await.map(|_| ())
    }

    /// Classifies a statement, and sees on a node whether it can be prepared. The result is bound to no connection.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query); a mistake in the statement is told here, and not when it first runs.
    pub async fn prepare(&self, sql: &str, types: &[Type]) -> Result<Statement, Error> {
        let decision = self.shared.decide(sql);
        let prepare = Prepare(work::Text { sql, types });
        let ran = match decision.target {
            Target::Replica => self.shared.run(decision, &prepare, self.limit).await?,
            Target::Primary => self.shared.on_primary(&prepare, self.limit, None).await?,
            Target::All | Target::Pin(_) => return Err(Error::Pinned(decision.reason)),
        };
        Ok(Statement::new(sql, types, decision, &ran.output))
    }

    /// Runs a `COPY … FROM STDIN`.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), for what happens until data can be sent.
    pub async fn copy_in(&self, sql: &str) -> Result<CopyIn, Error> {
        let ran = self.run(sql, &work::CopyIn(sql)).await?;
        Ok(CopyIn::new(ran, self.limit, self.shared.clone()))
    }

    /// Runs a `COPY … TO STDOUT`, on a standby where it only reads.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), for what happens until the first data.
    pub async fn copy_out(&self, sql: &str) -> Result<CopyOut, Error> {
        let writes = self.shared.decide(sql).sticks();
        let ran = self.run(sql, &work::CopyOut(sql)).await?;
        Ok(Streaming::new(ran, writes, self.limit))
    }

    /// Begins to describe a transaction.
    pub fn transaction(&self) -> TransactionBuilder {
        TransactionBuilder::new(self.clone())
    }

    /// A connection that is yours until you drop it: for statements that leave state behind, and for code of others
    /// that wants a client. One to the primary sticks the session, as a write does.
    ///
    /// # Errors
    ///
    /// There is no such node, or no connection to it, in time. [`Target::All`], and what is pinned to a connection that
    /// you have, name none: [`Error::Settings`].
    pub async fn get(&self, target: Target) -> Result<Client, Error> {
        let (node, lease) = match target {
            Target::Replica | Target::Pin(PinTo::Any) => self.shared.standby().await?,
            Target::Primary | Target::Pin(PinTo::Primary) => {
                let found = self.shared.primary().await?;
                // Whatever it is for, nobody will tell.
                drop(Writing::begin(&self.shared.id, self.shared.sticky));
                found
            }
            Target::All | Target::Pin(PinTo::Current) => {
                return Err(Error::Settings("a connection is to the primary or to a standby".to_owned()));
            }
        };
        Ok(Client::new(node, lease, self.shared.limits.connect))
    }

    /// Listens to channels on the primary, and on the next one when it is lost. It begins in the background, and tells
    /// by [`Heard::Listening`] when it hears.
    ///
    /// Notifications are sent by commits of the primary; standbys never have any.
    #[must_use]
    pub fn listen(&self, channels: &[&str]) -> Notifications {
        Notifications::start(self.clone(), channels)
    }

    /// Where the history of the cluster is now: whoever has replayed up to there sees all that is committed. To be sent
    /// along with a message about what was written, for [`Session::require`] at its other end.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn position(&self) -> Result<CommitToken, Error> {
        let sql = work::Text { sql: run::POSITION, types: &[] };
        let ran = self.shared.on_primary(&Query(sql, &[]), self.limit, None).await?;
        let row = one(ran.output)?;
        let lsn: tokio_postgres::types::PgLsn = row.try_get(0).map_err(Error::Postgres)?;
        let timeline: i32 = row.try_get(1).map_err(Error::Postgres)?;
        let token = self.shared.token((lsn.into(), timeline.cast_unsigned()));
        token.ok_or_else(|| Error::NoPrimary { waited: Duration::ZERO, nodes: self.topology().to_string() })
    }

    /// What is known of the nodes.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.shared.fleet.view().topology.clone()
    }

    /// The same, and every change of it, except of positions and lags.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Topology>> {
        self.shared.fleet.watch()
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let view = self.shared.fleet.view();
        self.shared.stats.snapshot(view.nodes.iter().map(|node| (node.name.as_str(), &node.stats)))
    }

    async fn run<S: Sql + ?Sized, W: Work>(&self, sql: &S, work: &W) -> Result<Ran<W::Output>, Error> {
        let decision = self.shared.decide(sql);
        self.shared.stats.decisions.count(&self.shared.id, &decision);
        if self.shared.reads == Reads::Audit {
            audit(&self.shared.id, sql.text(), &decision);
        }
        let span = tracing::debug_span!(
            "statement",
            router = self.shared.id,
            target = ?decision.target,
            reason = decision.reason.as_str(),
        );
        self.shared.run(decision, work, self.limit).instrument(span).await
    }
}

/// Tells what was decided. A long text is cut: its beginning is what a person knows it by.
fn audit(router: &str, sql: &str, decision: &Decision) {
    const SHOWN_CHARS: usize = 500;
    let end = sql.char_indices().nth(SHOWN_CHARS).map_or(sql.len(), |(end, _)| end);
    tracing::info!(
        target: "pgdock_makara::audit",
        router,
        decision = decision.target.as_str(),
        reason = decision.reason.as_str(),
        culprit = decision.culprit(sql),
        sql = &sql[..end],
        "decided"
    );
}

fn one(mut rows: Vec<Row>) -> Result<Row, Error> {
    match (rows.pop(), rows.len()) {
        (Some(row), 0) => Ok(row),
        (None, _) => Err(Error::RowCount { found: 0 }),
        (Some(_), _) => Err(Error::RowCount { found: 2 }),
    }
}

fn at_most_one(rows: Vec<Row>) -> Result<Option<Row>, Error> {
    match rows.len() {
        0 => Ok(None),
        _ => one(rows).map(Some),
    }
}

impl Shared {
    /// Where a statement runs.
    fn decide<S: Sql + ?Sized>(&self, sql: &S) -> Decision {
        sql.decided().unwrap_or_else(|| self.memo.decide(&self.classifier, sql.text()))
    }

    /// A connection to a node was lost.
    fn forget_or_ban(&self, node: &Arc<Node>, on_standby: bool, error: &tokio_postgres::Error) {
        match on_standby {
            true => self.fleet.ban(node, &error.to_string()),
            false => self.fleet.forget(node),
        }
    }
}
