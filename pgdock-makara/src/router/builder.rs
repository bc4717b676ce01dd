//! From addresses to a router.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use deadpool::Runtime;
use secrecy::ExposeSecret;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

use super::connection::{Dial, Ears, Manager, Pool, Tls};
use super::fleet::{Fleet, LagMax, Node};
use super::memo::Memo;
use super::sources::{Nursery, Source};
use super::stats::{NodeStats, RouterStats};
use super::{Error, Router, Shared, Sticky, Tasks};
use crate::{BanPolicy, Classifier, MakaraSettings, Strategy};

/// How long everything may take. Nothing in a router waits without a limit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// For a connection, be it new or from the pool. Default: 2 s.
    pub connect: Duration,
    /// For a statement, once it has its connection. Default: 30 s.
    pub statement: Duration,
    /// For a primary to appear. Default: 10 s.
    pub failover_wait: Duration,
    /// Between two questions for the role of a node. Default: 1 s; errors that a change explains ask at once.
    pub poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(2), statement: seconds(30), failover_wait: seconds(10), poll: seconds(1) }
    }
}

/// Which nodes answer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reads {
    /// The standbys, and the primary where none will do.
    #[default]
    PreferStandby,
    /// The standbys and the primary, in turn.
    All,
    /// The standbys alone: where none will do, [`Error::NoReplica`].
    StandbyOnly,
    /// The primary alone.
    PrimaryOnly,
    /// The primary alone, and each decision is written to the log: what would the router do with this application? The
    /// target of the events is `pgdock_makara::audit`, their level `INFO`; they hold the text of the statement, and never
    /// its arguments.
    Audit,
}

/// A node, as the builder was told of it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) name: String,
    pub(super) config: Config,
    pub(super) weight: u32,
    pub(super) zone: Option<String>,
    /// Where it differs from that of the others.
    pub(super) ban: Option<BanPolicy>,
}

impl Address {
    pub(super) fn new(name: String, config: Config, weight: u32) -> Self {
        Self { name, config, weight, zone: None, ban: None }
    }
}

/// Collects what a [`Router`] needs.
#[derive(Debug)]
pub struct RouterBuilder {
    id: String,
    nodes: Vec<Address>,
    sources: Vec<Source>,
    classifier: Classifier,
    strategy: Strategy,
    sticky: Sticky,
    reads: Reads,
    zone: Option<String>,
    lag_max: LagMax,
    fallback_max: Option<usize>,
    ban: BanPolicy,
    limits: Limits,
    pool_size: usize,
}

impl Default for RouterBuilder {
    fn default() -> Self {
        Self {
            id: "default".to_owned(),
            nodes: Vec::new(),
            sources: Vec::new(),
            classifier: Classifier::new(),
            strategy: Strategy::default(),
            sticky: Sticky::Ttl(Duration::from_secs(5)),
            reads: Reads::default(),
            zone: None,
            lag_max: LagMax::default(),
            fallback_max: None,
            ban: BanPolicy::default(),
            limits: Limits::default(),
            pool_size: 8,
        }
    }
}

impl RouterBuilder {
    /// A node of the cluster, with its weight among the standbys. Its address names one host; which node is the
    /// primary, the router finds out.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>, address: Config, weight: u32) -> Self {
        self.nodes.push(Address::new(name.into(), address, weight));
        self
    }

    /// The addresses of a name in the DNS (A and AAAA), given as `host:port`: each is a node, named by its address. They
    /// are looked up again and again; one that is no longer among them is let go, while an answer without any changes
    /// nothing. It is for clusters whose nodes all have their addresses there, and lets go of other nodes too.
    #[must_use]
    pub fn dns(mut self, place: impl Into<String>, template: Config, every: Duration) -> Self {
        self.sources.push(Source::Dns { place: place.into(), template: Box::new(template), every });
        self
    }

    /// The servers that these know of, each given as `host:port`: a primary tells whom it feeds, and a standby whom it
    /// follows, to a user with the rights of `pg_read_all_stats`. Standbys are expected to listen on the port of their
    /// primary. Nodes are named by their addresses.
    #[must_use]
    pub fn discover<P: Into<String>>(mut self, seeds: impl IntoIterator<Item = P>, template: Config) -> Self {
        let seeds = seeds.into_iter().map(Into::into).collect();
        self.sources.push(Source::Discover { seeds, template: Box::new(template) });
        self
    }

    /// The nodes of which agents tell, with their roles.
    #[cfg(feature = "agents")]
    #[must_use]
    pub fn agents(mut self, agents: super::agents::Agents) -> Self {
        self.sources.push(Source::Agents(Box::new(agents)));
        self
    }

    /// Where the node stands that was added last. See [`zone`](Self::zone).
    #[must_use]
    pub fn in_zone(mut self, zone: impl Into<String>) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.zone = Some(zone.into());
        }
        self
    }

    /// Where the router stands. Reads stay there while a standby of the same zone will do.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// What a configuration of Makara says: its connections become nodes, and its times and the strategy of its
    /// replicas hold.
    ///
    /// Which node is the primary is found out, whatever the roles in the file: a cluster changes, a file does not. Nor
    /// do `connection_error_matchers` count, since lost connections are known by their SQLSTATE, and never by a text.
    ///
    /// # Errors
    ///
    /// The `url` of a connection cannot be read.
    pub fn makara(mut self, settings: &MakaraSettings) -> Result<Self, Error> {
        for connection in &settings.connections {
            let config = match &connection.url {
                // The error would repeat the password.
                Some(url) => url.expose_secret().parse().map_err(|_| {
                    Error::Settings(format!("the url of a connection cannot be read. node={}", connection.name))
                })?,
                None => {
                    let mut config = Config::new();
                    config.port(connection.port);
                    connection.host.as_ref().map(|host| config.host(host));
                    connection.database.as_ref().map(|database| config.dbname(database));
                    connection.username.as_ref().map(|username| config.user(username));
                    connection.password.as_ref().map(|password| config.password(password.expose_secret()));
                    config
                }
            };
            let ban = match connection.disable_blacklist {
                true => BanPolicy::never(),
                false => BanPolicy::lasting(connection.blacklist_duration),
            };
            let (name, weight) = (connection.name.clone(), connection.weight);
            self.nodes.push(Address { name, config, weight, zone: None, ban: Some(ban) });
        }
        if let Some(id) = &settings.id {
            self.id.clone_from(id);
        }
        self.strategy = settings.replica_strategy;
        self.sticky = match settings.sticky {
            true => Sticky::Ttl(settings.primary_ttl),
            false => Sticky::Off,
        };
        Ok(self)
    }

    /// The name under which sessions remember this router. Default: `default`.
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// How statements are classified.
    #[must_use]
    pub fn classifier(self, classifier: Classifier) -> Self {
        Self { classifier, ..self }
    }

    /// How to choose among standbys. Default: in turn.
    #[must_use]
    pub fn strategy(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    /// How a session comes to read what it wrote. Default: from the primary, for 5 s.
    #[must_use]
    pub fn sticky(self, sticky: Sticky) -> Self {
        Self { sticky, ..self }
    }

    /// Which nodes answer reads. Default: standbys, and the primary where none will do.
    #[must_use]
    pub fn reads(self, reads: Reads) -> Self {
        Self { reads, ..self }
    }

    /// How many reads may run on the primary at a time because no standby will do, so that the loss of the standbys
    /// does not overwhelm it. Others wait for their turn as long as for a connection, and are then
    /// [`Error::NoReplica`]. Default: as many as it has connections.
    #[must_use]
    pub fn fallback_max(self, reads: usize) -> Self {
        Self { fallback_max: Some(reads), ..self }
    }

    /// How long a standby may be behind, and still answer reads. It is measured from poll to poll: the primary had
    /// something so long ago that the standby has not replayed. With [`lag_bytes_max`](Self::lag_bytes_max), one that
    /// is near enough by either measure will do. Default: however long.
    #[must_use]
    pub fn lag_max(mut self, time: Duration) -> Self {
        self.lag_max.time = Some(time);
        self
    }

    /// How many bytes of WAL a standby may be behind. Default: however many.
    #[must_use]
    pub fn lag_bytes_max(mut self, bytes: u64) -> Self {
        self.lag_max.bytes = Some(bytes);
        self
    }

    /// For how long a standby that failed is left alone. The primary never is.
    #[must_use]
    pub fn ban(self, ban: BanPolicy) -> Self {
        Self { ban, ..self }
    }

    /// How long everything may take.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Connections to each node at most, beside one that asks for its role. Default: 8.
    #[must_use]
    pub fn pool_size(self, pool_size: usize) -> Self {
        Self { pool_size, ..self }
    }

    /// Builds the router and begins to ask the nodes for their roles. It must be called within a tokio runtime; no node
    /// needs to be up.
    ///
    /// # Errors
    ///
    /// There is no node, two have the same name, one names several hosts, or a pool of no connections was asked for.
    pub fn build<T>(self, tls: T) -> Result<Router, Error>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let refused = |message: String| Err(Error::Settings(message));
        if (self.nodes.is_empty() && self.sources.is_empty()) || self.pool_size == 0 {
            return refused("a router needs a node, and a connection to it".to_owned());
        }
        if let Some(fault) = self.sources.iter().find_map(Source::fault) {
            return refused(fault);
        }
        for (index, Address { name, config, .. }) in self.nodes.iter().enumerate() {
            if self.nodes[..index].iter().any(|other| other.name == *name) {
                return refused(format!("two nodes have the same name. node={name}"));
            }
            if config.get_hosts().len().max(config.get_hostaddrs().len()) != 1 {
                return refused(format!("the address of a node names one host. node={name}"));
            }
        }
        let dial: Arc<dyn Dial> = Arc::new(Tls(tls));
        let primary_reads = self.reads == Reads::All;
        let fleet = Arc::new(Fleet::new(self.strategy, self.lag_max, primary_reads));
        let nursery = Nursery {
            router: self.id.clone(),
            fleet: fleet.clone(),
            dial: dial.clone(),
            limits: self.limits.clone(),
            pool_size: self.pool_size,
            ban: self.ban,
        };
        for address in self.nodes {
            nursery.add(address, None)?;
        }
        let mut sources = JoinSet::new();
        for source in self.sources {
            sources.spawn(source.run(nursery.clone()));
        }
        let limit = self.limits.statement;
        let shared = Shared {
            stats: RouterStats::new(&self.id),
            id: self.id,
            fleet: fleet.clone(),
            dial,
            classifier: self.classifier,
            memo: Memo::default(),
            sticky: self.sticky,
            reads: self.reads,
            zone: self.zone,
            limits: self.limits,
            fallback: self.fallback_max.map(Semaphore::new),
        };
        Ok(Router { shared: Arc::new(shared), limit, _tasks: Arc::new(Tasks { fleet, _sources: sources }) })
    }
}

/// A node with its pool.
pub(super) fn node(
    address: Address,
    router: &str,
    fleet: &Arc<Fleet>,
    dial: &Arc<dyn Dial>,
    limits: &Limits,
    pool_size: usize,
) -> Result<Node, Error> {
    let Address { name, mut config, weight, zone, .. } = address;
    config.connect_timeout(limits.connect);
    // The pool belongs to the node, which belongs to the fleet.
    let (fleet, heard) = (Arc::downgrade(fleet), name.clone());
    let ears = Ears {
        hot_standby: Arc::new(move |standby| {
            if let Some(fleet) = fleet.upgrade() {
                fleet.heard(&heard, standby);
            }
        }),
        notifications: None,
    };
    let manager = Manager {
        address: config.clone(),
        dial: dial.clone(),
        ears,
        epoch: AtomicU64::new(0),
        questions: AtomicU64::new(0),
    };
    let pool = Pool::builder(manager)
        .max_size(pool_size)
        .wait_timeout(Some(limits.connect))
        .create_timeout(Some(limits.connect))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| Error::Settings(error.to_string()))?;
    let stats = NodeStats::new(router, &name);
    Ok(Node { name, address: config, weight, zone, pool, asked: Notify::new(), stats })
}

#[cfg(test)]
mod tests {
    use tokio_postgres::NoTls;

    use super::*;

    fn makara(connection: &str) -> Result<RouterBuilder, Error> {
        let file = format!(
            "production: {{ makara: {{ id: app, master_ttl: 7, slave_strategy: failover, connections: [\
             {{ role: master, host: n1, username: u, password: s3cret }}, {connection}] }} }}\n"
        );
        let settings = MakaraSettings::from_yaml(&file, "production", |_| None).expect("the file is right");
        Router::builder().makara(&settings)
    }

    #[tokio::test]
    async fn a_configuration_of_makara_becomes_a_router() {
        let builder = makara("{ url: 'postgres://u:s3cret@n2:6543/db', weight: 3, disable_blacklist: true }").unwrap();
        assert_eq!((builder.id.as_str(), builder.sticky), ("app", Sticky::Ttl(Duration::from_secs(7))));
        assert_eq!(builder.strategy, Strategy::Failover);
        let [first, second] = builder.nodes.as_slice() else { panic!("two nodes") };
        assert_eq!((first.name.as_str(), first.config.get_password()), ("primary/1", Some(&b"s3cret"[..])));
        assert_eq!(
            (second.config.get_ports(), second.config.get_dbname(), second.weight),
            (&[6543][..], Some("db"), 3)
        );
        assert_eq!(second.ban, Some(BanPolicy::never()));
        assert!(!format!("{builder:?}").contains("s3cret"));
        assert!(builder.build(NoTls).is_ok());
    }

    #[test]
    fn a_url_that_cannot_be_read_is_named_and_not_repeated() {
        let error = makara("{ url: 'postgres://u:s3cret@n2:port/db' }").unwrap_err();
        assert!(error.to_string().contains("replica/1") && !format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}
