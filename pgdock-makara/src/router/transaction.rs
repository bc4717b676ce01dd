//! Transactions: on one connection, and with an end that is known, or said to be unknown.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join3};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::{IsolationLevel, Row, SimpleQueryMessage};

use super::connection::Lease;
use super::error::{Failure, failure};
use super::fleet::Node;
use super::run::{Attempt, Beside, POSITION, position};
use super::session::Writing;
use super::sql::{Sql, text};
use super::work::{Execute, Query, Simple, Work};
use super::{Error, Params, Router, Shared};
use crate::{CommitToken, Reason};

/// In a transaction that has failed it fails too, while `COMMIT` itself would not: it would be answered with a
/// rollback, as if all were well.
const PROBE: &str = "select pg_current_xact_id_if_assigned()::text";

/// How a transaction is to be. Begin one with [`Router::transaction`].
#[derive(Clone, Debug)]
#[must_use = "it begins with `start` or `run`"]
pub struct TransactionBuilder {
    router: Router,
    isolation: Option<IsolationLevel>,
    read_only: bool,
    deferrable: bool,
    attempts: u32,
}

impl TransactionBuilder {
    pub(super) fn new(router: Router) -> Self {
        Self { router, isolation: None, read_only: false, deferrable: false, attempts: 3 }
    }

    /// The isolation level. Default: that of the server.
    pub fn isolation_level(self, level: IsolationLevel) -> Self {
        Self { isolation: Some(level), ..self }
    }

    /// A transaction that only reads. It runs where a read of the session would: on a standby, unless it is
    /// serializable.
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// Whether a serializable transaction that only reads waits for a snapshot that nothing can break.
    pub fn deferrable(self, deferrable: bool) -> Self {
        Self { deferrable, ..self }
    }

    /// How often [`run`](Self::run) tries, at most. Default: three times.
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..self }
    }

    fn begin(&self) -> String {
        let mut sql = "BEGIN".to_owned();
        match self.isolation {
            Some(IsolationLevel::ReadUncommitted) => sql += " ISOLATION LEVEL READ UNCOMMITTED",
            Some(IsolationLevel::ReadCommitted) => sql += " ISOLATION LEVEL READ COMMITTED",
            Some(IsolationLevel::RepeatableRead) => sql += " ISOLATION LEVEL REPEATABLE READ",
            Some(_) => sql += " ISOLATION LEVEL SERIALIZABLE",
            None => {}
        }
        if self.read_only {
            sql += " READ ONLY";
        }
        if self.deferrable {
            sql += " DEFERRABLE";
        }
        sql
    }

    /// Begins the transaction.
    ///
    /// # Errors
    ///
    /// There is no node for it in time, or it refuses. Nothing was done.
    pub async fn start(self) -> Result<Transaction, Error> {
        let (shared, limit) = (self.router.shared.clone(), self.router.limit);
        let on_standby = self.read_only && !matches!(self.isolation, Some(IsolationLevel::Serializable));
        let mut again = true;
        loop {
            let (node, lease) = match on_standby {
                true => shared.standby().await?,
                false => shared.primary().await?,
            };
            lease.begin();
            let begin = self.begin();
            let begins = async {
                if !self.read_only {
                    // Prepared now, since nothing can be in a transaction that has failed.
                    lease.prepared(PROBE, &[]).await?;
                    lease.prepared(POSITION, &[]).await?;
                }
                lease.batch_execute(&begin).await
            };
            let began = timeout(limit, begins).await;
            match began {
                Ok(Ok(())) => {
                    lease.end();
                    let read_only = self.read_only;
                    return Ok(Transaction { shared, node, lease: Some(lease), read_only, limit });
                }
                Ok(Err(error)) => match failure(&error) {
                    Failure::Lost if again => {
                        lease.break_off();
                        shared.forget_or_ban(&node, on_standby, &error);
                    }
                    Failure::ReadOnly if again && !on_standby => {
                        lease.end();
                        shared.fleet.forget(&node);
                    }
                    Failure::Lost => {
                        lease.break_off();
                        return Err(Error::NoConnection { node: node.name.clone(), cause: error.to_string() });
                    }
                    _ => {
                        lease.end();
                        return Err(Error::Postgres(error));
                    }
                },
                Err(_) => {
                    node.stats.timeouts.increment();
                    if on_standby {
                        shared.fleet.ban(&node, "a transaction took too long to begin");
                    }
                    return Err(Error::Timeout { node: node.name.clone() });
                }
            }
            shared.stats.retries.increment();
            again = false;
        }
    }

    /// Runs a transaction, and commits it when `work` is well. It is run again, from its beginning and up to
    /// [`attempts`](Self::attempts) times, when the server found that it cannot be serialized with others (40001), or
    /// that they wait for each other (40P01): then it had no effect.
    ///
    /// # Errors
    ///
    /// Those of `work`, of which all but these two end the transaction with a rollback; those of
    /// [`commit`](Transaction::commit).
    pub async fn run<T>(self, mut work: impl AsyncFnMut(&Transaction) -> Result<T, Error>) -> Result<T, Error> {
        let mut attempt = 1;
        loop {
            let transaction = self.clone().start().await?;
            let outcome = match work(&transaction).await {
                Ok(result) => transaction.commit().await.map(|_| result),
                Err(error) => {
                    transaction.rollback().await.unwrap_or_default();
                    Err(error)
                }
            };
            match outcome {
                Err(error @ Error::Postgres(_)) if error.is_retryable() && attempt < self.attempts => {
                    self.router.shared.stats.retries.increment();
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

/// A transaction under way, which owns its connection. One that is dropped is rolled back.
///
/// Its statements can be sent without waiting for each other, as with `tokio::join!`.
pub struct Transaction {
    shared: Arc<Shared>,
    node: Arc<Node>,
    lease: Option<Lease>,
    read_only: bool,
    limit: Duration,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("node", &self.node.name).field("read_only", &self.read_only).finish()
    }
}

impl Transaction {
    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node.name
    }

    /// Runs a statement, and returns its rows.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn query<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<Vec<Row>, Error> {
        self.go(sql.text(), &Query(text(sql), params)).await
    }

    /// Runs a statement that brings one row.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), and [`Error::RowCount`].
    pub async fn query_one<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<Row, Error> {
        super::one(self.query(sql, params).await?)
    }

    /// Runs a statement that brings one row or none.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), and [`Error::RowCount`].
    pub async fn query_opt<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<Option<Row>, Error> {
        super::at_most_one(self.query(sql, params).await?)
    }

    /// Runs a statement, and returns the number of rows that it touched.
    ///
    /// # Errors
    ///
    /// [`Error::Pinned`] for a text that would begin or end a transaction. After any other, the transaction can only be
    /// rolled back, unless it has a savepoint (`SAVEPOINT`, `ROLLBACK TO`).
    pub async fn execute<S: Sql + ?Sized>(&self, sql: &S, params: &Params<'_>) -> Result<u64, Error> {
        self.go(sql.text(), &Execute(text(sql), params)).await
    }

    /// Runs a text of several statements without arguments.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.go(sql, &Simple(sql)).await
    }

    async fn go<W: Work>(&self, sql: &str, work: &W) -> Result<W::Output, Error> {
        if ends_transaction(sql) {
            return Err(Error::Pinned(Reason::Transaction));
        }
        let Some(lease) = &self.lease else { return Err(Error::RolledBack) };
        match self.shared.attempt(&self.node, lease, work, self.limit, &Beside::Nothing, false).await {
            Attempt::Done(output, _) => Ok(output),
            Attempt::Refused(error) => Err(Error::Postgres(error)),
            // Nothing is committed before the commit is sent, and now it never will be.
            Attempt::Lost(error, _) => {
                self.node.stats.lost.increment();
                self.shared.forget_or_ban(&self.node, self.read_only, &error);
                Err(Error::NoConnection { node: self.node.name.clone(), cause: error.to_string() })
            }
            Attempt::Late(_) => {
                self.node.stats.timeouts.increment();
                lease.break_off();
                Err(Error::Timeout { node: self.node.name.clone() })
            }
            // A procedure that commits by itself.
            Attempt::Unconfirmed => Err(Error::NotReplicated { node: self.node.name.clone() }),
            Attempt::Behind => Err(Error::RolledBack),
        }
    }

    /// Ends the transaction for good, and returns the position of its end, if it wrote something. The session reads
    /// what it wrote, by the router's [`Sticky`](crate::Sticky).
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] when the connection is lost, or the time over, while the commit is on its way;
    /// [`Error::NotReplicated`] when it is done and not confirmed; [`Error::RolledBack`] when the transaction had failed
    /// before; `Postgres` when it fails now.
    pub async fn commit(mut self) -> Result<Option<CommitToken>, Error> {
        let Some(lease) = self.lease.take() else { return Err(Error::RolledBack) };
        let name = || self.node.name.clone();
        if self.read_only {
            lease.begin();
            return match timeout(self.limit, lease.batch_execute("COMMIT")).await {
                Ok(Ok(())) => {
                    lease.end();
                    self.node.stats.reads.increment();
                    Ok(None)
                }
                Ok(Err(error)) => {
                    lease.break_off();
                    Err(Error::Postgres(error))
                }
                Err(_) => Err(Error::Timeout { node: name() }),
            };
        }
        let writing = Writing::begin(&self.shared.id, self.shared.sticky);
        lease.begin();
        let commits = async {
            let (probe, place) = (lease.prepared(PROBE, &[]), lease.prepared(POSITION, &[]));
            let (probe, place) = match join(probe, place).await {
                (Ok(probe), Ok(place)) => (probe, place),
                (Err(error), _) | (_, Err(error)) => return (Err(error), None),
            };
            let (probe, done, place) =
                join3(lease.query_one(&probe, &[]), lease.batch_execute("COMMIT"), position(&lease, &place)).await;
            let wrote = probe.and_then(|row| row.try_get::<_, Option<String>>(0)).map(|xid| xid.is_some());
            (wrote, Some((done, place.ok())))
        };
        let outcome = timeout(self.limit, commits).await;
        if outcome.is_ok() && !lease.is_confirmed() {
            lease.break_off();
            self.shared.stats.unconfirmed.increment();
            return Err(Error::NotReplicated { node: name() });
        }
        match outcome {
            Ok((Ok(wrote), Some((Ok(()), place)))) => {
                lease.end();
                self.node.stats.writes.increment();
                let token = place.and_then(|place| self.shared.token(place));
                match wrote {
                    true => writing.ended(token),
                    false => writing.nothing(),
                }
                Ok(token.filter(|_| wrote))
            }
            Ok((_, Some((Err(error), _))) | (Err(error), None)) if failure(&error) == Failure::Lost => {
                lease.break_off();
                self.node.stats.lost.increment();
                self.shared.fleet.forget(&self.node);
                Err(Error::OutcomeUnknown { node: name(), cause: Some(error) })
            }
            Ok((_, Some((Err(error), _)))) => {
                // A constraint that is checked last of all, for instance.
                lease.end();
                writing.nothing();
                Err(Error::Postgres(error))
            }
            Ok((Err(error), done)) => {
                // The probe was refused, and so the commit was a rollback; or was not sent, and the lease is not clean.
                if done.is_none() {
                    lease.break_off();
                }
                lease.end();
                writing.nothing();
                tracing::debug!(%error, "a transaction that had failed was to be committed");
                Err(Error::RolledBack)
            }
            // Both were asked for, or neither.
            Ok((Ok(_), None)) => Err(Error::RolledBack),
            Err(_) => {
                self.node.stats.timeouts.increment();
                self.node.asked.notify_one();
                Err(Error::OutcomeUnknown { node: name(), cause: None })
            }
        }
    }

    /// Undoes all of it.
    ///
    /// # Errors
    ///
    /// The server does not answer. It is undone all the same: the connection is closed.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        lease.begin();
        match timeout(self.limit, lease.batch_execute("ROLLBACK")).await {
            Ok(Ok(())) => {
                lease.end();
                Ok(())
            }
            Ok(Err(error)) => {
                lease.break_off();
                Err(Error::Postgres(error))
            }
            Err(_) => Err(Error::Timeout { node: self.node.name.clone() }),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.begin();
            // Within its time, or else with the connection, which this drops.
            let limit = self.shared.limits.connect;
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(async move {
                    if let Ok(Ok(())) = timeout(limit, lease.batch_execute("ROLLBACK")).await {
                        lease.end();
                    }
                });
            }
        }
    }
}

/// Whether a text begins with a command that would end the transaction, or begin another one.
fn ends_transaction(sql: &str) -> bool {
    let mut words = sql.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let is = |word: Option<&str>, others: &[&str]| {
        word.is_some_and(|word| others.iter().any(|other| word.eq_ignore_ascii_case(other)))
    };
    let (first, second, third) = (words.next(), words.next(), words.next());
    if is(first, &["rollback", "abort"]) {
        // `ROLLBACK [WORK | TRANSACTION] TO name` is about a savepoint.
        return !(is(second, &["to"]) || (is(second, &["work", "transaction"]) && is(third, &["to"])));
    }
    is(first, &["begin", "start", "commit", "end"]) || (is(first, &["prepare"]) && is(second, &["transaction"]))
}

#[cfg(test)]
mod tests {
    use super::ends_transaction;

    #[test]
    fn texts_that_end_a_transaction_are_known() {
        for sql in [
            "commit",
            " END;",
            "rollback",
            "ROLLBACK WORK",
            "abort",
            "begin",
            "start transaction",
            "Prepare Transaction 'a'",
        ] {
            assert!(ends_transaction(sql), "{sql}");
        }
        for sql in
            ["rollback to a", "ROLLBACK WORK TO a", "savepoint a", "release a", "prepare a as select 1", "select 1", ""]
        {
            assert!(!ends_transaction(sql), "{sql}");
        }
    }
}
