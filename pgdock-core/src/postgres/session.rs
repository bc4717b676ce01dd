//! [`Session`]: a connection to the local PostgreSQL as its superuser, over the Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use crate::{Error, Result};

/// How long making a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Set for every session: users' defaults for roles and databases must not reach what pgdock does, no
/// statement of it may wait for a standby, and none is logged.
const OPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
     -c synchronous_commit=local -c default_transaction_read_only=off -c search_path=pg_catalog \
     -c log_statement=none -c log_duration=off -c log_min_duration_statement=-1 -c client_min_messages=warning";

/// A connection that is made when it is first needed and again when it was lost. One request at a time.
#[derive(Debug)]
pub struct Session {
    socket_dir: PathBuf,
    port: u16,
    user: &'static str,
    database: String,
    live: Mutex<Option<Live>>,
}

/// Why a request failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody listens.
    Nobody,
    /// The server starts, recovers, or shuts down, and does not accept connections.
    NotAccepting,
    /// The server did not answer in time.
    Silent,
    /// The connection broke.
    Broken(tokio_postgres::Error),
    /// The server refused.
    Refused(tokio_postgres::Error),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Nobody => Self::unavailable("postgresql is not running"),
            Fault::NotAccepting => Self::not_ready("postgresql does not accept connections at present"),
            Fault::Silent => Self::unavailable("postgresql did not answer in time").outcome_unknown(),
            Fault::Broken(e) => Self::unavailable("the connection to postgresql broke").because(e).outcome_unknown(),
            Fault::Refused(e) => {
                let detail = e.as_db_error().map_or_else(String::new, |d| format!(": {}", d.message()));
                Self::unavailable(format!("postgresql refused a statement{detail}")).because(e)
            }
        }
    }
}

#[derive(Debug)]
struct Live {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A parameter of a statement, with its type.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

impl Session {
    /// A session with the server whose socket lies in `socket_dir`. Connects nowhere yet.
    #[must_use]
    pub fn new(socket_dir: &Path, port: u16) -> Self {
        Self {
            socket_dir: socket_dir.to_owned(),
            port,
            user: super::conf_file::SUPERUSER,
            database: "postgres".to_owned(),
            live: Mutex::new(None),
        }
    }

    /// In another database than `postgres`.
    #[must_use]
    pub fn to_database(mut self, name: &str) -> Self {
        self.database = name.to_owned();
        self
    }

    /// Makes the connection where there is none, so that the next request need not.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(&self) -> Result<(), Fault> {
        let mut slot = self.live.lock().await;
        if slot.as_ref().is_none_or(|l| l.client.is_closed()) {
            *slot = Some(self.connect().await?);
        }
        Ok(())
    }

    /// Lets the connection go.
    pub async fn close(&self) {
        self.live.lock().await.take();
    }

    /// Runs a statement in one round trip and returns its rows.
    ///
    /// When it takes longer than `limit`, or the caller goes away, the connection is dropped: the next
    /// request makes a new one.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn query(&self, sql: &str, params: &[Param<'_>], limit: Duration) -> Result<Vec<Row>, Fault> {
        let mut slot = self.live.lock().await;
        let live = self.take(&mut slot).await?;
        let answer = tokio::time::timeout(limit, live.client.query_typed(sql, params)).await;
        Self::settle(&mut slot, live, answer)
    }

    /// Runs statements that return nothing, one after the other, in one round trip.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn batch(&self, sql: &str, limit: Duration) -> Result<(), Fault> {
        let mut slot = self.live.lock().await;
        let live = self.take(&mut slot).await?;
        let answer = tokio::time::timeout(limit, live.client.batch_execute(sql)).await;
        Self::settle(&mut slot, live, answer)
    }

    async fn take(&self, slot: &mut Option<Live>) -> Result<Live, Fault> {
        match slot.take() {
            Some(live) if !live.client.is_closed() => Ok(live),
            _ => self.connect().await,
        }
    }

    fn settle<T>(
        slot: &mut Option<Live>,
        live: Live,
        answer: Result<Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, Fault> {
        match answer {
            Err(_) => Err(Fault::Silent),
            Ok(Ok(value)) => {
                *slot = Some(live);
                Ok(value)
            }
            Ok(Err(error)) if ends_connection(&error) || live.client.is_closed() => Err(Fault::Broken(error)),
            Ok(Err(error)) => {
                *slot = Some(live);
                Err(Fault::Refused(error))
            }
        }
    }

    async fn connect(&self) -> Result<Live, Fault> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.socket_dir)
            .port(self.port)
            .user(self.user)
            .dbname(&self.database)
            .application_name("pgdock")
            .options(OPTIONS);
        match tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls)).await {
            Err(_) => Err(Fault::Silent),
            Ok(Ok((client, connection))) => {
                let connection = tokio::spawn(async move {
                    // Its errors come back through the client.
                    let _ = connection.await;
                });
                Ok(Live { client, connection })
            }
            Ok(Err(error)) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => Err(Fault::NotAccepting),
            Ok(Err(error)) if nobody_listens(&error) => Err(Fault::Nobody),
            Ok(Err(error)) if error.as_db_error().is_some() => Err(Fault::Refused(error)),
            Ok(Err(error)) => Err(Fault::Broken(error)),
        }
    }
}

/// Whether the server ends the connection with this error.
fn ends_connection(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || error.as_db_error().is_none()
        || error.as_db_error().is_some_and(|e| matches!(e.parsed_severity(), Some(Severity::Fatal | Severity::Panic)))
}

fn nobody_listens(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let io = error.source().and_then(|e| e.downcast_ref::<std::io::Error>());
    io.is_some_and(|e| matches!(e.kind(), NotFound | ConnectionRefused))
}
