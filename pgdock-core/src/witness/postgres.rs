//! [`PostgresWitness`]: a document that is a row of a table, on a PostgreSQL outside the cluster.
//!
//! A swap is one `UPDATE … WHERE nonce = …` that commits by itself, with `synchronous_commit = on`. The nonce of
//! each body is its version, so that none comes back, not even after a restore of that server. A server
//! that is a member of the cluster would be asked who leads it while it is down: it is refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Record, Swap, Version, Witness};
use crate::{Error, Result};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The table, in the first schema of the user's search path.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS pgdock_witness (\
    cluster text PRIMARY KEY, heartbeat numeric NOT NULL, nonce text NOT NULL, document text NOT NULL)";

/// What a user of that table must be allowed.
const GRANT: &str = "GRANT SELECT, INSERT, UPDATE ON pgdock_witness TO";

/// No default of the user may weaken a swap, or make it wait without end.
const OPTIONS: &str = "-c synchronous_commit=on -c default_transaction_read_only=off \
    -c default_transaction_isolation=read\\ committed -c statement_timeout=2s -c lock_timeout=2s \
    -c client_min_messages=warning";

/// Where a document is, and how to get at it.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// The server's host name or IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role.
    pub user: String,
    /// Its password, where it has one.
    pub password: Option<SecretString>,
    /// TLS, and whom to trust; none where the connection may be made without.
    pub tls: Option<Arc<ClientConfig>>,
    /// The row: the cluster's name.
    pub row: String,
}

/// A document in a table.
#[derive(Debug)]
pub struct PostgresWitness {
    config: PostgresConfig,
    timeout: Duration,
    live: Mutex<Option<Live>>,
}

#[derive(Debug)]
struct Live {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
    /// Of the server's own cluster.
    system_identifier: u64,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Why a statement has no result.
enum Fault {
    /// There is no connection, or the server is not one to trust a document to.
    Unusable(Error),
    /// The server did not carry it out.
    Refused(tokio_postgres::Error),
    /// Nobody knows.
    Broken(tokio_postgres::Error),
}

impl PostgresWitness {
    /// The document that the configuration names; it need not exist yet, nor its table. Nothing is sent.
    #[must_use]
    pub fn new(config: PostgresConfig) -> Self {
        Self { config, timeout: TIMEOUT, live: Mutex::new(None) }
    }

    /// How long a call may take. Default 2 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Removes a document that no cluster owns.
    ///
    /// # Errors
    /// `Unavailable` where it may still be there.
    pub(super) async fn remove(&self) -> Result<()> {
        let sql = "DELETE FROM pgdock_witness WHERE cluster = $1";
        let sent = AtomicBool::new(false);
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&self.config.row, Type::TEXT)];
        let asked = self.ask(sql, &params, &sent);
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(fault)) => Err(self.failed(fault)),
            Err(_) => Err(self.late()),
        }
    }

    fn shown(&self) -> String {
        format!("witness={self}")
    }

    fn late(&self) -> Error {
        let why = format!("no answer within {:?}", self.timeout);
        Error::unavailable(format!("the witness server did not answer. {}", self.shown())).because(why)
    }

    fn failed(&self, fault: Fault) -> Error {
        match fault {
            Fault::Unusable(error) => error,
            Fault::Broken(e) => {
                Error::unavailable(format!("the connection to the witness server broke. {}", self.shown()))
                    .because(causes(&e))
                    .outcome_unknown()
            }
            Fault::Refused(e) => {
                let user = &self.config.user;
                let error = match e.code() {
                    Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                        Error::invalid(format!("the witness server does not let {user} do it. {}", self.shown()))
                            .hint(format!("as its owner, run there: {TABLE}; {GRANT} \"{user}\";"))
                    }
                    Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
                        Error::unavailable(format!("the witness server is read only. {}", self.shown()))
                    }
                    _ => Error::unavailable(format!("the witness server refuses a statement. {}", self.shown())),
                };
                error.because(causes(&e))
            }
        }
    }

    /// Runs one statement, and leaves a mark once it may have been sent.
    async fn ask(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
        sent: &AtomicBool,
    ) -> Result<(Vec<Row>, u64), Fault> {
        let mut slot = self.live.lock().await;
        // Taken out: a call that is given up half way leaves no connection with an answer to come.
        let live = match slot.take() {
            Some(live) if !live.client.is_closed() => live,
            _ => self.connect().await.map_err(Fault::Unusable)?,
        };
        sent.store(true, Ordering::Relaxed);
        match live.client.query_typed(sql, params).await {
            Ok(rows) => {
                let system_identifier = live.system_identifier;
                *slot = Some(live);
                Ok((rows, system_identifier))
            }
            // An error ends the statement's transaction; a fatal one comes at any time, also after a commit.
            Err(e) if e.as_db_error().is_some_and(|e| e.parsed_severity() == Some(Severity::Error)) => {
                *slot = Some(live);
                Err(Fault::Refused(e))
            }
            Err(e) => Err(Fault::Broken(e)),
        }
    }

    async fn connect(&self) -> Result<Live> {
        let PostgresConfig { host, port, database, user, password, tls, .. } = &self.config;
        let mut config = tokio_postgres::Config::new();
        config
            .host(host)
            .port(*port)
            .dbname(database)
            .user(user)
            .application_name("pgdock_witness")
            .options(OPTIONS)
            .connect_timeout(self.timeout)
            .tcp_user_timeout(self.timeout)
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        let cannot = |e: tokio_postgres::Error| {
            let error = match e.code() {
                Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                    Error::invalid(format!("the witness server refuses these credentials. {}", self.shown()))
                        .hint("check PGPASSWORD in the credentials file, and pg_hba.conf there")
                }
                Some(&SqlState::INVALID_CATALOG_NAME) => {
                    Error::invalid(format!("the witness server has no such database. {}", self.shown()))
                }
                _ => Error::unavailable(format!("there is no connection to the witness server. {}", self.shown())),
            };
            error.because(causes(&e))
        };
        let (client, connection) = match tls {
            Some(tls) => {
                let (client, connection) =
                    config.connect(MakeRustlsConnect::new((**tls).clone())).await.map_err(cannot)?;
                (client, tokio::spawn(async move { drop(connection.await) }))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(cannot)?;
                (client, tokio::spawn(async move { drop(connection.await) }))
            }
        };
        let mut live = Live { client, connection, system_identifier: 0 };
        let sql = "SELECT system_identifier::text, pg_is_in_recovery(), current_setting('fsync') = 'on', \
            current_setting('synchronous_commit') IN ('on', 'remote_apply') FROM pg_control_system()";
        let row = live.client.query_typed_one(sql, &[]).await.map_err(cannot)?;
        if row.get(1) {
            return Err(Error::unavailable(format!(
                "the witness server is a standby, whose answers may be old. {}",
                self.shown()
            ))
            .hint("name its primary in `url`"));
        }
        if !row.get::<_, bool>(2) || !row.get::<_, bool>(3) {
            return Err(Error::needs_operator(format!(
                "the witness server may forget what it has acknowledged: fsync or synchronous_commit is off. {}",
                self.shown()
            ))
            .hint("turn both on there"));
        }
        live.system_identifier = row.get::<_, String>(0).parse().unwrap_or_default();
        Ok(live)
    }

    /// Refuses a server that is a part of the cluster itself.
    fn outside(&self, record: &Record, server: u64) -> Result<()> {
        if record.system_identifier != server {
            return Ok(());
        }
        Err(Error::needs_operator(format!(
            "the witness server is a member of the cluster itself. system_identifier={server}, {}",
            self.shown()
        ))
        .hint("use a server that does not depend on this cluster, or another kind of witness"))
    }

    async fn get(&self, sent: &AtomicBool) -> Result<Option<(Record, Version)>> {
        let sql = "SELECT document, nonce FROM pgdock_witness WHERE cluster = $1";
        let (rows, server) = match self.ask(sql, &[(&self.config.row, Type::TEXT)], sent).await {
            Ok(found) => found,
            Err(Fault::Refused(e)) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(None),
            Err(fault) => return Err(self.failed(fault)),
        };
        let Some(row) = rows.first() else { return Ok(None) };
        let record = Record::decode(row.get::<_, &str>(0).as_bytes()).map_err(|e| e.at(self.shown()))?;
        self.outside(&record, server)?;
        Ok(Some((record, Version(row.get(1)))))
    }

    async fn put(&self, next: &Record, expected: Option<&Version>, sent: &AtomicBool) -> Result<bool> {
        let document = String::from_utf8(next.encode()).expect("JSON is UTF-8");
        let (row, heartbeat) = (&self.config.row, next.heartbeat.to_string());
        let written = match expected {
            Some(version) => {
                let sql = "UPDATE pgdock_witness SET heartbeat = $2::numeric, nonce = $3, document = $4 \
                    WHERE cluster = $1 AND nonce = $5 RETURNING nonce";
                let params: &[(&(dyn ToSql + Sync), Type)] = &[
                    (row, Type::TEXT),
                    (&heartbeat, Type::TEXT),
                    (&next.nonce, Type::TEXT),
                    (&document, Type::TEXT),
                    (&version.0, Type::TEXT),
                ];
                match self.ask(sql, params, sent).await {
                    // No table, no document.
                    Err(Fault::Refused(e)) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(false),
                    written => written,
                }
            }
            None => {
                let sql = "INSERT INTO pgdock_witness (cluster, heartbeat, nonce, document) \
                    VALUES ($1, $2::numeric, $3, $4) ON CONFLICT (cluster) DO NOTHING RETURNING nonce";
                let params: &[(&(dyn ToSql + Sync), Type)] =
                    &[(row, Type::TEXT), (&heartbeat, Type::TEXT), (&next.nonce, Type::TEXT), (&document, Type::TEXT)];
                match self.ask(sql, params, sent).await {
                    Err(Fault::Refused(e)) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                        // That one is known not to have landed.
                        self.make_table().await?;
                        self.ask(sql, params, sent).await
                    }
                    written => written,
                }
            }
        };
        Ok(!written.map_err(|fault| self.failed(fault))?.0.is_empty())
    }

    async fn make_table(&self) -> Result<()> {
        let sent = AtomicBool::new(false);
        match self.ask(TABLE, &[], &sent).await {
            Ok(_) => Ok(()),
            // Somebody else makes it at the same moment.
            Err(Fault::Refused(e))
                if matches!(e.code(), Some(&SqlState::UNIQUE_VIOLATION | &SqlState::DUPLICATE_TABLE)) =>
            {
                Ok(())
            }
            // What it was made for was not sent yet.
            Err(fault) => Err(self.failed(fault).before_sending()),
        }
    }
}

impl std::fmt::Display for PostgresWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PostgresConfig { host, port, database, user, row, .. } = &self.config;
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(host)) => write!(f, "postgres://{user}@[{host}]:{port}/{database}#{row}"),
            _ => write!(f, "postgres://{user}@{host}:{port}/{database}#{row}"),
        }
    }
}

#[async_trait]
impl Witness for PostgresWitness {
    async fn read(&self) -> Result<Option<(Record, Version)>> {
        let sent = AtomicBool::new(false);
        match tokio::time::timeout(self.timeout, self.get(&sent)).await {
            Ok(read) => read,
            Err(_) => Err(self.late()),
        }
    }

    async fn compare_and_swap(&self, next: &Record, expected: Option<&Version>) -> Swap {
        if next.nonce.is_empty() {
            return Swap::Ambiguous(Error::internal("a document without a nonce was not written"));
        }
        let sent = AtomicBool::new(false);
        let swap = async {
            self.not_a_member(next).await?;
            self.put(next, expected, &sent).await
        };
        match tokio::time::timeout(self.timeout, swap).await {
            Ok(Ok(true)) => Swap::Committed(Version(next.nonce.clone())),
            Ok(Ok(false)) => Swap::Conflict,
            Ok(Err(error)) => Swap::Ambiguous(error),
            Err(_) if sent.load(Ordering::Relaxed) => Swap::Ambiguous(self.late().outcome_unknown()),
            Err(_) => Swap::Ambiguous(self.late()),
        }
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }
}

impl PostgresWitness {
    /// Looks at the server before anything is written to it.
    async fn not_a_member(&self, next: &Record) -> Result<()> {
        let mut slot = self.live.lock().await;
        if slot.as_ref().is_none_or(|live| live.client.is_closed()) {
            *slot = None;
            *slot = Some(self.connect().await?);
        }
        self.outside(next, slot.as_ref().map_or(0, |live| live.system_identifier))
    }
}

/// The causes of an error, on one line. Neither statements nor values are in them.
fn causes(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
