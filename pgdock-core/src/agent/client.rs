//! [`AgentClient`]: one agent, as operators' tools see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use rustls::ClientConfig;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::{NodeStatus, OrderAnswer, OrderRequest, Outcome, wal};
use super::dial::{DialError, Target, dial, request};
use crate::backup::Label;
use crate::decide::action::Verdict;
use crate::event::Event;
use crate::postgres::diverged::{Kept, KeptChanges};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::postgres::wal_tail::WalTail;
use crate::{Error, ErrorKind, Result};

/// How long an agent may take to answer a reading call.
const READ_BUDGET: Duration = Duration::from_secs(5);
/// How long removing WAL may take.
const DROP_BUDGET: Duration = Duration::from_secs(60);
/// How long a connection may take to come about.
const CONNECT_BUDGET: Duration = Duration::from_secs(3);
/// How much longer than the agent the client waits for an order, so that the agent can say how it stands.
const GRACE: Duration = Duration::from_secs(2);
/// The longest answer, in bytes: two files of events.
const ANSWER_MAX: usize = 32 * 1024 * 1024;

/// One agent, reached over TLS. Cheap to make; each call makes a connection of its own.
#[derive(Clone, Debug)]
pub struct AgentClient {
    target: Target,
    tls: Arc<ClientConfig>,
    token: Option<SecretString>,
}

impl AgentClient {
    /// The agent at `address`, given as `host:port`. `tls` comes from
    /// [`client_config`](super::tls::client_config).
    ///
    /// # Errors
    /// `Invalid` when it is no such address.
    pub fn new(address: &str, tls: Arc<ClientConfig>) -> Result<Self> {
        Ok(Self { target: Target::new(address)?, tls, token: None })
    }

    /// With the token, which orders need.
    #[must_use]
    pub fn with_token(mut self, token: SecretString) -> Self {
        self.token = Some(token);
        self
    }

    /// Expects the certificate to name another host than the address does, as behind a tunnel.
    ///
    /// # Errors
    /// `Invalid` when it is no name of a host.
    pub fn verified_as(mut self, host: &str) -> Result<Self> {
        self.target = self.target.verified_as(host)?;
        Ok(self)
    }

    /// How the node stands.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer, `Invalid` when another cluster's agent does.
    pub async fn status(&self) -> Result<NodeStatus> {
        self.read("/v1/status").await
    }

    /// What happened on the node, oldest first: at and after a time, or all that it still knows.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub async fn events(&self, since: Option<Timestamp>) -> Result<Vec<Event>> {
        match since {
            // Written with a final Z, so that nothing in it needs escaping.
            Some(since) => self.read(&format!("/v1/events?since={since}")).await,
            None => self.read("/v1/events").await,
        }
    }

    /// The WAL that a crashed primary of this agent's ends with, from the page on that holds `from`. At most `limit`
    /// bytes, within `budget`.
    ///
    /// # Errors
    /// `Invalid` when the agent serves none, or not so much; `Unavailable` when it does not answer.
    pub(in crate::agent) async fn wal_tail(
        &self,
        timeline: TimelineId,
        from: Lsn,
        limit: usize,
        budget: Duration,
    ) -> Result<WalTail> {
        let path = wal::path(timeline, from, limit);
        let (status, headers, bytes) = self.exchange(Method::GET, &path, Bytes::new(), budget, wal::BYTES_MAX).await?;
        let start = headers.get(wal::START).and_then(|value| value.to_str().ok()?.parse().ok());
        match (status, start) {
            (StatusCode::OK, Some(start)) => Ok(WalTail { start, bytes: bytes.into() }),
            _ => Err(self.unexpected(status, &bytes)),
        }
    }

    /// Gives an order, and waits until it ended, but no longer than `deadline` from now.
    ///
    /// # Errors
    /// `Conflict` when another order is under way, `Invalid` without the right token or for a body that the
    /// agent does not accept. Where the order may have taken effect all the same, the error is
    /// `Unavailable`, and its outcome unknown.
    pub async fn order(&self, order: &OrderRequest, deadline: Duration) -> Result<Verdict> {
        let path = format!("/v1/{}", order.name());
        let body = Bytes::from(order.body(deadline).to_string());
        let (status, body) = self.call(Method::POST, &path, body, deadline + GRACE).await?;
        let answer: OrderAnswer = match serde_json::from_slice(&body) {
            Ok(answer) => answer,
            Err(_) => return Err(self.unexpected(status, &body)),
        };
        let node = &self.target.address;
        match answer.outcome {
            Outcome::Done => Ok(Verdict::Done(answer.message)),
            Outcome::Refused => Ok(Verdict::Refused(answer.message)),
            Outcome::Failed => Ok(Verdict::Failed(answer.message)),
            Outcome::Busy => Err(Error::conflict(format!("{}. agent={node}", answer.message))
                .hint("nothing was done; try again when it ended")),
            Outcome::Unknown => Err(Error::unavailable(format!("{}. agent={node}", answer.message))
                .outcome_unknown()
                .hint("look at the status before you try again")),
        }
    }

    /// Has the agent take a base backup of its node. Needs the token.
    ///
    /// # Errors
    /// `Conflict` when one is under way, or PostgreSQL does not answer; `Invalid` without the right token; `Unavailable` when the
    /// agent does not answer, which may have begun it all the same.
    pub async fn begin_backup(&self) -> Result<Label> {
        #[derive(Deserialize)]
        struct Begun {
            label: Label,
        }
        let (status, body) = self.call(Method::POST, "/v1/backup", Bytes::new(), READ_BUDGET).await?;
        match (status, serde_json::from_slice(&body)) {
            (StatusCode::OK, Ok(Begun { label })) => Ok(label),
            _ => Err(self.unexpected(status, &body)),
        }
    }

    /// Has the agent end the segment that its PostgreSQL writes. Needs the token.
    ///
    /// # Errors
    /// `Conflict` when PostgreSQL does not answer, or is in recovery; as [`begin_backup`](Self::begin_backup).
    pub(in crate::agent) async fn switch_wal(&self) -> Result<()> {
        match self.call(Method::POST, "/v1/switch-wal", Bytes::new(), READ_BUDGET * 3).await? {
            (StatusCode::OK, _) => Ok(()),
            (status, body) => Err(self.unexpected(status, &body)),
        }
    }

    /// The WAL that rewinds took off the node, oldest first. Needs the token.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub async fn diverged(&self) -> Result<Vec<Kept>> {
        self.read("/v1/diverged").await
    }

    /// What one of them held. From then on it counts as seen. Needs the token.
    ///
    /// # Errors
    /// As [`status`](Self::status); `Invalid` when there is none of this name.
    pub async fn diverged_changes(&self, id: &str) -> Result<KeptChanges> {
        self.read(&format!("/v1/diverged/{}", path_part(id)?)).await
    }

    /// Removes one of them for good. Needs the token.
    ///
    /// # Errors
    /// `Invalid` when there is none of this name, or without the right token; `Unavailable` when the agent does not
    /// answer, which may have removed it all the same.
    pub async fn drop_diverged(&self, id: &str) -> Result<()> {
        let path = format!("/v1/diverged/{}/drop", path_part(id)?);
        match self.call(Method::POST, &path, Bytes::new(), DROP_BUDGET).await? {
            (StatusCode::OK, _) => Ok(()),
            (status, body) => Err(self.unexpected(status, &body)),
        }
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let (status, body) = self.call(Method::GET, path, Bytes::new(), READ_BUDGET).await?;
        if status != StatusCode::OK {
            return Err(self.unexpected(status, &body));
        }
        serde_json::from_slice(&body).map_err(|e| {
            Error::invalid(format!("the agent's answer is not understood. agent={}", self.target.address))
                .because(e)
                .hint("agent and client may be of different versions")
        })
    }

    async fn call(&self, method: Method, path: &str, body: Bytes, budget: Duration) -> Result<(StatusCode, Bytes)> {
        let (status, _, body) = self.exchange(method, path, body, budget, ANSWER_MAX).await?;
        Ok((status, body))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        budget: Duration,
        answer_max: usize,
    ) -> Result<(StatusCode, HeaderMap, Bytes)> {
        let address = &self.target.address;
        let changes = method != Method::GET;
        let request = request(method, &self.target, path, self.token.as_ref(), body)?;
        let silent = |what: &str| Error::unavailable(format!("{what}. agent={address}"));
        let mut connection = match tokio::time::timeout(CONNECT_BUDGET, dial(&self.target, &self.tls)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(DialError::Refused(e))) => {
                return Err(silent("no agent listens there").because(e).hint("start the agent on that node"));
            }
            Ok(Err(DialError::Unreachable(e))) => return Err(silent("the agent cannot be reached").because(e)),
            Ok(Err(DialError::BadIdentity(why))) => {
                return Err(Error::invalid(format!("the agent is not trusted: {why}"))
                    .hint("check the address, and that the certificates are those of this cluster"));
            }
            Err(_) => return Err(silent("the agent cannot be reached in time")),
        };
        let exchange = async {
            let response = connection.sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, answer_max).collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head.status, head.headers, body))
        };
        let lost = |error: Error| if changes { error.outcome_unknown() } else { error };
        match tokio::time::timeout(budget, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(lost(silent("the connection to the agent broke").because(e))),
            Err(_) => Err(lost(silent("the agent did not answer in time"))),
        }
    }

    fn unexpected(&self, status: StatusCode, body: &[u8]) -> Error {
        #[derive(Deserialize)]
        struct Fault {
            error: String,
            hint: String,
        }
        let kind = match status {
            StatusCode::CONFLICT => ErrorKind::Conflict,
            _ if status.is_server_error() => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        };
        let values = format!("agent={}, status={}", self.target.address, status.as_u16());
        match serde_json::from_slice::<Fault>(body) {
            Ok(fault) => Error::new(kind, format!("{}. {values}", fault.error)).hint(fault.hint),
            Err(_) => Error::new(kind, format!("the agent's answer is not understood. {values}"))
                .hint("something else than an agent may listen there"),
        }
    }
}

/// A name that needs no escaping in a path.
fn path_part(id: &str) -> Result<&str> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(id);
    }
    Err(Error::invalid(format!("not a name of WAL that is kept. id={id}")).hint("`pgdock diverged list` shows them"))
}
