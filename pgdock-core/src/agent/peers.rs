//! The links between agents: each holds one connection to each other agent, and reads its reports.
//!
//! ```text
//!  dial ──▶ GET /v1/reports ──▶ line ──▶ Heard ──▶ line ──▶ …
//!   ▲                            │ five beats of silence, or an end
//!   └──── backoff ◀── Refused ◀──┴──▶ Lost, and dial again at once
//! ```
//!
//! A link decides nothing: it tells the loop what it hears, and what becomes of its attempts to connect.
//! Silence is not death; an answer that nobody listens comes from the host, and says more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::ClientConfig;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dial::{Connection, DialError, Target, dial, request};
use crate::report::Report;
use crate::{NodeName, Result};

/// How long it may take to connect, and then to get the head of the answer.
const CONNECT_BUDGET: Duration = Duration::from_secs(1);
/// The first pause between two attempts, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection without a line for so many beats is given up.
const SILENT_BEATS: u32 = 5;
/// The longest line, in bytes.
const LINE_MAX: usize = 1024 * 1024;

/// Which agents to listen to, and how.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// The cluster's name.
    pub cluster: String,
    /// The other nodes, each with the address of its agent as `host:port`.
    pub peers: BTreeMap<NodeName, String>,
    /// How often a peer speaks, at least.
    pub beat: Duration,
    /// From [`client_config`](super::tls::client_config).
    pub tls: Arc<ClientConfig>,
    /// What opens the stream of reports.
    pub token: SecretString,
}

/// What a link tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A peer spoke.
    Heard(Box<Report>),
    /// The peer's host answers that nobody listens there. Told at each attempt.
    Refused(NodeName),
    /// The connection to a peer that was heard ended, or fell silent. Told once.
    Lost(NodeName),
    /// Somebody listens there who is not the peer, or does not take this node for one. Told once, until it
    /// changes.
    BadIdentity {
        /// The peer that was expected.
        node: NodeName,
        /// What is wrong, for a person.
        problem: String,
    },
}

/// Starts the links; they end with `shutdown`, or when nobody takes their events any more.
///
/// # Errors
/// `Invalid` when an address is none.
pub fn spawn(
    config: PeersConfig,
    events: &mpsc::Sender<PeerEvent>,
    shutdown: &CancellationToken,
) -> Result<JoinSet<()>> {
    let config = Arc::new(config);
    let mut links = JoinSet::new();
    let targets: Vec<_> =
        config.peers.iter().map(|(node, address)| Ok((node.clone(), Target::new(address)?))).collect::<Result<_>>()?;
    for (node, target) in targets {
        let link = Link { node, target, config: config.clone(), events: events.clone(), problem: None };
        let shutdown = shutdown.clone();
        links.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = link.run() => {}
            }
        });
    }
    Ok(links)
}

struct Link {
    node: NodeName,
    target: Target,
    config: Arc<PeersConfig>,
    events: mpsc::Sender<PeerEvent>,
    /// The problem told last, if it still stands.
    problem: Option<String>,
}

/// How an attempt ended.
enum End {
    Refused,
    Unreachable,
    BadIdentity(String),
    /// After so many lines.
    Broke(u64),
}

impl Link {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        while !self.events.is_closed() {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let end = self.attempt().await;
            pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            let event = match end {
                End::Unreachable | End::Broke(0) => continue,
                End::Refused => PeerEvent::Refused(self.node.clone()),
                End::Broke(lines) => {
                    // At once: whether its host refuses now tells a dead agent from a lost network. One that
                    // ends after each line does not make this link spin.
                    pause = if lines > 1 { Duration::ZERO } else { PAUSE_MIN };
                    PeerEvent::Lost(self.node.clone())
                }
                End::BadIdentity(problem) => {
                    if self.problem.as_ref() == Some(&problem) {
                        continue;
                    }
                    self.problem = Some(problem.clone());
                    PeerEvent::BadIdentity { node: self.node.clone(), problem }
                }
            };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    async fn attempt(&mut self) -> End {
        let opened = tokio::time::timeout(CONNECT_BUDGET, self.open()).await;
        let (connection, mut lines) = match opened {
            Ok(Ok(open)) => open,
            Ok(Err(end)) => return end,
            Err(_) => return End::Unreachable,
        };
        let mut heard = 0;
        let end = loop {
            match tokio::time::timeout(self.config.beat * SILENT_BEATS, lines.next()).await {
                Ok(Some(line)) => match self.check(&line) {
                    Ok(report) => {
                        heard += 1;
                        self.problem = None;
                        if self.events.send(PeerEvent::Heard(Box::new(report))).await.is_err() {
                            break End::Broke(heard);
                        }
                    }
                    Err(problem) => break End::BadIdentity(problem),
                },
                Ok(None) | Err(_) => break End::Broke(heard),
            }
        };
        drop(connection);
        end
    }

    async fn open(&self) -> Result<(Connection, Lines), End> {
        let mut connection = dial(&self.target, &self.config.tls).await.map_err(|e| match e {
            DialError::Refused(_) => End::Refused,
            DialError::BadIdentity(problem) => End::BadIdentity(problem),
            DialError::Unreachable(_) => End::Unreachable,
        })?;
        let request = request(Method::GET, &self.target, "/v1/reports", Some(&self.config.token), Bytes::new())
            .map_err(|e| End::BadIdentity(e.chain()))?;
        let response = connection.sender.send_request(request).await.map_err(|_| End::Unreachable)?;
        match response.status() {
            StatusCode::OK => Ok((connection, Lines::new(response.into_body()))),
            StatusCode::UNAUTHORIZED => Err(End::BadIdentity(format!(
                "its agent does not take this node's token. node={}, address={}",
                self.node, self.target.address
            ))),
            status if status.is_server_error() => Err(End::Unreachable),
            status => Err(End::BadIdentity(format!(
                "what listens there does not speak like an agent. node={}, address={}, status={}",
                self.node,
                self.target.address,
                status.as_u16()
            ))),
        }
    }

    fn check(&self, line: &[u8]) -> Result<Report, String> {
        let address = &self.target.address;
        let report: Report = serde_json::from_slice(line)
            .map_err(|e| format!("its reports are not understood: {e}. node={}, address={address}", self.node))?;
        if report.cluster != self.config.cluster {
            return Err(format!(
                "its agent belongs to another cluster. node={}, address={address}, cluster={}",
                self.node, report.cluster
            ));
        }
        if report.node != self.node {
            return Err(format!(
                "another node's agent listens there. node={}, address={address}, found={}",
                self.node, report.node
            ));
        }
        Ok(report)
    }
}

/// The lines of an answer.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new() }
    }

    /// The newest complete line; those before it, if several came at once, are out of date. `None` at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let data = self.body.frame().await?.ok()?.into_data().unwrap_or_default();
            self.buffer.extend_from_slice(&data);
            if let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut lines = std::mem::replace(&mut self.buffer, rest);
                lines.pop();
                let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
                return Some(lines.split_off(start));
            }
            if self.buffer.len() > LINE_MAX {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
