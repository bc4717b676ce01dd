//! [`Settings`]: what `cluster.toml` says. Plain data; components are objects given to builders.

mod backup;
mod bytes;
mod check;
mod credentials;
mod docker;
mod duration;
mod edit;
pub mod env_file;
mod failover_ip;
mod fault;
mod nearest;
mod nodes;
mod overlay;
mod parse;
mod place;
mod postgres;
mod registry;
mod section;
mod ssh;
mod store;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use backup::asked as backup_asks;
pub use backup::{BackupSettings, BadPages, Keep, KeySource, WalMode};
pub use credentials::Credentials;
pub use docker::{ContainerSettings, DockerSettings, EngineUrl, default_image};
pub use edit::{Edit, NewNode};
pub use failover_ip::{FailoverIpSettings, KeeperSettings, NodeFailoverIp};
pub use fault::{Fault, Faults};
pub(crate) use nodes::is_host;
pub(crate) use parse::{Files, parse, parse_at};
pub(crate) use place::Place;
pub use registry::RegistrySettings;
pub use ssh::{SshSettings, SshTarget};
pub use store::StoreSettings;
pub use witness::WitnessSettings;
pub(crate) use witness::asked as witness_asks;

use crate::NodeName;
use crate::witness::record::Durability;

/// All that `cluster.toml` says of a cluster, with defaults filled in and paths made absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder that holds `cluster.toml`, `shared/` and a folder for each node: an operator's, which holds `secrets/` as
    /// well, or an installed bundle.
    pub dir: PathBuf,
    /// The folder of secrets, never part of a bundle: `secrets/` in an operator's folder, that of the node's home for an
    /// installed bundle.
    pub secrets: PathBuf,
    /// Where relative paths begin that lead outside of `dir`. In an operator's folder the same as `dir`.
    pub base: PathBuf,
    /// For an installed bundle: the node that it is made for.
    pub bundle: Option<NodeName>,
    /// `[cluster]`
    pub cluster: ClusterSettings,
    /// `[postgres]`
    pub postgres: PostgresSettings,
    /// `[failover]`
    pub failover: FailoverSettings,
    /// `[witness]`
    pub witness: WitnessSettings,
    /// `[backup]`, where there is one.
    pub backup: Option<BackupSettings>,
    /// `[failover_ip]`, where there is one.
    pub failover_ip: Option<FailoverIpSettings>,
    /// `[registry]`, where there is one.
    pub registry: Option<RegistrySettings>,
    /// `[agent]`
    pub agent: AgentSettings,
    /// `[ssh]`
    pub ssh: SshSettings,
    /// `[docker]`
    pub docker: DockerSettings,
    /// `[nodes.NAME]`
    pub nodes: BTreeMap<NodeName, NodeSettings>,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `name`: the cluster's name.
    pub name: String,
    /// `executor`: how commands reach the nodes.
    pub executor: ExecutorKind,
    /// `root`: where nodes keep their things. With the local executor each node has a folder of its own
    /// below it; default `var` beside `cluster.toml`. Else it is a folder of each node's machine, one node a machine;
    /// default `/opt/pgdock`.
    pub root: PathBuf,
}

/// How commands reach a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecutorKind {
    /// All nodes are processes on this machine.
    #[default]
    Local,
    /// Each node is a machine that is reached over SSH.
    Ssh,
    /// Each node is a container of an engine.
    Docker,
}

impl ExecutorKind {
    /// As `cluster.toml` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Docker => "docker",
        }
    }
}

/// How commands reach one node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// As processes of this machine.
    Local,
    /// Over SSH.
    Ssh(SshTarget),
    /// In its container.
    Docker(ContainerSettings),
}

/// `[postgres]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `version`: the major version, 14 to 18. Where it is not given, the newest one found.
    pub version: Option<u32>,
    /// `bin_dir`: the folder of `postgres`, `initdb` and the rest, where it is not found by itself.
    pub bin_dir: Option<PathBuf>,
    /// `user`: the operating system's user that PostgreSQL runs as when the agent is root.
    pub user: String,
    /// `port`: where PostgreSQL listens, on each node's address.
    pub port: u16,
    /// `listen`: at which addresses of the node's machine.
    pub listen: Option<Listen>,
    /// `database`: the application's database, made at bootstrap.
    pub database: String,
    /// `owner`: its owner, the role that the application logs in as.
    pub owner: String,
    /// `[postgres.settings]`: lines for `postgresql.conf`, by name in lower case; values without quotes. What
    /// pgdock manages itself, or what would break its promises, is refused.
    pub settings: BTreeMap<String, String>,
    /// `hba`: further lines for `pg_hba.conf`, before those of pgdock's own that let applications in.
    pub hba: Vec<String>,
}

/// Where PostgreSQL listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At the node's address; and at the failover IP, where a provider sends it to the machine.
    Node,
    /// At every address of its machine, also those that it gets later.
    All,
}

/// `[failover]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverSettings {
    /// `durability`: `"sync"`, `"quorum"` or `"async"`.
    pub durability: Durability,
    /// `acks`: how many standbys shall hold each acknowledged commit. None in `async`, one in `sync`.
    pub acks: u32,
    /// `strict`: in `sync` and `quorum`, rather block writes than acknowledge them on the primary alone.
    pub strict: bool,
    /// `heartbeat`: how often the leader renews its right; at least 100 ms.
    pub heartbeat: Duration,
    /// `ttl`: how long a right lasts; at least 2 s and three heartbeats.
    pub ttl: Duration,
    /// `lag_bytes_max`: in `async`, how far behind the last known position of the leader a standby may
    /// be and still take over.
    pub lag_bytes_max: u64,
    /// `stop_budget`: how long a switchover waits for the old primary to stop before it is undone.
    pub stop_budget: Duration,
    /// `rejoin_budget`: how long a rewind may take, and how long a rewound data directory may take to
    /// catch up, before the leader is copied instead. A copy takes as long as the size of the database
    /// asks for.
    pub rejoin_budget: Duration,
    /// `disk_free_min`: with less room for its data directory, a leader hands over to a standby that has more.
    /// Zero: never.
    pub disk_free_min: u64,
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// `port`: where agents listen, on each node's address.
    pub port: u16,
    /// `beat`: how often agents tell each other how they are; at least 50 ms. Five silent ones make a
    /// suspicion, which must come before `[failover] ttl` has passed.
    pub beat: Duration,
}

/// `[nodes.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// `address`: an IP address or a host name, without port.
    pub address: String,
    /// `priority`: among equals the highest becomes primary.
    pub priority: u32,
    /// `failover`: whether this node may become primary.
    pub failover: bool,
    /// `postgres_port`: instead of `[postgres] port`.
    pub postgres_port: u16,
    /// `agent_port`: instead of `[agent] port`.
    pub agent_port: u16,
    /// `server_ip`, `server_id`, `instance_id`, `network_interface_id`, `interface`: where `[failover_ip]` points when it leads.
    pub failover_ip: NodeFailoverIp,
    /// The node's own folder on its host: `data`, `logs`, `conf`, `run`, `secrets`, `bundles`.
    pub home: PathBuf,
    /// `ssh`, `engine`, `container`, `volume`: how commands reach it.
    pub reach: Reach,
    /// What its `postgresql.conf` gets: its own file in the folder over the shared one over `[postgres.settings]`. Of an
    /// installed bundle only those of its own node are complete.
    pub settings: BTreeMap<String, String>,
    /// What its `pg_hba.conf` gets: the lines of its own file, then those of the shared one, then `hba` of `[postgres]`.
    pub hba: Vec<String>,
}

impl Settings {
    /// The folder of secrets, never part of a bundle.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.secrets.clone()
    }

    /// The variables of a node's `env/main`, or of another file of `env/`: its own file where there is one, else that of
    /// `shared/`. Empty where there is none.
    ///
    /// # Errors
    /// `Invalid` with every fault of the file. Values are never repeated.
    pub fn env(&self, node: &NodeName, name: &str) -> crate::Result<BTreeMap<String, String>> {
        match overlay::env_path(&self.base, &self.secrets, node, name) {
            Some(path) => env_file::read(&path),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The variables of `env/main` of the first node that has any: what they say of the cluster is the same in all.
    pub(crate) fn first_env(&self) -> crate::Result<BTreeMap<String, String>> {
        for node in self.nodes.keys() {
            let env = self.env(node, "main")?;
            if !env.is_empty() {
                return Ok(env);
            }
        }
        Ok(BTreeMap::new())
    }

    /// One node's settings.
    ///
    /// # Errors
    /// `Invalid` with the known names where there is no such node.
    pub fn node(&self, name: &NodeName) -> crate::Result<&NodeSettings> {
        self.nodes.get(name).ok_or_else(|| {
            let known: Vec<_> = self.nodes.keys().map(NodeName::as_str).collect();
            crate::Error::invalid(format!("there is no such node. node={name}, known={}", known.join(",")))
                .hint(format!("add [nodes.{name}] to {}", self.file().display()))
        })
    }

    /// Where the PostgreSQL of a node listens, as `listen_addresses` has it. At an address that the machine gets
    /// only when it leads, PostgreSQL could not listen when it starts.
    #[must_use]
    pub fn listen_addresses(&self, node: &NodeSettings) -> String {
        let held_here = self.failover_ip.as_ref().and_then(FailoverIpSettings::held_here).is_some();
        match (self.postgres.listen, &self.failover_ip) {
            (Some(Listen::All), _) => "*".to_owned(),
            (None, _) if held_here => "*".to_owned(),
            (_, Some(FailoverIpSettings::HetznerRobot(keeper) | FailoverIpSettings::HetznerCloud(keeper))) => {
                format!("{},{}", node.address, keeper.address)
            }
            _ => node.address.clone(),
        }
    }

    /// Where the settings were read from.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.join("cluster.toml")
    }

    /// The folder that a settings path names: the path itself, or the folder of the file. Empty for a bare
    /// file name, as [`Path::parent`] is.
    #[must_use]
    pub fn dir_of(path: &Path) -> PathBuf {
        if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(Path::new(".")).to_owned() }
    }
}
