//! One attempt: a statement on one connection, with what goes along, and what its end means.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join;
use tokio_postgres::types::PgLsn;

use crate::clock;
use crate::router::Shared;
use crate::router::connection::{Connection, Lease};
use crate::router::deadline::Deadline;
use crate::router::error::{Failure, failure};
use crate::router::fleet::Node;
use crate::router::work::Work;

/// Where a commit has ended at the latest. `pg_current_wal_lsn()` would be too low: with `synchronous_commit = off` the
/// commit may not be written yet.
pub(in crate::router) const POSITION: &str = "select pg_current_wal_insert_lsn(), \
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int";

/// Whether a standby has replayed so far. It is a statement of its own before the read, since within it the snapshot
/// might be older than the answer.
pub(super) const REPLAYED: &str = "select pg_last_wal_replay_lsn() >= $1";

/// How one attempt on one node ended.
pub(in crate::router) enum Attempt<T> {
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
pub(in crate::router) enum Beside {
    Nothing,
    /// Before it: has the node replayed so far?
    Replayed(u64),
    /// After it: where did it end?
    Position,
}

impl Shared {
    /// Runs a statement on a connection. If its time ends, or its caller goes away, the connection is not used again.
    /// `alone` is one that no transaction is around, so that it can be sent again after a refusal.
    pub(in crate::router) async fn attempt<W: Work>(
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
        let began = clock::present();
        let mut deadline = Deadline::on(lease, began, limit);
        let outcome = loop {
            let outcome = deadline.bound(both(lease, work, beside, &sent)).await;
            match outcome {
                // The table has changed since, or the server has dropped what was prepared.
                Ok(Err(error)) if stale && failure(&error) == Failure::Stale => {
                    lease.forget_statements();
                    stale = false;
                }
                outcome => break outcome,
            }
        };
        node.stats.took(clock::present() - began);
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

pub(super) async fn replayed(
    connection: &Connection,
    statement: &tokio_postgres::Statement,
    lsn: u64,
) -> Result<bool, tokio_postgres::Error> {
    let row = connection.query_one(statement, &[&PgLsn::from(lsn)]).await?;
    Ok(row.try_get::<_, Option<bool>>(0)?.unwrap_or(false))
}

pub(in crate::router) async fn position(
    connection: &Connection,
    statement: &tokio_postgres::Statement,
) -> Result<(u64, u32), tokio_postgres::Error> {
    let row = connection.query_one(statement, &[]).await?;
    let (lsn, timeline) = (row.try_get::<_, PgLsn>(0)?, row.try_get::<_, i32>(1)?);
    Ok((lsn.into(), timeline.cast_unsigned()))
}
