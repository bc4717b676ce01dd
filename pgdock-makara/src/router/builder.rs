//! From addresses to a router.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use secrecy::ExposeSecret;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{CancelToken, Config, Socket};

use super::{Error, Node, Role, Router, Shared, Topology, topology};
use crate::clock::Clock;
use crate::{Balancer, BanPolicy, Blacklist, Classifier, MakaraSettings, Strategy};

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

/// A node, as the builder was told of it.
#[derive(Clone, Debug)]
struct Address {
    name: String,
    config: Config,
    weight: u32,
    /// Where it differs from that of the others.
    ban: Option<BanPolicy>,
}

/// Collects what a [`Router`] needs.
#[derive(Debug)]
pub struct RouterBuilder {
    id: String,
    nodes: Vec<Address>,
    classifier: Classifier,
    strategy: Strategy,
    sticky: Option<Duration>,
    ban: BanPolicy,
    limits: Limits,
    pool_size: usize,
}

impl Default for RouterBuilder {
    fn default() -> Self {
        Self {
            id: "default".to_owned(),
            nodes: Vec::new(),
            classifier: Classifier::new(),
            strategy: Strategy::default(),
            sticky: Some(Duration::from_secs(5)),
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
        self.nodes.push(Address { name: name.into(), config: address, weight, ban: None });
        self
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
            self.nodes.push(Address { name, config, weight, ban: Some(ban) });
        }
        if let Some(id) = &settings.id {
            self.id.clone_from(id);
        }
        self.strategy = settings.replica_strategy;
        self.sticky = settings.sticky.then_some(settings.primary_ttl);
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

    /// For how long a session that wrote reads from the primary, counted from its [`commit`](super::Session::commit);
    /// `None` never. Default: 5 s.
    #[must_use]
    pub fn sticky(self, ttl: Option<Duration>) -> Self {
        Self { sticky: ttl, ..self }
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
        if self.nodes.is_empty() || self.pool_size == 0 {
            return refused("a router needs a node, and a connection to it".to_owned());
        }
        for (index, Address { name, config, .. }) in self.nodes.iter().enumerate() {
            if self.nodes[..index].iter().any(|other| other.name == *name) {
                return refused(format!("two nodes have the same name. node={name}"));
            }
            if config.get_hosts().len().max(config.get_hostaddrs().len()) != 1 {
                return refused(format!("the address of a node names one host. node={name}"));
            }
        }
        let pool = |address: &Config, size: usize| {
            let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
            let mut address = address.clone();
            address.connect_timeout(self.limits.connect);
            Pool::builder(Manager::from_config(address, tls.clone(), config))
                .max_size(size)
                .wait_timeout(Some(self.limits.connect))
                .create_timeout(Some(self.limits.connect))
                .recycle_timeout(Some(self.limits.connect))
                .runtime(Runtime::Tokio1)
                .build()
                .map_err(|error| Error::Settings(error.to_string()))
        };
        let weights: Vec<u32> = self.nodes.iter().map(|node| node.weight).collect();
        let bans: Vec<BanPolicy> = self.nodes.iter().map(|node| node.ban.unwrap_or(self.ban)).collect();
        let nodes: Result<Vec<Node>, Error> = self
            .nodes
            .iter()
            .map(|Address { name, config, .. }| {
                Ok(Node { name: name.clone(), pool: pool(config, self.pool_size)?, monitor: pool(config, 1)? })
            })
            .collect();
        let (count, connect) = (weights.len(), self.limits.connect);
        let shared = Arc::new(Shared {
            id: self.id,
            nodes: nodes?,
            classifier: self.classifier,
            sticky: self.sticky,
            limits: self.limits,
            clock: Clock::start(),
            replicas: Mutex::new(Balancer::new(self.strategy, &weights)),
            blacklist: Mutex::new(Blacklist::new(bans)),
            topology: watch::Sender::new(Topology { roles: vec![Role::Unknown; count] }),
            asked: (0..count).map(|_| Notify::new()).collect(),
            cancel: Box::new(move |token: CancelToken| {
                let tls = tls.clone();
                // The statement is given up either way; this only frees the server from it.
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(connect, token.cancel_query(tls)).await;
                });
            }),
        });
        let mut polls = JoinSet::new();
        for node in 0..count {
            polls.spawn(topology::poll(shared.clone(), node));
        }
        Ok(Router { shared, _polls: Arc::new(polls) })
    }
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
        assert_eq!((builder.id.as_str(), builder.sticky), ("app", Some(Duration::from_secs(7))));
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
