//! Clients that write and remember what they were told: some go wherever the primary is, as an application
//! does; and one for each node sits inside of the node's namespace and writes to that node alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgdock_core::{Error, NodeName, Result, TimelineId};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row, Statement};

use super::history::{History, Outcome, Place, Seen, Write};
use super::lab::Lab;
use crate::real::{Notices, RealCluster, Route};

/// How many clients go wherever the primary is.
pub const ROAMING: u16 = 3;
/// The table that they write to.
pub const TABLE: &str = "acknowledged";

/// How long a write may take before its client gives it up.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long a roaming client waits between two writes.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a client of one node waits.
const PAUSE_AT_NODE: Duration = Duration::from_millis(25);

/// The answer begins with the [`place`] of the write.
pub(super) const INSERT: &str = "INSERT INTO acknowledged VALUES ($1)
    RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), pg_current_wal_insert_lsn()::text,
              pg_current_xact_id()::text, host(inet_server_addr())";

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    roaming: Vec<tokio::task::JoinHandle<()>>,
    at_nodes: Vec<std::thread::JoinHandle<()>>,
}

/// The names of all clients: the roaming ones, those at nodes, and the application behind a router.
#[must_use]
pub fn names(nodes: &[NodeName]) -> Vec<String> {
    let roaming = (1..=ROAMING).map(|i| format!("client {i}"));
    roaming.chain(nodes.iter().map(|node| format!("at {node}"))).chain(["router".to_owned()]).collect()
}

/// The place of the application behind a router among all clients.
#[must_use]
pub fn routed(nodes: &[NodeName]) -> u16 {
    ROAMING + u16::try_from(nodes.len()).expect("there are few nodes")
}

/// Makes the table.
///
/// # Errors
/// What PostgreSQL says.
pub async fn make_table(cluster: &RealCluster) -> Result<()> {
    let make = format!("CREATE TABLE IF NOT EXISTS {TABLE} (number bigint PRIMARY KEY)");
    cluster
        .route()?
        .connect()
        .await?
        .batch_execute(&make)
        .await
        .map_err(|e| Error::unavailable("cannot make the table").because(e))
}

impl Clients {
    /// Begins to write. The table must exist.
    ///
    /// # Errors
    /// Where the secrets cannot be read, or a thread cannot be started.
    pub fn start(cluster: &RealCluster, lab: &Arc<Lab>, history: &Arc<History>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let routes = cluster.nodes().iter().map(|node| cluster.route_to(node)).collect::<Result<Vec<_>>>()?;
        let roaming = (0..ROAMING)
            .map(|id| {
                let client = Roaming { id, routes: routes.clone(), next: usize::from(id) };
                tokio::spawn(client.write(Arc::clone(history), Arc::clone(&stop)))
            })
            .collect();
        let mut at_nodes = Vec::new();
        for ((node, route), name) in (0u16..).zip(routes).zip(cluster.nodes()) {
            let (lab, history, stop) = (Arc::clone(lab), Arc::clone(history), Arc::clone(&stop));
            let thread = std::thread::Builder::new().name(format!("at-{name}")).spawn(move || {
                // Only this thread is there, and all that it opens.
                lab.enter(name.as_str()).expect("the namespace can be entered");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(AtNode { id: ROAMING + node, node, route }.write(history, stop));
            });
            at_nodes.push(thread.map_err(|e| Error::internal("cannot start a thread").because(e))?);
        }
        Ok(Self { stop, roaming, at_nodes })
    }

    /// Stops them all.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for job in self.roaming {
            let _ = job.await;
        }
        let _ = tokio::task::spawn_blocking(move || self.at_nodes.into_iter().for_each(|t| drop(t.join()))).await;
    }
}

/// A connection, ready to write.
struct Ready {
    client: Client,
    insert: Statement,
    /// What PostgreSQL says besides its answers. What it says before an answer is here before the answer.
    notices: Mutex<Notices>,
}

impl Ready {
    async fn connect(route: &Route) -> Result<Self> {
        let (client, mut notices) = route.connect_listening().await?;
        let prepared = tokio::time::timeout(PATIENCE, client.prepare(INSERT)).await;
        let insert = prepared
            .map_err(|_| Error::unavailable("no answer"))?
            .map_err(|e| Error::unavailable("cannot prepare a write").because(e))?;
        // What was said so far is not about a write.
        while notices.try_recv().is_ok() {}
        Ok(Self { client, insert, notices: Mutex::new(notices) })
    }

    /// Writes a number. `None`: it was refused, because this is no primary.
    async fn write(&self, number: i64) -> Option<Outcome> {
        match tokio::time::timeout(PATIENCE, self.client.query_one(&self.insert, &[&number])).await {
            // A commit that was cancelled while it waited for standbys ends with a warning, and no error.
            Ok(Ok(_)) if self.was_warned() => Some(Outcome::Cancelled),
            Ok(Ok(row)) => Some(Outcome::Acknowledged(place(&row))),
            Ok(Err(error)) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => None,
            _ => Some(Outcome::Unknown),
        }
    }

    /// Whether the write was warned about. Only its commit can be; and the text may be in any language.
    fn was_warned(&self) -> bool {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = std::iter::from_fn(|| notices.try_recv().ok());
        said.any(|notice| *notice.code() == SqlState::WARNING)
    }
}

/// Goes wherever the primary is: it tries the nodes in turn, as libpq does with several hosts.
struct Roaming {
    id: u16,
    routes: Vec<Route>,
    next: usize,
}

impl Roaming {
    async fn write(mut self, history: Arc<History>, stop: Arc<AtomicBool>) {
        let mut number = i64::from(self.id) << 40;
        let mut ready: Option<(u16, Ready)> = None;
        while !stop.load(Ordering::Relaxed) {
            let Some((node, connected)) = &ready else {
                let node = self.next % self.routes.len();
                ready = Ready::connect(&self.routes[node]).await.ok().map(|r| (u16::try_from(node).unwrap_or(0), r));
                if ready.is_none() {
                    self.next += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                continue;
            };
            // Every try is a new number: one whose outcome is unknown is never sent again.
            number += 1;
            let (client, node, sent) = (self.id, *node, history.now());
            match connected.write(number).await {
                Some(outcome) => {
                    history.wrote(Write { client, node, number, sent, ended: history.now(), outcome });
                    if outcome == Outcome::Unknown {
                        ready = None;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                None => {
                    self.next += 1;
                    ready = None;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

/// Writes to one node alone, and sees by that what the node is.
struct AtNode {
    id: u16,
    node: u16,
    route: Route,
}

impl AtNode {
    async fn write(self, history: Arc<History>, stop: Arc<AtomicBool>) {
        let mut number = i64::from(self.id) << 40;
        let mut ready: Option<Ready> = None;
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(PAUSE_AT_NODE).await;
            let Some(connected) = &ready else {
                match Ready::connect(&self.route).await {
                    Ok(connected) => ready = Some(connected),
                    Err(error) => {
                        if let Some(seen) = seen_by(&error) {
                            history.saw(self.node, seen);
                        }
                    }
                }
                continue;
            };
            number += 1;
            let sent = history.now();
            let outcome = connected.write(number).await;
            let ended = history.now();
            match outcome {
                Some(Outcome::Acknowledged(_)) => history.saw(self.node, Seen::Primary),
                None => history.saw(self.node, Seen::Standby),
                // It takes writes, and no standby confirms them.
                Some(Outcome::Cancelled) => history.saw(self.node, Seen::Waiting),
                // The connection broke, or nothing came: the next one tells what it is.
                Some(Outcome::Unknown) if ended - sent >= 1_000_000 => history.saw(self.node, Seen::Waiting),
                Some(Outcome::Unknown) => {}
            }
            if let Some(outcome) = outcome {
                history.wrote(Write { client: self.id, node: self.node, number, sent, ended, outcome });
                if outcome == Outcome::Unknown {
                    ready = None;
                }
            }
        }
    }
}

/// Where a write took place, as the first columns of its answer tell.
pub(super) fn place(row: &Row) -> Place {
    let place = || -> Option<Place> {
        Some(Place {
            timeline: TimelineId(u32::from_str_radix(row.try_get(0).ok()?, 16).ok()?),
            lsn: row.try_get::<_, &str>(1).ok()?.parse().ok()?,
            xid: row.try_get::<_, &str>(2).ok()?.parse().ok()?,
        })
    };
    place().expect("the insert tells where it took place")
}

/// What a failed connection tells of a node.
fn seen_by(error: &Error) -> Option<Seen> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(postgres) = error.downcast_ref::<tokio_postgres::Error>()
            && let Some(code) = postgres.code()
        {
            return (*code == SqlState::CANNOT_CONNECT_NOW).then_some(Seen::Starting);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::ConnectionRefused => Some(Seen::Stopped),
                std::io::ErrorKind::TimedOut => Some(Seen::Silent),
                _ => None,
            };
        }
        cause = error.source();
    }
    Some(Seen::Silent)
}
