//! [`Agent`]: what runs on each node, put together from settings and components.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::api::{self, ApiState, ServeConfig};
use crate::agent::archive::{self, Archiving};
use crate::agent::backup::Backups;
use crate::agent::client::AgentClient;
use crate::agent::configuration::Configuration;
use crate::agent::deadman::{self, Deadman, DeadmanConfig};
use crate::agent::driver::{Driver, Ended, Parts, Proof};
use crate::agent::hands::Hands;
use crate::agent::peers::{self, PeersConfig};
use crate::agent::policy::policy;
use crate::agent::publish::publish;
use crate::agent::state::StateFile;
use crate::agent::{lock, tls};
use crate::bundle::ledger::Bundles;
use crate::clock::{Clock, SystemClock};
use crate::decide::Decision;
use crate::event::EventLog;
use crate::failover_ip::{self, FailoverIp};
use crate::postgres::instance::{Instance, InstanceConfig, Layout};
use crate::postgres::os_user::OsUser;
use crate::postgres::version::Binaries;
use crate::secrets::Secrets;
use crate::settings::{FailoverIpSettings, Settings};
use crate::view::{Trust, View};
use crate::witness::{self, Witness};
use crate::{Error, NodeName, Result};

/// The agent of one node.
///
/// ```no_run
/// # async fn run() -> pgdock_core::Result<()> {
/// use pgdock_core::{Settings, agent::Agent};
/// use tokio_util::sync::CancellationToken;
///
/// let stop = CancellationToken::new();
/// Agent::builder(Settings::from_path("cluster.toml")?).node("n1").build()?.run(stop).await
/// # }
/// ```
#[derive(Debug)]
pub struct Agent {
    settings: Arc<Settings>,
    node: NodeName,
    secrets: Secrets,
    clock: Arc<dyn Clock>,
    witness: Arc<dyn Witness>,
    proves: bool,
    failover_ip: Option<Arc<dyn FailoverIp>>,
    /// Its embedder gave it one, in place of what the settings say.
    own_ip: bool,
    deadman_program: Option<PathBuf>,
    search_path: Option<std::ffi::OsString>,
    can_begin_anew: bool,
}

/// Puts an [`Agent`] together.
#[derive(Debug)]
#[must_use]
pub struct AgentBuilder {
    settings: Settings,
    node: Option<String>,
    clock: Arc<dyn Clock>,
    witness: Option<Arc<dyn Witness>>,
    failover_ip: Option<Arc<dyn FailoverIp>>,
    deadman_program: Option<PathBuf>,
    search_path: Option<std::ffi::OsString>,
    can_begin_anew: bool,
}

impl AgentBuilder {
    /// The node that it runs on. Required.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// The failover IP, in place of what the settings say.
    pub fn failover_ip(mut self, ip: impl FailoverIp) -> Self {
        self.failover_ip = Some(Arc::new(ip));
        self
    }

    /// The witness, in place of what the settings say.
    pub fn witness(mut self, witness: Arc<dyn Witness>) -> Self {
        self.witness = Some(witness);
        self
    }

    /// The clock, in place of the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The program that is run as the deadman: its `main` must begin with
    /// [`deadman::intercept`](crate::agent::deadman::intercept). Default: the running program.
    pub fn deadman_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.deadman_program = Some(program.into());
        self
    }

    /// Where to look for PostgreSQL's programs after the usual folders: the value of `PATH`.
    pub fn search_path(mut self, path: Option<std::ffi::OsString>) -> Self {
        self.search_path = path;
        self
    }

    /// Says that the caller of [`live`](Agent::live) starts a new process with the settings as they are then, where it
    /// answers [`Ended::BeginsAnew`]. Without this an order to begin anew is refused.
    pub fn can_begin_anew(mut self, can: bool) -> Self {
        self.can_begin_anew = can;
        self
    }

    /// Checks that all is there.
    ///
    /// # Errors
    /// `Invalid` when there is no such node, or a secret, certificate or component is missing.
    pub fn build(self) -> Result<Agent> {
        let name = self.node.ok_or_else(|| Error::invalid("no node was named").hint("call `.node(\"n1\")`"))?;
        let node = NodeName::new(&name)
            .map_err(|e| Error::invalid(format!("not the name of a node. node={name}")).because(e))?;
        self.settings.node(&node)?;
        let settings = Self::installed(self.settings, &node)?;
        let env = settings.env(&node, "main")?;
        let secrets = Secrets::load(&settings.secrets())?.with_env(&env);
        // Whoever gives a witness of his own answers for it, and the kernel for a file.
        let proves = self.witness.is_none() && settings.witness.file().is_none();
        let witness = match self.witness {
            Some(witness) => witness,
            None => witness::open(&settings.witness, &settings.cluster.name)?,
        };
        let own_ip = self.failover_ip.is_some();
        let failover_ip = match (self.failover_ip, &settings.failover_ip) {
            (Some(ip), _) => Some(ip),
            (None, Some(_)) => failover_ip::open(&settings, &node)?,
            (None, None) => None,
        };
        Ok(Agent {
            settings: Arc::new(settings),
            node,
            secrets,
            clock: self.clock,
            witness,
            proves,
            failover_ip,
            own_ip,
            deadman_program: self.deadman_program,
            search_path: self.search_path,
            can_begin_anew: self.can_begin_anew,
        })
    }

    /// The settings of the bundle that counts on a node of this machine, where one was installed there: whoever has
    /// updated a node once goes on to do so.
    fn installed(settings: Settings, node: &NodeName) -> Result<Settings> {
        let current = Bundles::of(&settings.node(node)?.home).current_dir();
        if settings.bundle.is_some() || !current.join("bundle.json").is_file() {
            return Ok(settings);
        }
        tracing::info!(dir = %current.display(), "the settings are those of the bundle that was installed");
        Settings::from_bundle_beside(&current, &settings.dir)
    }
}

/// `host:port`, with an IPv6 address in brackets.
#[must_use]
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn bind(address: &str, port: u16) -> Result<TcpListener> {
    TcpListener::bind(host_port(address, port)).await.map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::AddrInUse => "another program listens there: stop it, or set `[agent] port`",
            std::io::ErrorKind::AddrNotAvailable => {
                "the address is not one of this machine: check `address` of this node"
            }
            _ => "check `address` and `agent_port` of this node",
        };
        Error::invalid(format!("the agent cannot listen. address={}", host_port(address, port))).because(e).hint(hint)
    })
}

impl Agent {
    /// Puts an agent together.
    pub fn builder(settings: Settings) -> AgentBuilder {
        AgentBuilder {
            settings,
            node: None,
            clock: Arc::new(SystemClock),
            witness: None,
            failover_ip: None,
            deadman_program: None,
            search_path: None,
            can_begin_anew: false,
        }
    }

    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Runs until `stop` is cancelled or an operator orders it to stop. PostgreSQL is stopped in order
    /// then; a leader that has an heir hands over first.
    ///
    /// # Errors
    /// `Invalid` or `NeedsOperator` when it cannot begin: PostgreSQL is missing, its user cannot be used,
    /// the address is taken, another agent runs for this node.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        self.live(stop).await.map(drop)
    }

    /// As [`run`](Self::run), and tells how it ended.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn live(self, stop: CancellationToken) -> Result<Ended> {
        let settings = Arc::clone(&self.settings);
        let node = settings.node(&self.node)?.clone();
        let program = self.deadman_program.clone().unwrap_or_else(deadman::own_program);
        let instance = Arc::new(self.instance(&program)?);
        instance.prepare().await?;
        let _lock = lock::take(&node.home, &self.node)?;
        let durable = Arc::new(StateFile::open(&node.home.join("state.json"))?);
        let events = Arc::new(EventLog::open(
            &node.home.join("logs").join("events.ndjson"),
            self.node.clone(),
            Arc::clone(&self.clock),
        )?);

        let configuration = Arc::new(Configuration::open(
            Arc::clone(&settings),
            &self.node,
            Arc::clone(&self.clock),
            Arc::clone(&events),
        )?);
        let certificate = self.secrets.certificate(&self.node)?;
        let server =
            tls::server_config(certificate.certificate_pem.as_bytes(), certificate.key_pem.expose_secret().as_bytes())?;
        let client = tls::client_config(self.secrets.ca_pem.as_bytes())?;
        let listener = bind(&node.address, node.agent_port).await?;

        let mut config = DeadmanConfig::new(
            &instance.layout().data,
            &node.home.join("run"),
            &node.home.join("logs").join("deadman.log"),
        )?;
        config.address = settings.failover_ip.as_ref().filter(|_| !self.own_ip).and_then(FailoverIpSettings::held_here);
        config.program = program;
        let deadman = Deadman::open_or_spawn(config, Arc::clone(&self.clock)).await?;

        let mut view = View::new(self.node.clone(), policy(&settings, self.failover_ip.is_some()));
        view.now = self.clock.now();
        view.session = crate::dice::draw();
        let (published, watching) = watch::channel(publish(&view, &Decision::default()));
        let (order_tx, orders) = mpsc::channel(8);
        let (heard, peers) = mpsc::channel(256);

        // Cancelled when the loop has ended, whatever ended it.
        let end = CancellationToken::new();
        let _ends_with_us = end.clone().drop_guard();
        let archiving = Archiving::new(&settings, &instance, watching.clone(), Arc::clone(&self.clock));
        if let Some(archiving) = &archiving {
            archiving.spawn(&end)?;
        }
        let others = settings.nodes.iter().filter(|(name, _)| **name != self.node);
        let peer_agents = others
            .clone()
            .map(|(name, n)| {
                let agent = AgentClient::new(&host_port(&n.address, n.agent_port), Arc::clone(&client))?;
                Ok((name.clone(), agent.with_token(self.secrets.agent_token.clone())))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let backups = Backups::new(
            Arc::clone(&settings),
            self.node.clone(),
            Arc::clone(&instance),
            watching.clone(),
            peer_agents.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&events),
        );
        let clerk = backups.as_ref().map(|backups| Arc::new(backups.clerk()));
        if let Some(clerk) = &clerk {
            let (clerk, end) = (Arc::clone(clerk), end.clone());
            tokio::spawn(async move { clerk.run(end).await });
        }
        let state = ApiState {
            published: watching,
            orders: order_tx,
            events: Arc::clone(&events),
            token: self.secrets.agent_token.clone(),
            clock: Arc::clone(&self.clock),
            beat: settings.agent.beat,
            home: node.home.clone(),
            diverged: instance.diverged(),
            backups: backups.clone(),
            clerk: clerk.clone(),
            archiver: archiving.as_ref().map(|archiving| Arc::clone(&archiving.archiver)),
        };
        let router = api::router(state, end.clone());
        let served = tokio::spawn(api::serve(listener, server, router, ServeConfig::default(), end.clone()));
        let _links = peers::spawn(
            PeersConfig {
                cluster: settings.cluster.name.clone(),
                peers: others.map(|(name, n)| (name.clone(), host_port(&n.address, n.agent_port))).collect(),
                beat: settings.agent.beat,
                tls: client,
                token: self.secrets.agent_token.clone(),
            },
            &heard,
            &end,
        )?;
        drop(heard);

        let proof = self.proves.then(|| {
            let (settings, cluster) = (settings.witness.clone(), settings.cluster.name.clone());
            Proof::new(settings, cluster)
        });
        if proof.is_some() {
            view.trust = Trust::Untried;
        }
        let hands = Arc::new(Hands { instance, state: durable, settings, configuration, peers: peer_agents });
        let parts = Parts {
            clock: self.clock,
            witness: self.witness,
            proof,
            failover_ip: self.failover_ip,
            hands,
            archiving,
            backups,
            clerk,
            deadman,
            events,
            published,
            orders,
            peers,
            can_begin_anew: self.can_begin_anew,
        };
        let ended = Driver::new(view, parts).run(stop, true).await;
        end.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), served).await;
        ended
    }

    /// The PostgreSQL of this node.
    fn instance(&self, program: &Path) -> Result<Instance> {
        let settings = &self.settings;
        let node = settings.node(&self.node)?;
        let postgres = &settings.postgres;
        let certificate = self.secrets.certificate(&self.node)?;
        let config = InstanceConfig {
            home: node.home.clone(),
            binaries: Binaries::find(postgres.bin_dir.as_deref(), postgres.version, self.search_path.as_deref())?,
            os_user: OsUser::resolve(&postgres.user)?,
            cluster: settings.cluster.name.clone(),
            node: self.node.clone(),
            address: settings.listen_addresses(node),
            port: node.postgres_port,
            settings: node.settings.clone(),
            hba: node.hba.clone(),
            members: settings
                .nodes
                .iter()
                .map(|(name, n)| (name.clone(), (n.address.clone(), n.postgres_port)))
                .collect(),
            secrets: crate::postgres::instance::Secrets {
                superuser: self.secrets.superuser.clone(),
                replication: self.secrets.replication.clone(),
                rewind: self.secrets.rewind.clone(),
                monitor: self.secrets.monitor.clone(),
                app: self.secrets.app.clone(),
                ca_certificate: self.secrets.ca_pem.clone(),
                certificate: certificate.certificate_pem,
                key: certificate.key_pem,
            },
            database: postgres.database.clone(),
            owner: postgres.owner.clone(),
            archive_command: archive::command(settings, &Layout::new(&node.home, node.postgres_port)?, program),
        };
        Instance::new(config, Arc::clone(&self.clock))
    }
}
