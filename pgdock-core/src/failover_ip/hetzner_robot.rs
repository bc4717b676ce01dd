//! [`HetznerRobotIp`]: a failover IP of Hetzner's dedicated servers, moved by Robot's web service.
//!
//! ```text
//! GET  /failover/ADDRESS                          where it points: active_server_ip
//! POST /failover/ADDRESS   active_server_ip=IP    points it to the server with that main address
//! ```
//! A switch takes the network 40 to 60 seconds, during which others are refused as locked. Hence it is accepted
//! by the one answer and believed by another: that of a later `GET`.
//! <https://robot.hetzner.com/doc/webservice/en.html#failover>

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::api::{Answer, Api, form};
use super::{FailoverIp, Holder, Pace, Target};
use crate::{Error, NodeName, Result};

/// Robot's own address.
pub const ENDPOINT: &str = "https://robot-ws.your-server.de";
/// How long one request may take, unless told otherwise: a switch may be answered only once it is done.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Another switch of the same address is under way.
const LOCKED_PAUSE: Duration = Duration::from_secs(15);
/// Robot locks out an address for ten minutes after three logins that fail.
const LOGIN_PAUSE: Duration = Duration::from_secs(240);
/// The window of the limit, where an answer does not name it.
const LIMIT_PAUSE: Duration = Duration::from_secs(3_600);
/// Robot answers 100 questions and 50 switches an hour.
const PACE: Pace = Pace { look_every: Duration::from_secs(120), retry_every: Duration::from_secs(75) };

/// A failover IP of dedicated servers.
#[derive(Debug)]
pub struct HetznerRobotIp {
    api: Api,
    address: IpAddr,
    user: String,
    password: SecretString,
    servers: BTreeMap<NodeName, IpAddr>,
    timeout: Duration,
    settle: (u32, Duration),
}

/// What Robot says of a failover IP.
#[derive(Debug, Deserialize)]
struct Shown {
    failover: Failover,
}

#[derive(Debug, Deserialize)]
struct Failover {
    active_server_ip: Option<IpAddr>,
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
    /// In seconds.
    interval: Option<u64>,
}

impl HetznerRobotIp {
    /// A failover IP, with the user of Robot's web service and his password.
    ///
    /// # Errors
    /// `Invalid` where no HTTP client can be made.
    pub fn new(address: IpAddr, user: impl Into<String>, password: impl Into<SecretString>) -> Result<Self> {
        Ok(Self {
            api: Api::new("hetzner_robot", ENDPOINT)?,
            address,
            user: user.into(),
            password: password.into(),
            servers: BTreeMap::new(),
            timeout: TIMEOUT,
            settle: (15, Duration::from_secs(5)),
        })
    }

    /// The main address of a node's server. Without it, it is the node's own address.
    #[must_use]
    pub fn server(mut self, node: NodeName, ip: IpAddr) -> Self {
        self.servers.insert(node, ip);
        self
    }

    /// Another place of the web service, as a URL.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn endpoint(mut self, url: &str) -> Result<Self> {
        self.api = Api::new("hetzner_robot", url)?;
        Ok(self)
    }

    /// How long one request may take. Default 90 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often it is looked whether the address has moved, and the pause between. Default fifteen times, five
    /// seconds apart.
    #[must_use]
    pub fn settle(mut self, looks: u32, pause: Duration) -> Self {
        self.settle = (looks.max(1), pause);
        self
    }

    fn path(&self) -> String {
        format!("/failover/{}", self.address)
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Answer> {
        let request = request.basic_auth(&self.user, Some(self.password.expose_secret()));
        self.api.send(request, self.timeout).await
    }

    /// The server that a node is, by its main address.
    fn server_of(&self, target: &Target) -> Result<IpAddr> {
        if let Some(ip) = self.servers.get(&target.node) {
            return Ok(*ip);
        }
        target.address.parse().map_err(|_| {
            Error::invalid(format!("the main address of the server is not known. node={}", target.node))
                .hint(format!("add server_ip to [nodes.{}]", target.node))
        })
    }

    fn refused(&self, answer: &Answer, what: &str) -> Error {
        let fault = serde_json::from_slice::<Failed>(&answer.body).unwrap_or_default().error;
        let what = format!("address={}, {what}", self.address);
        let told = |text: &str| format!("{text}. {what}, keeper=hetzner_robot, code={}", fault.code);
        match (answer.status.as_u16(), fault.code.as_str()) {
            (_, "FAILOVER_LOCKED") => {
                Error::unavailable(told("another switch of the failover IP is under way")).not_before(LOCKED_PAUSE)
            }
            (_, "FAILOVER_NEW_SERVER_NOT_FOUND") => {
                Error::invalid(told("Robot knows no such server, or it is not this user's"))
                    .hint("set server_ip in the section of each node to the main address of its server")
            }
            (404, _) => Error::invalid(told("Robot knows no such failover IP, or it is not this user's"))
                .hint("correct `address` under [failover_ip]"),
            (_, "FAILOVER_FAILED" | "FAILOVER_NOT_COMPLETE") => {
                Error::unavailable(told("the failover IP could not be switched")).outcome_unknown()
            }
            (_, "RATE_LIMIT_EXCEEDED") => {
                let pause = fault.interval.map_or(LIMIT_PAUSE, Duration::from_secs);
                Error::unavailable(told("Robot answers no more requests for a while")).not_before(pause)
            }
            (401, _) => self
                .api
                .refused(answer, &fault.code, &fault.message, &what)
                .hint("Robot locks this machine out for ten minutes after three failed logins")
                .not_before(LOGIN_PAUSE),
            (_, code) => self.api.refused(answer, code, &fault.message, &what),
        }
    }

    fn holder(&self, answer: &Answer) -> Result<Option<Holder>> {
        let shown: Shown = serde_json::from_slice(&answer.body).map_err(|e| self.api.strange(&e.to_string()))?;
        Ok(shown.failover.active_server_ip.map(|ip| {
            let node = self.servers.iter().find(|(_, server)| **server == ip);
            node.map_or_else(|| Holder::Address(ip.to_string()), |(node, _)| Holder::Node(node.clone()))
        }))
    }
}

impl std::fmt::Display for HetznerRobotIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by Hetzner Robot", self.address)
    }
}

#[async_trait]
impl FailoverIp for HetznerRobotIp {
    async fn current(&self) -> Result<Option<Holder>> {
        let answer = self.ask(self.api.get(&self.path())).await?;
        if answer.status.is_success() { self.holder(&answer) } else { Err(self.refused(&answer, "request=look")) }
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        let server = self.server_of(target)?.to_string();
        let body = form(&[("active_server_ip", &server)]);
        let request = self.api.post(&self.path()).header("content-type", "application/x-www-form-urlencoded");
        let answer = self.ask(request.body(body)).await?;
        if !answer.status.is_success() {
            let failed = serde_json::from_slice::<Failed>(&answer.body).unwrap_or_default();
            // That it points there already is what was wanted; it is looked at all the same.
            if failed.error.code != "FAILOVER_ALREADY_ROUTED" {
                return Err(self.refused(&answer, &format!("node={}, server={server}", target.node)));
            }
        }
        let (looks, pause) = self.settle;
        let mut held = None;
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(pause).await;
            }
            held = self.current().await.map_err(Error::outcome_unknown)?;
            if held.as_ref().is_some_and(|holder| holder.is(target)) {
                return Ok(());
            }
        }
        Err(super::astray(&self.address.to_string(), target, held.as_ref()))
    }

    fn pace(&self) -> Pace {
        PACE
    }
}
