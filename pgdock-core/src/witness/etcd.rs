//! [`EtcdWitness`]: a document that is one key of etcd, version 3.4 or newer.
//!
//! It speaks the JSON gateway that every etcd serves beside gRPC. A swap is a transaction that compares the
//! revision in which the key was last changed; leases, watches and locks of etcd are not used.
//!
//! There may be several endpoints. A read goes on to the next where one does not answer. A swap does so only
//! while it is certain that it has not landed: where the connection was refused, or etcd said that it took no
//! proposal. Anything else is ambiguous, and not sent again.

mod gateway;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::http::{self, Tls};
use super::{Record, Swap, Version, Witness};
use crate::{Error, Result};
use gateway::{Failure, Range, Token, Txn};

/// How long a call may take, with all its tries.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where a document is, and how to get at it.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// Members of one etcd cluster, each as `host:port`. At least one.
    pub endpoints: Vec<String>,
    /// The key.
    pub key: String,
    /// User and password, where etcd asks for them.
    pub user: Option<(String, SecretString)>,
    /// How connections are secured.
    pub tls: Tls,
}

/// A document in etcd.
#[derive(Debug)]
pub struct EtcdWitness {
    client: reqwest::Client,
    endpoints: Vec<String>,
    plain: bool,
    key: String,
    user: Option<(String, SecretString)>,
    token: Mutex<Option<SecretString>>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
    /// The etcd cluster that answered first. Another one holds another document.
    etcd_cluster: OnceLock<String>,
    timeout: Duration,
}

impl EtcdWitness {
    /// The document that the configuration names; it need not exist yet. Nothing is sent.
    ///
    /// # Errors
    /// `Invalid` where the configuration is not usable.
    pub fn new(config: EtcdConfig) -> Result<Self> {
        if config.endpoints.is_empty() {
            return Err(Error::invalid("the witness has no endpoint of etcd"));
        }
        Ok(Self {
            client: http::client(&config.tls, None)?,
            endpoints: config.endpoints,
            plain: config.tls.allow_plain,
            key: config.key,
            user: config.user,
            token: Mutex::default(),
            preferred: AtomicUsize::new(0),
            etcd_cluster: OnceLock::new(),
            timeout: TIMEOUT,
        })
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
        let body = json!({ "key": BASE64.encode(&self.key) });
        let removed: Result<Value> = self.ask("kv/deleterange", &body, |_| true).await.map_err(|f| self.failed(f));
        removed.map(drop)
    }

    fn shown(&self) -> String {
        format!("witness={self}")
    }

    fn failed(&self, failure: Failure) -> Error {
        failure.error.at(self.shown())
    }

    /// Asks the endpoints in turn, the one that answered last first, until one answers. After a failure the
    /// next one is asked only if `again` allows it.
    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        again: impl Fn(&Failure) -> bool,
    ) -> Result<T, Failure> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.endpoints.len());
        let mut last = None;
        for turn in 0..count {
            let index = (first + turn) % count;
            match self.ask_authenticated(index, path, body).await {
                Ok(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => {
                    // The next call begins elsewhere.
                    self.preferred.store((index + 1) % count, Ordering::Relaxed);
                    let go_on = failure.elsewhere && again(&failure);
                    last = Some(failure);
                    if !go_on {
                        break;
                    }
                }
            }
        }
        Err(last.expect("there is an endpoint"))
    }

    /// Asks one endpoint, with a token where etcd wants one. A token that has expired is replaced once: etcd
    /// looks at it before anything else.
    async fn ask_authenticated<T: DeserializeOwned>(
        &self,
        index: usize,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        if self.user.is_none() {
            return self.send(index, path, body, None).await;
        }
        let token = self.token(index, None).await?;
        match self.send(index, path, body, Some(&token)).await {
            Err(failure) if failure.stale_token => {
                let token = self.token(index, Some(&token)).await?;
                self.send(index, path, body, Some(&token)).await
            }
            answered => answered,
        }
    }

    /// The present token, or a new one where there is none or `stale` is it.
    async fn token(&self, index: usize, stale: Option<&SecretString>) -> Result<SecretString, Failure> {
        use secrecy::ExposeSecret as _;

        let mut slot = self.token.lock().await;
        if let Some(token) = slot.as_ref()
            && stale.is_none_or(|stale| stale.expose_secret() != token.expose_secret())
        {
            return Ok(token.clone());
        }
        let Some((name, password)) = &self.user else { return Ok(SecretString::default()) };
        let body = json!({ "name": name, "password": password.expose_secret() });
        let answer: Token = self.send(index, "auth/authenticate", &body, None).await.map_err(Failure::before)?;
        Ok(slot.insert(answer.token.into()).clone())
    }

    async fn send<T: DeserializeOwned>(
        &self,
        index: usize,
        path: &str,
        body: &Value,
        token: Option<&SecretString>,
    ) -> Result<T, Failure> {
        let scheme = if self.plain { "http" } else { "https" };
        let endpoint = &self.endpoints[index];
        let url = format!("{scheme}://{endpoint}/v3/{path}");
        // A member that hangs must leave time to ask another; with the last of them there is nobody else.
        let share = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX).min(3);
        gateway::post(&self.client, endpoint, &url, body, token, self.timeout / share).await
    }

    fn same_cluster(&self, found: &str) -> Result<()> {
        let known = self.etcd_cluster.get_or_init(|| found.to_owned());
        if known == found {
            return Ok(());
        }
        Err(Error::needs_operator(format!(
            "another etcd cluster answers than before. known={known}, found={found}, {}",
            self.shown()
        ))
        .hint("every endpoint must be a member of one cluster; if it was rebuilt, see docs/witness.md"))
    }
}

impl std::fmt::Display for EtcdWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "etcd://{}{}", self.endpoints.join(","), self.key)
    }
}

#[async_trait]
impl Witness for EtcdWitness {
    async fn read(&self) -> Result<Option<(Record, Version)>> {
        let body = json!({ "key": BASE64.encode(&self.key), "serializable": false });
        let asked = self.ask("kv/range", &body, |_| true);
        let range: Range = match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer.map_err(|f| self.failed(f))?,
            Err(_) => return Err(self.failed(gateway::silent(self.timeout))),
        };
        self.same_cluster(&range.header.cluster_id)?;
        let Some(found) = range.kvs.into_iter().next() else { return Ok(None) };
        let bytes = BASE64
            .decode(found.value.as_bytes())
            .map_err(|e| Error::unavailable(format!("etcd answered what is no base64. {}", self.shown())).because(e))?;
        let record = Record::decode(&bytes).map_err(|e| e.at(self.shown()))?;
        Ok(Some((record, Version(found.mod_revision))))
    }

    async fn compare_and_swap(&self, next: &Record, expected: Option<&Version>) -> Swap {
        if next.nonce.is_empty() {
            return Swap::Ambiguous(Error::internal("a document without a nonce was not written"));
        }
        let key = BASE64.encode(&self.key);
        let compare = match expected {
            None => json!({ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }),
            // Not a revision: no state of this key was ever called so.
            Some(version) if version.0.parse::<u64>().is_err() => return Swap::Conflict,
            Some(version) => json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": version.0 }),
        };
        let put = json!({ "request_put": { "key": key, "value": BASE64.encode(next.encode()) } });
        let body = json!({ "compare": [compare], "success": [put] });
        let asked = self.ask("kv/txn", &body, |failure| failure.error.outcome_known());
        let txn: Txn = match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => return Swap::Ambiguous(self.failed(failure)),
            Err(_) => return Swap::Ambiguous(self.failed(gateway::silent(self.timeout))),
        };
        if let Err(error) = self.same_cluster(&txn.header.cluster_id) {
            return Swap::Ambiguous(error.outcome_unknown());
        }
        if txn.succeeded { Swap::Committed(Version(txn.header.revision)) } else { Swap::Conflict }
    }

    fn kind(&self) -> &'static str {
        "etcd"
    }
}
