//! [`FailoverIp`]: the address that follows the primary.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::{NodeName, Result, Term};

#[cfg(any(feature = "aws", feature = "hetzner"))]
mod api;
#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod faulty;
#[cfg(feature = "hetzner")]
pub mod hetzner_cloud;
#[cfg(feature = "hetzner")]
pub mod hetzner_robot;
pub mod linux;
pub mod memory;
mod open;
pub mod script;

#[cfg(feature = "aws")]
pub use aws::AwsFailoverIp;
pub use faulty::FaultyFailoverIp;
#[cfg(feature = "hetzner")]
pub use hetzner_cloud::HetznerCloudIp;
#[cfg(feature = "hetzner")]
pub use hetzner_robot::HetznerRobotIp;
pub use linux::LinuxFailoverIp;
pub use memory::MemoryFailoverIp;
pub use open::open;
pub use script::ScriptFailoverIp;

/// Where the address is to point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The cluster.
    pub cluster: String,
    /// The node that leads.
    pub node: NodeName,
    /// That node's own address, an IP address or a host name, without a port.
    pub address: String,
    /// The term that it leads.
    pub term: Term,
}

/// Whom the address points to, in the words of whoever keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A node, by its name.
    Node(NodeName),
    /// A host, by an address of its own, or whatever else its keeper calls it.
    Address(String),
}

impl Holder {
    /// Whether that is the target. Two ways to write one IP address are the same.
    #[must_use]
    pub fn is(&self, target: &Target) -> bool {
        match self {
            Self::Node(node) => *node == target.node,
            Self::Address(address) => match (address.parse::<IpAddr>(), target.address.parse::<IpAddr>()) {
                (Ok(held), Ok(wanted)) => held == wanted,
                _ => address.eq_ignore_ascii_case(&target.address) || address == target.node.as_str(),
            },
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Address(address) => f.pad(address),
        }
    }
}

/// How often the keeper of an address likes to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often the leader looks whether the address still points to it.
    pub look_every: Duration,
    /// How long it waits at most before it tries again what failed; the first tries follow each other faster.
    pub retry_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { look_every: Duration::from_secs(30), retry_every: Duration::from_secs(32) }
    }
}

/// The address that follows the primary.
///
/// It is a convenience for clients and no fence: safety never depends on where it points. It is moved after
/// a promotion, beside the path to the first write.
///
/// # Contract
/// - Only the leader of a term calls `assign`, with that term and itself as the target.
/// - `assign` is idempotent: towards the node that already holds the address it changes nothing and succeeds.
/// - `Ok` from `assign` means that the address was seen to point to the target.
/// - On an error whose outcome is unknown the caller reads `current` before it does anything else: the move
///   may have happened, and may still happen.
/// - A late `assign` of an earlier leader may come after that of the present one, as the keeper of an
///   address knows no terms. So the leader looks at `current` from time to time, and assigns anew.
/// - All calls are bounded in time. Dropped, they leave no program running. The leader drops an `assign` when
///   its right ends; what had been sent by then is a late one, as above.
/// - An address that a node holds by itself, without a keeper, is given up by `release`.
/// - Tokens and passwords appear in no error and no log.
#[async_trait]
pub trait FailoverIp: std::fmt::Debug + std::fmt::Display + Send + Sync + 'static {
    /// Whom the address points to; `None` when to nobody.
    ///
    /// # Errors
    /// `Unavailable` when its keeper does not answer, `Invalid` when it refuses the credentials or the address.
    async fn current(&self) -> Result<Option<Holder>>;

    /// Points the address to a node.
    ///
    /// # Errors
    /// As [`current`](Self::current); see the contract for an outcome that is unknown.
    async fn assign(&self, target: &Target) -> Result<()>;

    /// Gives up the address on this node, where it is this node itself that holds it: called when the agent
    /// starts without the right to be primary, when that right has ended, and when the agent ends. It is
    /// idempotent. Where somebody else keeps the address, the next leader moves it, and there is nothing to do.
    ///
    /// # Errors
    /// `Unavailable` or `Invalid` when it may still be held.
    async fn release(&self) -> Result<()> {
        Ok(())
    }

    /// How often its keeper likes to be asked.
    fn pace(&self) -> Pace {
        Pace::default()
    }
}

/// A keeper that accepted an assignment still shows another holder.
#[cfg(any(feature = "aws", feature = "hetzner"))]
fn astray(address: &str, target: &Target, held: Option<&Holder>) -> crate::Error {
    let held = held.map_or_else(|| "nobody".to_owned(), ToString::to_string);
    crate::Error::unavailable(format!(
        "the switch was accepted, but the failover IP still points at {held}. address={address}, node={}",
        target.node
    ))
    .outcome_unknown()
}

fn _object_safe(_: &dyn FailoverIp) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_known_by_name_and_address() {
        let mut target = Target {
            cluster: "shop".into(),
            node: NodeName::new("n2").unwrap(),
            address: "2001:db8::2".into(),
            term: Term(3),
        };
        assert!(Holder::Node(target.node.clone()).is(&target));
        assert!(Holder::Address("2001:0db8:0:0::2".into()).is(&target));
        assert!(Holder::Address("n2".into()).is(&target));
        assert!(!Holder::Address("2001:db8::21".into()).is(&target));
        assert!(!Holder::Node(NodeName::new("n1").unwrap()).is(&target));
        target.address = "db2.example".into();
        assert!(Holder::Address("DB2.example".into()).is(&target));
        assert!(!Holder::Address("db".into()).is(&target));
    }
}
