//! [`Writer`]: a client that inserts numbers one after the other, wherever the primary is, and remembers
//! which of them were acknowledged, and when.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgdock_core::secrets::Secrets;
use pgdock_core::{Error, Result, Settings};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A commit that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// The number.
    pub number: i64,
    /// When the acknowledgement came.
    pub at: Instant,
}

/// A client that writes until it is told to stop.
#[derive(Debug)]
pub struct Writer {
    acks: Arc<Mutex<Vec<Ack>>>,
    stop: Arc<AtomicBool>,
    job: JoinHandle<()>,
}

/// How long one statement may take before its connection is given up.
const STATEMENT: Duration = Duration::from_secs(1);
/// How long a node may take to let a client in.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// What PostgreSQL says to a client besides its answers.
pub type Notices = mpsc::UnboundedReceiver<DbError>;

/// How a client connects: TLS with the cluster's authority, all nodes in turn, the first that is read-write.
#[derive(Clone)]
pub struct Route {
    /// One for each node: what a frozen node leaves unanswered must not keep the others from being tried.
    configs: Vec<tokio_postgres::Config>,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").finish_non_exhaustive()
    }
}

impl Route {
    /// To the primary of a cluster, as the owner of its database.
    ///
    /// # Errors
    /// `Invalid` where the secrets are not readable.
    pub fn to_primary(settings: &Settings, secrets: &Secrets) -> Result<Self> {
        let mut common = tokio_postgres::Config::new();
        common
            .user(&settings.postgres.owner)
            .dbname(&settings.postgres.database)
            .password(secrets.app.expose_secret())
            .connect_timeout(Duration::from_secs(1))
            .ssl_mode(tokio_postgres::config::SslMode::Require)
            .target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        let nodes = settings.nodes.values().map(|node| {
            let mut config = common.clone();
            config.host(&node.address).port(node.postgres_port);
            config
        });
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(secrets.ca_pem.as_bytes())
            .map_err(|e| Error::invalid("not a certificate").because(e))?;
        roots.add(ca).map_err(|e| Error::invalid("not an authority").because(e))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::internal("no TLS versions").because(e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { configs: nodes.collect(), tls: MakeRustlsConnect::new(tls) })
    }

    /// To one node, whatever it is.
    #[must_use]
    pub fn to_node(&self, address: &str, port: u16) -> Self {
        let mut config = tokio_postgres::Config::new();
        config
            .host(address)
            .port(port)
            .connect_timeout(Duration::from_secs(1))
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        if let Some(like) = self.configs.first() {
            config
                .user(like.get_user().unwrap_or_default())
                .dbname(like.get_dbname().unwrap_or_default())
                .password(like.get_password().unwrap_or_default());
        }
        Self { configs: vec![config], tls: self.tls.clone() }
    }

    /// The same, also to servers that offer no TLS.
    #[must_use]
    pub fn with_or_without_tls(mut self) -> Self {
        for config in &mut self.configs {
            config.ssl_mode(tokio_postgres::config::SslMode::Prefer);
        }
        self
    }

    /// How to connect to the first node, with the TLS that it takes.
    ///
    /// # Panics
    /// Where there is no node.
    #[must_use]
    pub fn parts(&self) -> (tokio_postgres::Config, MakeRustlsConnect) {
        (self.configs.first().expect("there is a node").clone(), self.tls.clone())
    }

    /// Connects to the first node that will do.
    ///
    /// # Errors
    /// What the last PostgreSQL says; a timeout where it says nothing.
    pub async fn connect(&self) -> Result<Client> {
        self.connect_listening().await.map(|(client, _)| client)
    }

    /// As [`connect`](Self::connect), with what PostgreSQL says besides its answers.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn connect_listening(&self) -> Result<(Client, Notices)> {
        let mut last = Error::internal("there is no node to connect to");
        for config in &self.configs {
            match tokio::time::timeout(HANDSHAKE, config.connect(self.tls.clone())).await {
                Ok(Ok((client, mut connection))) => {
                    let (told, notices) = mpsc::unbounded_channel();
                    tokio::spawn(async move {
                        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                            if let AsyncMessage::Notice(notice) = message {
                                // Nobody may listen.
                                let _ = told.send(notice);
                            }
                        }
                    });
                    return Ok((client, notices));
                }
                Ok(Err(e)) => last = Error::unavailable("no connection").because(e),
                Err(_) => last = Error::unavailable(format!("no connection within {HANDSHAKE:?}")),
            }
        }
        Err(last)
    }
}

impl Writer {
    /// Makes the table, and begins to write.
    ///
    /// # Errors
    /// Where the table cannot be made.
    pub async fn start(route: Route, first: i64) -> Result<Self> {
        let client = route.connect().await?;
        client
            .batch_execute("CREATE TABLE IF NOT EXISTS acknowledged (number bigint PRIMARY KEY)")
            .await
            .map_err(|e| Error::unavailable("cannot make the table").because(e))?;
        let acks = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let job = tokio::spawn(write(route, first, Some(client), Arc::clone(&acks), Arc::clone(&stop)));
        Ok(Self { acks, stop, job })
    }

    /// What was acknowledged so far.
    #[must_use]
    pub fn acks(&self) -> Vec<Ack> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something sent after now was acknowledged.
    ///
    /// # Errors
    /// `Unavailable` when nothing is in time.
    pub async fn goes_on(&self, limit: Duration) -> Result<Ack> {
        let begin = Instant::now();
        loop {
            if let Some(ack) = self.acks.lock().unwrap_or_else(PoisonError::into_inner).last()
                && ack.at > begin
            {
                return Ok(*ack);
            }
            if begin.elapsed() > limit {
                return Err(Error::unavailable(format!("no write was acknowledged within {limit:?}")));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The longest pause between two acknowledgements of which the later came after `since`.
    #[must_use]
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let acks = self.acks();
        acks.windows(2).filter(|w| w[1].at >= since).map(|w| w[1].at - w[0].at).max().unwrap_or_default()
    }

    /// Stops, and tells all that was acknowledged.
    pub async fn stop(self) -> Vec<Ack> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.job.await;
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn write(
    route: Route,
    first: i64,
    mut client: Option<Client>,
    acks: Arc<Mutex<Vec<Ack>>>,
    stop: Arc<AtomicBool>,
) {
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = &client else {
            client = route.connect().await.ok();
            if client.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            continue;
        };
        // Every try is a new number: one whose outcome is unknown is never sent again.
        number += 1;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&number];
        let insert = connected.execute("INSERT INTO acknowledged VALUES ($1)", &params);
        match tokio::time::timeout(STATEMENT, insert).await {
            Ok(Ok(_)) => {
                let ack = Ack { number, at: Instant::now() };
                acks.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            _ => client = None,
        }
    }
}

/// The acknowledged numbers that a node does not have.
///
/// # Errors
/// Where it cannot be asked.
pub async fn missing(client: &Client, acks: &[Ack]) -> Result<Vec<i64>> {
    let rows = client
        .query("SELECT number FROM acknowledged", &[])
        .await
        .map_err(|e| Error::unavailable("cannot read the table").because(e))?;
    let found: std::collections::HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    Ok(acks.iter().map(|a| a.number).filter(|n| !found.contains(n)).collect())
}
