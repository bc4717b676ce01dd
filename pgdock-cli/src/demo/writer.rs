//! [`Writer`]: an application that inserts one row after the other, wherever the primary is, and remembers
//! which were acknowledged.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgdock_core::clock::{Clock as _, Moment, SystemClock};
use pgdock_core::{Error, Result};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::sql::Route;

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a statement may take before its connection is given up.
const STATEMENT_BUDGET: Duration = Duration::from_secs(2);

/// What a writer knows.
#[derive(Debug, Default)]
struct Known {
    /// Rows whose commit was acknowledged, and when.
    acknowledged: Mutex<Vec<(i64, Moment)>>,
    /// Rows that were sent.
    sent: AtomicI64,
    stop: AtomicBool,
}

/// An application that writes. Dropped, it stops.
#[derive(Debug)]
pub(super) struct Writer {
    known: Arc<Known>,
    first: i64,
    job: JoinHandle<()>,
}

impl Writer {
    /// Makes the table, and begins with the row after `first`.
    pub(super) async fn start(route: Route, first: i64) -> Result<Self> {
        let client = route.connect().await?;
        client
            .batch_execute("CREATE TABLE IF NOT EXISTS writes (id bigint PRIMARY KEY)")
            .await
            .map_err(|e| Error::unavailable("the writer's table cannot be made").because(e))?;
        let known = Arc::new(Known { sent: first.into(), ..Known::default() });
        let job = tokio::spawn(write(route, client, Arc::clone(&known)));
        Ok(Self { known, first, job })
    }

    /// Waits until so many rows were acknowledged after a moment. Returns when the first of them was.
    pub(super) async fn writes_on(&self, since: Moment, rows: usize, budget: Duration) -> Result<Moment> {
        let deadline = SystemClock.now() + budget;
        loop {
            let after: Vec<_> = self.acknowledged().into_iter().filter(|(_, at)| *at > since).collect();
            if after.len() >= rows
                && let Some((_, at)) = after.first()
            {
                return Ok(*at);
            }
            if SystemClock.now() >= deadline {
                return Err(Error::unavailable(format!("the writer does not get on. seconds={}", budget.as_secs())));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The longest time between two acknowledgements of which the later came after a moment.
    pub(super) fn longest_gap(&self, since: Moment) -> Duration {
        let all = self.acknowledged();
        all.windows(2)
            .filter(|pair| pair[1].1 >= since)
            .map(|pair| pair[1].1.since(pair[0].1))
            .max()
            .unwrap_or_default()
    }

    /// How many rows were acknowledged so far.
    pub(super) fn count(&self) -> usize {
        self.acknowledged().len()
    }

    /// Stops it. Returns the rows that were acknowledged, and how many were sent.
    pub(super) async fn stop(mut self) -> (Vec<i64>, i64) {
        self.known.stop.store(true, Ordering::Relaxed);
        let _ = (&mut self.job).await;
        let sent = self.known.sent.load(Ordering::Relaxed) - self.first;
        (self.acknowledged().into_iter().map(|(id, _)| id).collect(), sent)
    }

    fn acknowledged(&self) -> Vec<(i64, Moment)> {
        self.known.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.job.abort();
    }
}

async fn write(route: Route, client: Client, known: Arc<Known>) {
    let mut connected = Some(client);
    while !known.stop.load(Ordering::Relaxed) {
        let Some(client) = &connected else {
            connected = route.connect().await.ok();
            if connected.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            continue;
        };
        // Each try is a new row: one of unknown outcome is never sent again.
        let id = known.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let insert = async { client.execute("INSERT INTO writes VALUES ($1)", &[&id]).await };
        match tokio::time::timeout(STATEMENT_BUDGET, insert).await {
            Ok(Ok(_)) => {
                let now = SystemClock.now();
                known.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push((id, now));
                tokio::time::sleep(PAUSE).await;
            }
            _ => connected = None,
        }
    }
}

/// The acknowledged rows that are not there.
pub(super) async fn missing(client: &Client, acknowledged: &[i64]) -> Result<Vec<i64>> {
    let rows = client
        .query("SELECT id FROM writes", &[])
        .await
        .map_err(|e| Error::unavailable("the writer's rows cannot be read").because(e))?;
    let found: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    Ok(acknowledged.iter().copied().filter(|id| !found.contains(id)).collect())
}
