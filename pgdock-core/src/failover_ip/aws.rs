//! [`AwsFailoverIp`]: an Elastic IP of Amazon's EC2.
//!
//! ```text
//! DescribeAddresses   where it points: instance, network interface
//! AssociateAddress    AllowReassociation: takes it from whoever holds it
//! ```
//! Requests are signed (SigV4) with keys of a user, or with those that the instance gets for its role (IMDSv2).
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssociateAddress.html>

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::HttpRequest;
use object_store::{RetryConfig, StaticCredentialProvider};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::{Answer, Api, form};
use super::{FailoverIp, Holder, Target};
use crate::{Error, NodeName, Result};

/// The version of the interface that requests are written for.
const VERSION: &str = "2016-11-15";
/// How long one request may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Requests are refilled each second.
const LIMIT_PAUSE: Duration = Duration::from_secs(2);

/// What an Elastic IP is associated with on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// An instance, such as `i-0123456789abcdef0`: its primary private address.
    Instance(String),
    /// A network interface, such as `eni-0123456789abcdef0`.
    Interface(String),
}

/// Where credentials come from.
#[derive(Debug)]
pub enum AwsKeys {
    /// Keys of a user, or temporary ones with a token.
    Static {
        /// `AWS_ACCESS_KEY_ID`
        id: String,
        /// `AWS_SECRET_ACCESS_KEY`
        secret: SecretString,
        /// `AWS_SESSION_TOKEN`
        token: Option<SecretString>,
    },
    /// The role of the instance that this runs on, asked for at the instance's metadata service.
    Instance {
        /// Another place of that service, as a URL.
        metadata: Option<String>,
    },
}

/// An Elastic IP.
#[derive(Debug)]
pub struct AwsFailoverIp {
    api: Api,
    address: Ipv4Addr,
    region: String,
    keys: AwsCredentialProvider,
    nodes: BTreeMap<NodeName, Attachment>,
    timeout: Duration,
    settle: (u32, Duration),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Addresses {
    #[serde(default)]
    addresses_set: AddressSet,
}

#[derive(Debug, Default, Deserialize)]
struct AddressSet {
    #[serde(default)]
    item: Vec<Address>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Address {
    public_ip: String,
    allocation_id: Option<String>,
    instance_id: Option<String>,
    network_interface_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Associated {}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failed {
    errors: Faults,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Faults {
    error: Vec<Fault>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Fault {
    code: String,
    message: String,
}

impl AwsFailoverIp {
    /// An Elastic IP of a region.
    ///
    /// # Errors
    /// `Invalid` where there is no usable HTTP client.
    pub fn new(address: Ipv4Addr, region: impl Into<String>, keys: AwsKeys) -> Result<Self> {
        let region = region.into();
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Ok(Self {
            api: Api::new("aws", &format!("https://ec2.{region}.{domain}"))?,
            address,
            keys: provider(keys, &region)?,
            region,
            nodes: BTreeMap::new(),
            timeout: TIMEOUT,
            settle: (20, Duration::from_secs(1)),
        })
    }

    /// What the address is associated with when a node leads.
    #[must_use]
    pub fn node(mut self, node: NodeName, attachment: Attachment) -> Self {
        self.nodes.insert(node, attachment);
        self
    }

    /// Another place of the interface, as a URL: an endpoint in one's own network, for example.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn endpoint(mut self, url: &str) -> Result<Self> {
        self.api = Api::new("aws", url)?;
        Ok(self)
    }

    /// How long one request may take. Default 15 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often it is looked whether the address has moved, and the pause between. Default twenty times, a second
    /// apart.
    #[must_use]
    pub fn settle(mut self, looks: u32, pause: Duration) -> Self {
        self.settle = (looks.max(1), pause);
        self
    }

    async fn ask<T: DeserializeOwned>(&self, fields: &[(&str, &str)], what: &str) -> Result<T> {
        let keys = tokio::time::timeout(self.timeout, self.keys.get_credential());
        let unavailable = || Error::unavailable("the role of this instance has no credentials. keeper=aws");
        let keys = keys.await.map_err(|_| unavailable())?.map_err(|e| {
            unavailable().because(e).hint("give the instance a role, or set credentials = \"file\" under [failover_ip]")
        })?;
        let body = form(&[fields, &[("Version", VERSION)]].concat());
        let unsigned = |e: String| Error::internal("a request cannot be signed. keeper=aws").because(e);
        let mut signed: HttpRequest = http::Request::post(format!("{}/", self.api.endpoint()))
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(body.clone().into())
            .map_err(|e| unsigned(e.to_string()))?;
        AwsAuthorizer::new(&keys, "ec2", &self.region)
            .try_authorize(&mut signed, None)
            .map_err(|e| unsigned(e.to_string()))?;
        let request = self.api.post("/").headers(signed.headers().clone()).body(body);
        let answer = self.api.send(request, self.timeout).await?;
        if !answer.status.is_success() {
            return Err(self.refused(&answer, what));
        }
        let text = String::from_utf8_lossy(&answer.body);
        quick_xml::de::from_str(&text).map_err(|e| self.api.strange(&e.to_string()).outcome_unknown())
    }

    fn refused(&self, answer: &Answer, what: &str) -> Error {
        let text = String::from_utf8_lossy(&answer.body);
        let failed: Failed = quick_xml::de::from_str(&text).unwrap_or_default();
        let Fault { code, message } = failed.errors.error.into_iter().next().unwrap_or_default();
        let what = format!("address={}, region={}, {what}", self.address, self.region);
        let told = |text: &str| format!("{text}. {what}, keeper=aws, code={code}");
        match code.as_str() {
            "RequestLimitExceeded" | "Throttling" => {
                Error::unavailable(told("the keeper of the failover IP wants fewer requests"))
                    .not_before(answer.retry_after.unwrap_or(LIMIT_PAUSE))
            }
            "InvalidAddress.NotFound" | "InvalidAllocationID.NotFound" => {
                Error::invalid(told("there is no such Elastic IP in this region"))
                    .hint("correct `address` and `region` under [failover_ip]")
            }
            "InvalidInstanceID"
            | "InvalidInstanceID.NotFound"
            | "InvalidInstanceID.Malformed"
            | "InvalidNetworkInterfaceID.NotFound"
            | "InvalidNetworkInterfaceId.Malformed" => {
                Error::invalid(told("there is no such instance or network interface in this region"))
                    .because(message)
                    .hint("correct instance_id or network_interface_id in the section of the node")
            }
            "RequestExpired" => Error::unavailable(told(
                "the clock of this machine is wrong, by what the keeper of the failover IP says",
            ))
            .hint("set the clock, and keep it with chrony or systemd-timesyncd"),
            // An instance that is being stopped or started takes no address.
            "IncorrectInstanceState" | "IncorrectState" => {
                Error::unavailable(told("the instance cannot take the failover IP now")).because(message)
            }
            _ => self.api.refused(answer, &code, &message, &what),
        }
    }

    async fn look(&self) -> Result<Address> {
        let address = self.address.to_string();
        let fields = [("Action", "DescribeAddresses"), ("PublicIp.1", address.as_str())];
        let found: Addresses = self.ask(&fields, "request=DescribeAddresses").await?;
        found.addresses_set.item.into_iter().find(|item| item.public_ip == address).ok_or_else(|| {
            Error::invalid(format!(
                "there is no such Elastic IP in this region. address={address}, region={}",
                self.region
            ))
            .hint("correct `address` and `region` under [failover_ip]")
        })
    }

    fn holder(&self, at: &Address) -> Option<Holder> {
        let is_at = |attachment: &Attachment| match attachment {
            Attachment::Instance(id) => at.instance_id.as_ref() == Some(id),
            Attachment::Interface(id) => at.network_interface_id.as_ref() == Some(id),
        };
        if let Some((node, _)) = self.nodes.iter().find(|(_, attachment)| is_at(attachment)) {
            return Some(Holder::Node(node.clone()));
        }
        let other = [&at.instance_id, &at.network_interface_id].into_iter().flatten().find(|id| !id.is_empty());
        other.map(|id| Holder::Address(id.clone()))
    }
}

/// Where keys come from, as the signer wants it.
fn provider(keys: AwsKeys, region: &str) -> Result<AwsCredentialProvider> {
    match keys {
        AwsKeys::Static { id, secret, token } => Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
            key_id: id,
            secret_key: secret.expose_secret().to_owned(),
            token: token.map(|token| token.expose_secret().to_owned()),
        }))),
        AwsKeys::Instance { metadata } => {
            let retry = RetryConfig { max_retries: 2, retry_timeout: TIMEOUT, ..RetryConfig::default() };
            // A bucket that is never asked: what is wanted of it is how it comes by its credentials.
            let mut store =
                AmazonS3Builder::new().with_bucket_name("none").with_region(region.to_owned()).with_retry(retry);
            if let Some(metadata) = metadata {
                store = store.with_metadata_endpoint(metadata);
            }
            let store =
                store.build().map_err(|e| Error::invalid("the role of the instance is not usable").because(e))?;
            Ok(Arc::clone(store.credentials()))
        }
    }
}

impl std::fmt::Display for AwsFailoverIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by AWS", self.address)
    }
}

#[async_trait]
impl FailoverIp for AwsFailoverIp {
    async fn current(&self) -> Result<Option<Holder>> {
        Ok(self.holder(&self.look().await?))
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        let attachment = self.nodes.get(&target.node).ok_or_else(|| {
            Error::invalid(format!("the instance is not known. node={}", target.node))
                .hint(format!("add instance_id or network_interface_id to [nodes.{}]", target.node))
        })?;
        let found = self.look().await.map_err(Error::before_sending)?;
        if self.holder(&found).is_some_and(|holder| holder.is(target)) {
            return Ok(());
        }
        let address = self.address.to_string();
        let (key, id) = match attachment {
            Attachment::Instance(id) => ("InstanceId", id),
            Attachment::Interface(id) => ("NetworkInterfaceId", id),
        };
        // Without a number it is one of before there were networks of one's own.
        let which = match &found.allocation_id {
            Some(allocation) => ("AllocationId", allocation.as_str()),
            None => ("PublicIp", address.as_str()),
        };
        let fields = [("Action", "AssociateAddress"), which, (key, id.as_str()), ("AllowReassociation", "true")];
        let _: Associated = self.ask(&fields, &format!("node={}, {key}={id}", target.node)).await?;
        let (looks, pause) = self.settle;
        let mut held = None;
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(pause).await;
            }
            held = self.holder(&self.look().await.map_err(Error::outcome_unknown)?);
            if held.as_ref().is_some_and(|holder| holder.is(target)) {
                return Ok(());
            }
        }
        Err(super::astray(&address, target, held.as_ref()))
    }
}
