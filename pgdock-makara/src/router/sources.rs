//! Where nodes come from, beside a list: a name in the DNS, or what servers tell of each other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::Config;

use super::builder::{Address, node};
use super::connection::Dial;
use super::fleet::Fleet;
use super::poll::{Neighbour, Polling, Tell, poll};
use super::{Error, Limits};
use crate::BanPolicy;

/// Makes nodes while the router runs.
#[derive(Clone)]
pub(super) struct Nursery {
    pub(super) router: String,
    pub(super) fleet: Arc<Fleet>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) limits: Limits,
    pub(super) pool_size: usize,
    pub(super) ban: BanPolicy,
}

impl Nursery {
    /// Takes a node in, unless there is one of its name.
    pub(super) fn add(&self, address: Address, neighbours: Option<Arc<Tell>>) -> Result<(), Error> {
        if self.fleet.view().nodes.iter().any(|node| node.name == address.name) {
            return Ok(());
        }
        let ban = address.ban.unwrap_or(self.ban);
        let node = Arc::new(node(address, &self.router, &self.fleet, &self.dial, &self.limits, self.pool_size)?);
        let polling = Polling {
            fleet: self.fleet.clone(),
            dial: self.dial.clone(),
            connect: self.limits.connect,
            every: self.limits.poll,
            neighbours,
        };
        self.fleet.add(node, ban, |node| tokio::spawn(poll(polling, node)).abort_handle());
        Ok(())
    }

    /// A node at an address, of which a template tells all but the host.
    fn at(&self, host: Option<&str>, socket: SocketAddr, template: &Config, tell: Option<Arc<Tell>>) {
        let mut config = template.clone();
        // The name is for the certificate; the address is where to go.
        config.host(host.map_or_else(|| socket.ip().to_string(), str::to_owned));
        config.hostaddr(socket.ip()).port(socket.port());
        let name = socket.to_string();
        if let Err(error) = self.add(Address::new(name.clone(), config, 1), tell) {
            tracing::warn!(node = %name, %error, "a node cannot be used");
        }
    }
}

/// `host:port`, taken apart.
fn apart(place: &str) -> Option<(&str, u16)> {
    let (host, port) = place.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

/// A source of nodes, as the builder was told of it.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The addresses of a name.
    Dns { place: String, template: Box<Config>, every: Duration },
    /// The servers that these tell of.
    Discover { seeds: Vec<String>, template: Box<Config> },
    #[cfg(feature = "agents")]
    Agents(Box<super::agents::Agents>),
}

impl Source {
    /// What is wrong with it.
    pub(super) fn fault(&self) -> Option<String> {
        let place = |place: &String| match apart(place) {
            Some(_) => None,
            None => Some(format!("expected host:port. found={place}")),
        };
        let template = |template: &Config| {
            let named = !template.get_hosts().is_empty() || !template.get_hostaddrs().is_empty();
            named.then(|| "the template of an address names no host: that is found out".to_owned())
        };
        match self {
            Self::Dns { place: name, template: of, .. } => place(name).or_else(|| template(of)),
            Self::Discover { seeds, .. } if seeds.is_empty() => Some("there is nobody to ask for nodes".to_owned()),
            Self::Discover { seeds, template: of } => seeds.iter().find_map(place).or_else(|| template(of)),
            #[cfg(feature = "agents")]
            Self::Agents(agents) => agents.places().iter().find_map(place).or_else(|| template(agents.template())),
        }
    }

    /// Finds nodes, as long as there is a router.
    pub(super) async fn run(self, nursery: Nursery) {
        match self {
            Self::Dns { place, template, every } => dns(&nursery, &place, &template, every).await,
            Self::Discover { seeds, template } => discover(&nursery, &seeds, *template).await,
            #[cfg(feature = "agents")]
            Self::Agents(agents) => agents.run(nursery).await,
        }
    }
}

/// Follows the addresses of a name. An answer that is none changes nothing: a name server that fails takes no node away.
async fn dns(nursery: &Nursery, place: &str, template: &Config, every: Duration) {
    let host = apart(place).map(|(host, _)| host);
    loop {
        let found = timeout(nursery.limits.connect, lookup_host(place)).await;
        let sockets: BTreeSet<SocketAddr> = match found {
            Ok(Ok(sockets)) => sockets.collect(),
            Ok(Err(error)) => {
                tracing::warn!(place, %error, "no answer from the DNS");
                BTreeSet::new()
            }
            Err(_) => BTreeSet::new(),
        };
        if !sockets.is_empty() {
            for socket in &sockets {
                nursery.at(host, *socket, template, None);
            }
            let names: Vec<String> = sockets.iter().map(SocketAddr::to_string).collect();
            nursery.fleet.retain(&names.iter().map(String::as_str).collect());
        }
        sleep(every).await;
    }
}

/// Asks seeds for their neighbours, and these for theirs.
async fn discover(nursery: &Nursery, seeds: &[String], template: Config) {
    let (found, mut next) = tokio::sync::mpsc::channel::<SocketAddr>(64);
    let told = found.clone();
    let tell: Arc<Tell> = Arc::new(move |of, neighbours: Vec<Neighbour>| {
        let own = of.address.get_ports().first().copied().unwrap_or(5432);
        for Neighbour { host, port } in neighbours {
            // The other end of a connection does not tell where it listens: most likely as the others do.
            if let Ok(ip) = host.parse() {
                let _ = told.try_send(SocketAddr::new(ip, port.unwrap_or(own)));
            }
        }
    });
    let mut lookups = JoinSet::new();
    for seed in seeds {
        let (seed, found, connect) = (seed.clone(), found.clone(), nursery.limits.connect);
        lookups.spawn(async move {
            let mut pause = Duration::from_millis(100);
            loop {
                if let Ok(Ok(sockets)) = timeout(connect, lookup_host(&seed)).await {
                    for socket in sockets {
                        let _ = found.send(socket).await;
                    }
                    return;
                }
                tracing::warn!(seed, "a seed has no address");
                sleep(pause).await;
                pause = (pause * 2).min(connect);
            }
        });
    }
    while let Some(socket) = next.recv().await {
        nursery.at(None, socket, &template, Some(tell.clone()));
    }
}
