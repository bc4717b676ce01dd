//! [`HetznerCloudIp`]: a floating IP of Hetzner's cloud servers.
//!
//! ```text
//! GET  /floating_ips?page=N                       which one it is, by its address
//! GET  /floating_ips/ID                           where it points: server
//! POST /floating_ips/ID/actions/assign {server}   begins an action
//! GET  /actions/ACTION                            running, success or error
//! ```
//! <https://docs.hetzner.cloud/reference/cloud#floating-ip-actions>

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::{Answer, Api};
use super::{FailoverIp, Holder, Target};
use crate::{Error, NodeName, Result};

/// The provider's own address.
pub const ENDPOINT: &str = "https://api.hetzner.cloud/v1";
/// How long one request may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Something else is being done to the address, or to the server.
const LOCKED_PAUSE: Duration = Duration::from_secs(2);
/// One more request is allowed each second; where an answer does not say when.
const LIMIT_PAUSE: Duration = Duration::from_secs(10);
/// More pages than anybody has floating IPs.
const PAGES_MAX: u32 = 200;

/// A floating IP of cloud servers.
#[derive(Debug)]
pub struct HetznerCloudIp {
    api: Api,
    address: IpAddr,
    token: SecretString,
    servers: BTreeMap<NodeName, u64>,
    timeout: Duration,
    settle: (u32, Duration),
    /// The address's number, once it is known; zero before.
    id: AtomicU64,
}

#[derive(Debug, Deserialize)]
struct Page {
    floating_ips: Vec<FloatingIp>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
struct Meta {
    #[serde(default)]
    pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
struct Pagination {
    next_page: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct One {
    floating_ip: FloatingIp,
}

#[derive(Debug, Deserialize)]
struct FloatingIp {
    id: u64,
    /// An address of IPv4, or a network of IPv6.
    ip: String,
    server: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Begun {
    action: Action,
}

#[derive(Debug, Deserialize)]
struct Action {
    id: u64,
    status: String,
    error: Option<Fault>,
}

#[derive(Debug, Default, Deserialize)]
struct Failed {
    #[serde(default)]
    error: Fault,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fault {
    code: String,
    message: String,
}

impl HetznerCloudIp {
    /// A floating IP, with a token of its project that may read and write.
    ///
    /// # Errors
    /// `Invalid` where no HTTP client can be made.
    pub fn new(address: IpAddr, token: impl Into<SecretString>) -> Result<Self> {
        Ok(Self {
            api: Api::new("hetzner_cloud", ENDPOINT)?,
            address,
            token: token.into(),
            servers: BTreeMap::new(),
            timeout: TIMEOUT,
            settle: (60, Duration::from_millis(500)),
            id: AtomicU64::new(0),
        })
    }

    /// The number of a node's server.
    #[must_use]
    pub fn server(mut self, node: NodeName, id: u64) -> Self {
        self.servers.insert(node, id);
        self
    }

    /// Another place of the interface, as a URL.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn endpoint(mut self, url: &str) -> Result<Self> {
        self.api = Api::new("hetzner_cloud", url)?;
        Ok(self)
    }

    /// How long one request may take. Default 15 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often it is looked whether an action has ended, and the address has moved, and the pause between.
    /// Default 60 times, half a second apart.
    #[must_use]
    pub fn settle(mut self, looks: u32, pause: Duration) -> Self {
        self.settle = (looks.max(1), pause);
        self
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder, what: &str) -> Result<T> {
        let answer = self.api.send(request.bearer_auth(self.token.expose_secret()), self.timeout).await?;
        if !answer.status.is_success() {
            return Err(self.refused(&answer, what));
        }
        serde_json::from_slice(&answer.body).map_err(|e| self.api.strange(&e.to_string()).outcome_unknown())
    }

    fn refused(&self, answer: &Answer, what: &str) -> Error {
        let Fault { code, message } = serde_json::from_slice::<Failed>(&answer.body).unwrap_or_default().error;
        let what = format!("address={}, {what}", self.address);
        let told = |text: &str| {
            format!("{text}. {what}, keeper=hetzner_cloud, status={}, code={code}", answer.status.as_u16())
        };
        match answer.status {
            StatusCode::LOCKED | StatusCode::CONFLICT => {
                let pause = answer.retry_after.unwrap_or(LOCKED_PAUSE);
                Error::unavailable(told("something else is being done to the floating IP or the server"))
                    .because(message)
                    .not_before(pause)
            }
            StatusCode::TOO_MANY_REQUESTS => {
                self.api.refused(answer, &code, &message, &what).not_before(answer.retry_after.unwrap_or(LIMIT_PAUSE))
            }
            StatusCode::NOT_FOUND => {
                self.id.store(0, Relaxed);
                Error::invalid(told("there is no such floating IP or server in the project of this token"))
                    .hint("correct `address` under [failover_ip], and server_id in the section of each node")
            }
            _ => self.api.refused(answer, &code, &message, &what),
        }
    }

    /// The address's number.
    async fn id(&self) -> Result<u64> {
        let known = self.id.load(Relaxed);
        if known != 0 {
            return Ok(known);
        }
        let mut next = Some(1);
        for _ in 0..PAGES_MAX {
            let Some(page) = next else { break };
            let request = self.api.get(&format!("/floating_ips?page={page}&per_page=50"));
            let found: Page = self.ask(request, "request=list").await.map_err(Error::before_sending)?;
            if let Some(ip) = found.floating_ips.iter().find(|ip| holds(&ip.ip, self.address)) {
                self.id.store(ip.id, Relaxed);
                return Ok(ip.id);
            }
            next = found.meta.pagination.next_page;
        }
        Err(Error::invalid(format!(
            "there is no such floating IP in the project of this token. address={}, keeper=hetzner_cloud",
            self.address
        ))
        .hint("correct `address` under [failover_ip], or make a token in the project of the floating IP"))
    }

    async fn server_now(&self, id: u64) -> Result<Option<u64>> {
        let one: One = self.ask(self.api.get(&format!("/floating_ips/{id}")), "request=look").await?;
        Ok(one.floating_ip.server)
    }

    fn holder(&self, server: Option<u64>) -> Option<Holder> {
        server.map(|id| {
            let node = self.servers.iter().find(|(_, server)| **server == id);
            node.map_or_else(|| Holder::Address(format!("server {id}")), |(node, _)| Holder::Node(node.clone()))
        })
    }
}

/// Whether an address is the one, or in the network, that the provider shows.
fn holds(shown: &str, address: IpAddr) -> bool {
    let (network, bits) = shown.split_once('/').unwrap_or((shown, "128"));
    match (network.parse::<IpAddr>(), bits.parse::<u32>(), address) {
        (Ok(IpAddr::V6(network)), Ok(bits @ 1..=128), IpAddr::V6(address)) => {
            (u128::from(network) ^ u128::from(address)) >> (128 - bits) == 0
        }
        (Ok(network), ..) => network == address,
        _ => false,
    }
}

impl std::fmt::Display for HetznerCloudIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by Hetzner Cloud", self.address)
    }
}

#[async_trait]
impl FailoverIp for HetznerCloudIp {
    async fn current(&self) -> Result<Option<Holder>> {
        let id = self.id().await?;
        Ok(self.holder(self.server_now(id).await?))
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        let server = *self.servers.get(&target.node).ok_or_else(|| {
            Error::invalid(format!("the number of the server is not known. node={}", target.node))
                .hint(format!("add server_id to [nodes.{}]", target.node))
        })?;
        let id = self.id().await?;
        // To assign it to the server that it is at is refused.
        if self.server_now(id).await.map_err(Error::before_sending)? == Some(server) {
            return Ok(());
        }
        let what = format!("node={}, server={server}", target.node);
        let request = self.api.post(&format!("/floating_ips/{id}/actions/assign"));
        let request = request.header("content-type", "application/json").body(format!("{{\"server\":{server}}}"));
        let mut action = match self.ask::<Begun>(request, &what).await {
            Ok(begun) => begun.action,
            // An earlier request, whose answer was lost, has had its effect meanwhile.
            Err(error) if !error.is_retryable() => {
                return if self.server_now(id).await.is_ok_and(|now| now == Some(server)) {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            Err(error) => return Err(error),
        };

        let (looks, pause) = self.settle;
        for _ in 0..looks {
            if action.status != "running" {
                break;
            }
            tokio::time::sleep(pause).await;
            let request = self.api.get(&format!("/actions/{}", action.id));
            action = self.ask::<Begun>(request, &what).await.map_err(Error::outcome_unknown)?.action;
        }
        if action.status == "error" {
            let Fault { code, message } = action.error.unwrap_or_default();
            return Err(Error::unavailable(format!(
                "the floating IP could not be assigned. address={}, {what}, code={code}",
                self.address
            ))
            .because(message)
            .outcome_unknown());
        }
        let mut held = None;
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(pause).await;
            }
            held = self.server_now(id).await.map_err(Error::outcome_unknown)?;
            if held == Some(server) {
                return Ok(());
            }
        }
        Err(super::astray(&self.address.to_string(), target, self.holder(held).as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_what_the_provider_shows() {
        let at = |shown, address: &str| holds(shown, address.parse().unwrap());
        assert!(at("203.0.113.10", "203.0.113.10"));
        assert!(!at("203.0.113.10", "203.0.113.11"));
        assert!(at("2001:db8:1:2::/64", "2001:db8:1:2::5"));
        assert!(!at("2001:db8:1:2::/64", "2001:db8:1:3::5"));
        assert!(at("2001:db8::1", "2001:db8::1") && !at("2001:db8::1", "2001:db8::2"));
        assert!(!at("2001:db8::/0", "203.0.113.10") && !at("nonsense", "203.0.113.10"));
    }
}
