//! Asking a node what it is: again and again, on a connection of its own, so that no load on the pool hides the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::PgLsn;

use super::connection::{Connection, Dial, Ears};
use super::error::{Failure, described, failure};
use super::fleet::{Answer, Fleet, Node};
use super::topology::Role;

/// The name of the WAL file that a primary writes begins with its timeline. A standby tells the timeline that it
/// streams to those who may see it (`pg_read_all_stats`); to others, that of its last restart point, which is late.
const ROLE: &str = "select pg_is_in_recovery(),
    case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end,
    case when pg_is_in_recovery()
         then coalesce((select received_tli from pg_stat_wal_receiver),
                       greatest((pg_control_checkpoint()).timeline_id,
                                (pg_control_recovery()).min_recovery_end_timeline))
         else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end,
    (pg_control_system()).system_identifier,
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint";

/// Which nodes a primary feeds, and which node a standby follows.
const NEIGHBOURS: &str = "select host(client_addr), null::int from pg_stat_replication where client_addr is not null
    union select sender_host, sender_port from pg_stat_wal_receiver where sender_host is not null";

/// A node that another one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) host: String,
    /// `None` where only the other end of a connection is known.
    pub(super) port: Option<u16>,
}

/// Takes the neighbours of a node.
pub(super) type Tell = dyn Fn(&Node, Vec<Neighbour>) + Send + Sync;

/// What a poll needs beside its node.
pub(super) struct Polling {
    pub(super) fleet: Arc<Fleet>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) connect: Duration,
    pub(super) every: Duration,
    /// Told the neighbours of the node, where nodes are to be discovered.
    pub(super) neighbours: Option<Arc<Tell>>,
}

/// Between two questions while there is no primary: somebody may be about to become one.
const HURRIED: Duration = Duration::from_millis(50);

/// Asks a node for its role, until its task is aborted.
pub(super) async fn poll(polling: Polling, node: Arc<Node>) {
    let fleet = &polling.fleet;
    let mut connection = None;
    loop {
        let asked = fleet.now();
        let mut pause = polling.every;
        match ask(&polling, &node, &mut connection).await {
            Ok(answer) => {
                if !fleet.answered(&node, asked, answer) {
                    connection = None;
                }
                if fleet.view().primary().is_none() {
                    pause = pause.min(HURRIED);
                }
            }
            Err(error) => {
                // What is still on its way would be taken for the answer to the next question.
                connection = None;
                fleet.failed(&node, &error);
                // Nobody else asks a node that is in doubt.
                pause = pause.min(polling.connect);
            }
        }
        // Sooner when somebody met an error that a new role would explain, or when the server closes the connection.
        let closed = async {
            match &mut connection {
                Some(connection) => connection.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = timeout(pause, node.asked.notified()) => {}
            () = closed => {}
        }
    }
}

async fn ask(polling: &Polling, node: &Node, open: &mut Option<Connection>) -> Result<Answer, String> {
    if open.as_ref().is_none_or(|connection| connection.is_closed()) {
        // What this connection says of the role is asked for in a moment. To be told as well would call for another
        // question, and so on without a pause where the answer is refused.
        let ears = Ears { hot_standby: Arc::new(|_| {}), notifications: None };
        let dialed = timeout(polling.connect, polling.dial.dial(node.address.clone(), ears)).await;
        *open = Some(dialed.map_err(|_| "no connection in time".to_owned())?.map_err(told)?);
    }
    let question = node.pool.manager().questions.fetch_add(1, Ordering::SeqCst) + 1;
    let Some(connection) = open else { return Err("no connection".to_owned()) };
    let answer = async {
        let statement = connection.prepared(ROLE, &[]).await?;
        connection.query_one(&statement, &[]).await
    };
    let row = match timeout(polling.connect, answer).await {
        Ok(Ok(row)) => row,
        // Promoted or demoted between two parts of the question: ask again.
        Ok(Err(error)) if failure(&error) == Failure::ReadOnly => return Err("role is changing".to_owned()),
        Ok(Err(error)) => return Err(told(error)),
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let standby: bool = row.try_get(0).map_err(told)?;
    let lsn = row.try_get::<_, Option<PgLsn>>(1).map_err(told)?.map_or(0, u64::from);
    let timeline = row.try_get::<_, Option<i32>>(2).map_err(told)?.and_then(|timeline| u32::try_from(timeline).ok());
    let system = row.try_get::<_, i64>(3).map_err(told)?.cast_unsigned();
    let role = match (standby, timeline) {
        (true, _) => Role::Standby,
        (false, Some(timeline)) => Role::Primary { timeline },
        (false, None) => return Err("the primary tells no timeline".to_owned()),
    };
    if let Some(tell) = &polling.neighbours
        && let Ok(Ok(rows)) = timeout(polling.connect, connection.query(NEIGHBOURS, &[])).await
    {
        let host = |row: &tokio_postgres::Row| {
            let port: Option<i32> = row.try_get(1).ok()?;
            Some(Neighbour { host: row.try_get(0).ok()?, port: port.and_then(|port| u16::try_from(port).ok()) })
        };
        tell(node, rows.iter().filter_map(host).collect());
    }
    let started = row.try_get(4).map_err(told)?;
    Ok(Answer { role, timeline, lsn, system, question, started })
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where errors are mapped")]
fn told(error: tokio_postgres::Error) -> String {
    described(&error)
}
