//! [`LinuxFailoverIp`]: an address that the leader's own machine takes on, in a network that all nodes are in.
//!
//! ```text
//! assign    the address is added to an interface, and announced to the neighbours: at once, and some times more
//! release   it is taken off, wherever it is
//! ```
//! Nobody keeps such an address: each agent adds and takes off its own. So that one that hangs or dies does not
//! leave it behind, its deadman takes it off, too: when the right to be primary ends, and as long as there is none.
//! Until then the newer leader's announcements draw the neighbours to itself.

mod announce;
pub(crate) mod netlink;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::{FailoverIp, Holder, Pace, Target};
use crate::{Error, ErrorKind, NodeName, Result};
use netlink::{Held, Link};

/// When it is announced again. Neighbours overlook a change within a second of another one, and announcements get
/// lost; an old owner that hangs is gone by the end of its right.
const AGAIN: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(1_100),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// Looking costs nothing.
const PACE: Pace = Pace { look_every: Duration::from_secs(2), retry_every: Duration::from_secs(4) };

/// An address of this machine's, while its node leads.
#[derive(Debug)]
pub struct LinuxFailoverIp {
    node: NodeName,
    address: IpAddr,
    prefix: u8,
    place: Place,
    turn: Arc<Turn>,
    announcing: Mutex<Option<JoinHandle<()>>>,
}

/// What was begun before a release must not have its effect after it.
#[derive(Debug, Default)]
struct Turn {
    /// How many releases have begun.
    releases: AtomicU64,
    /// One change at a time.
    work: Mutex<()>,
}

impl Turn {
    fn now(&self) -> u64 {
        self.releases.load(SeqCst)
    }

    /// Does something that was begun in a turn, unless a release has begun since. One that begins meanwhile waits,
    /// and takes off what this adds.
    fn within<T>(&self, begun: u64, work: impl FnOnce() -> T) -> Option<T> {
        let _one = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        (self.now() == begun).then(work)
    }
}

/// Which interface takes the address on.
#[derive(Clone, Debug)]
enum Place {
    Named(String),
    Beside(IpAddr),
}

impl LinuxFailoverIp {
    /// An address for a node, on the interface that holds another address of its machine. By default it is alone in
    /// its network: its prefix is 32, or 128 for IPv6.
    #[must_use]
    pub fn beside(node: NodeName, address: IpAddr, own: IpAddr) -> Self {
        Self::at(node, address, Place::Beside(own))
    }

    /// An address for a node, on an interface by its name.
    #[must_use]
    pub fn on(node: NodeName, address: IpAddr, interface: impl Into<String>) -> Self {
        Self::at(node, address, Place::Named(interface.into()))
    }

    fn at(node: NodeName, address: IpAddr, place: Place) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { node, address, prefix, place, turn: Arc::default(), announcing: Mutex::default() }
    }

    /// How long the prefix of its network is, which then is reached through that interface.
    #[must_use]
    pub fn prefix(mut self, bits: u8) -> Self {
        self.prefix = bits;
        self
    }

    fn announce_again(&self, link: Link) {
        let (address, turn) = (self.address, Arc::clone(&self.turn));
        let begun = turn.now();
        let again = tokio::spawn(async move {
            for pause in AGAIN {
                tokio::time::sleep(pause).await;
                let (link, turn) = (link.clone(), Arc::clone(&turn));
                let told =
                    tokio::task::spawn_blocking(move || turn.within(begun, || announce::announce(&link, address)));
                if let Ok(Some(Err(error))) = told.await {
                    tracing::warn!(%error, "the failover IP was not announced again");
                }
            }
        });
        if let Some(old) = self.announcing.lock().unwrap_or_else(PoisonError::into_inner).replace(again) {
            old.abort();
        }
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        let text = format!("the failover IP {what}. address={}, node={}", self.address, self.node);
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Error::invalid(text)
                .because(error.to_string())
                .hint("the agent needs the capabilities CAP_NET_ADMIN and CAP_NET_RAW for kind = \"linux\"");
        }
        Error::unavailable(text).because(error.to_string())
    }
}

impl Drop for LinuxFailoverIp {
    fn drop(&mut self) {
        if let Some(again) = self.announcing.get_mut().unwrap_or_else(PoisonError::into_inner) {
            again.abort();
        }
    }
}

/// Which interface that is.
fn find(place: &Place) -> std::io::Result<Option<Link>> {
    let links = netlink::links()?;
    let index = match place {
        Place::Named(name) => links.iter().find(|link| link.name == *name).map(|link| link.index),
        Place::Beside(own) => netlink::holders(*own)?.first().map(|held| held.index),
    };
    Ok(links.into_iter().find(|link| Some(link.index) == index))
}

impl std::fmt::Display for LinuxFailoverIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on this machine", self.address)
    }
}

/// What an assignment ended with.
enum Added {
    At(Link),
    /// It was added, and the neighbours could not be told.
    Unannounced(std::io::Error),
    NoInterface,
}

/// Adds the address where it belongs, there alone, and announces it.
fn add(place: &Place, address: IpAddr, prefix: u8) -> std::io::Result<Added> {
    let Some(link) = find(place)? else { return Ok(Added::NoInterface) };
    let wanted = Held { ip: address, prefix, index: link.index };
    for other in netlink::holders(address)?.into_iter().filter(|held| *held != wanted) {
        netlink::remove(other)?;
    }
    netlink::add(wanted)?;
    if !netlink::holders(address)?.contains(&wanted) {
        return Err(std::io::Error::other("it was added, and is not there"));
    }
    Ok(match announce::announce(&link, address) {
        Ok(()) => Added::At(link),
        Err(error) => Added::Unannounced(error),
    })
}

#[async_trait]
impl FailoverIp for LinuxFailoverIp {
    /// This node, or nobody as far as this node sees.
    async fn current(&self) -> Result<Option<Holder>> {
        let address = self.address;
        let held = tokio::task::spawn_blocking(move || netlink::holders(address)).await;
        let held = held.map_err(|e| Error::internal("a look at addresses did not end").because(e))?;
        let held = held.map_err(|e| self.failed("cannot be looked for", &e))?;
        Ok((!held.is_empty()).then(|| Holder::Node(self.node.clone())))
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        if target.node != self.node {
            return Err(Error::invalid(format!(
                "a node adds the failover IP to itself alone. address={}, node={}, target={}",
                self.address, self.node, target.node
            )));
        }
        let (place, turn, begun) = (self.place.clone(), Arc::clone(&self.turn), self.turn.now());
        let (address, prefix) = (self.address, self.prefix);
        let added = tokio::task::spawn_blocking(move || turn.within(begun, || add(&place, address, prefix))).await;
        let added = added.map_err(|e| Error::internal("a change of addresses did not end").because(e))?;
        let Some(added) = added else {
            let text = format!("the failover IP was given up before it was added. address={address}");
            return Err(Error::new(ErrorKind::Fenced, text));
        };
        match added.map_err(|e| self.failed("cannot be added", &e).outcome_unknown())? {
            Added::At(link) => {
                self.announce_again(link);
                Ok(())
            }
            Added::Unannounced(e) => Err(self.failed("was added, and cannot be announced", &e).outcome_unknown()),
            Added::NoInterface => {
                let place = match &self.place {
                    Place::Named(name) => format!("interface={name}"),
                    Place::Beside(own) => format!("own_address={own}"),
                };
                Err(Error::invalid(format!(
                    "there is no interface for the failover IP. address={}, {place}",
                    self.address
                ))
                .hint(format!("set interface in [nodes.{}]", self.node)))
            }
        }
    }

    async fn release(&self) -> Result<()> {
        if let Some(again) = self.announcing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            again.abort();
        }
        let (turn, address) = (Arc::clone(&self.turn), self.address);
        turn.releases.fetch_add(1, SeqCst);
        let released = tokio::task::spawn_blocking(move || {
            let _one = turn.work.lock().unwrap_or_else(PoisonError::into_inner);
            netlink::take_off(address)
        });
        let released = released.await.map_err(|e| Error::internal("a change of addresses did not end").because(e))?;
        let from = released.map_err(|e| self.failed("cannot be taken off", &e))?;
        if from > 0 {
            tracing::info!(address = %self.address, "the failover IP was taken off this node");
        }
        Ok(())
    }

    fn pace(&self) -> Pace {
        PACE
    }
}
