//! [`Instance`]: control of the one PostgreSQL of a node.
//!
//! ```text
//! HOME/data            the data directory            HOME/conf      postgresql.conf and what it includes
//! HOME/data.new        a copy being made             HOME/secrets   passfile, server.crt, server.key, ca.crt
//! HOME/data.old-N      what a copy replaced          HOME/logs      postgresql.log
//! HOME/diverged        WAL that a rewind took away   HOME/run       the Unix socket
//! ```
//!
//! The configuration lies outside the data directory, where neither `pg_basebackup` nor `pg_rewind` can
//! replace it with that of another node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;
use tokio::sync::watch;

use crate::clock::{Clock, Moment};
use crate::node::{Incarnation, Member};
use crate::view::Names;
use crate::{Lsn, NodeName, Result};

use super::command::Command;
use super::conf_file;
use super::control_data::ControlData;
use super::diverged::Kept;
use super::os_user::OsUser;
use super::process::Family;
use super::session::Session;
use super::version::Binaries;

mod clients;
mod configuration;
mod copy;
mod data_dir;
mod durable;
mod early_commits;
mod follow;
mod kept;
mod lately;
mod layout;
mod names;
mod observe;
mod oldest_wal;
mod prepare;
mod promote;
mod rewind;
pub(crate) mod roles;
mod run;
mod scripts;
mod slots;
mod tail;
mod wal_switch;

pub use configuration::UserConfiguration;
pub use copy::Progress;
pub use data_dir::{DataDir, Inspection};
pub use follow::Detached;
pub use layout::Layout;
pub use observe::Observation;
pub(crate) use run::gave_up;
pub use scripts::Script;
pub use tail::HeldWal;

use lately::Lately;

/// What an [`Instance`] is made of.
#[derive(Clone, Debug)]
pub struct InstanceConfig {
    /// The node's own folder. The user that PostgreSQL runs as must be able to reach it.
    pub home: PathBuf,
    /// The PostgreSQL to run.
    pub binaries: Binaries,
    /// The user to run it as.
    pub os_user: OsUser,
    /// The cluster's name.
    pub cluster: String,
    /// This node.
    pub node: NodeName,
    /// Where it listens, as `listen_addresses` has it: addresses or host names, or `*`.
    pub address: String,
    /// On which port.
    pub port: u16,
    /// The user's settings for `postgresql.conf`.
    pub settings: BTreeMap<String, String>,
    /// The user's lines for `pg_hba.conf`.
    pub hba: Vec<String>,
    /// Where the PostgreSQL of each member listens, this node's own among them.
    pub members: BTreeMap<NodeName, (String, u16)>,
    /// Passwords and certificates.
    pub secrets: Secrets,
    /// The application's database.
    pub database: String,
    /// Its owner, the role that the application logs in as.
    pub owner: String,
    /// `archive_command`, where WAL is archived. It is asked on standbys, too.
    pub archive_command: Option<String>,
}

/// How often the room on the disk is asked for.
const ROOM_EVERY: std::time::Duration = std::time::Duration::from_millis(250);

/// The secrets that a node needs.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The password of role `postgres`.
    pub superuser: SecretString,
    /// The password of role `pgdock_replication`.
    pub replication: SecretString,
    /// The password of role `pgdock_rewind`.
    pub rewind: SecretString,
    /// The password of role `pgdock_monitor`.
    pub monitor: SecretString,
    /// The password of the application's role.
    pub app: SecretString,
    /// The certificate of the authority that signs the nodes' certificates, as PEM.
    pub ca_certificate: String,
    /// This node's certificate, as PEM.
    pub certificate: String,
    /// Its private key, as PEM.
    pub key: SecretString,
}

/// Control of the one PostgreSQL of a node. Clones control the same one.
///
/// At most one of the methods that change the state may run at a time, except [`fence`](Self::fence), which may break into
/// any of them, after which that call must be dropped. Observing and the upkeep of slots and roles may
/// run beside everything. All waits are bounded, and every method may be dropped at any point: what it
/// wrote is either the old file or the new one, and the programs that it started, other than the
/// server itself, are killed.
#[derive(Clone, Debug)]
pub struct Instance {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: InstanceConfig,
    layout: Layout,
    family: Family,
    clock: Arc<dyn Clock>,
    /// The part of the configuration that changes.
    in_force: Mutex<configuration::InForce>,
    /// For observing, several times a second.
    watching: Session,
    /// For what changes the state; kept open so that a promotion finds it open.
    control: Session,
    /// For upkeep that may take long.
    upkeep: Session,
    memory: Mutex<Memory>,
    /// Whether PostgreSQL was told to stop, and not started again since.
    stopping: watch::Sender<bool>,
    /// What is asked of a running server.
    observation: String,
}

/// What only a series of observations tells.
#[derive(Debug, Default)]
struct Memory {
    /// The data directory's identity, as it was read last.
    incarnation: Option<Incarnation>,
    /// How far the WAL was seen to reach, and in which data directory.
    flushed: Option<(Incarnation, Lsn)>,
    /// When processes were first missed after some had been seen.
    ended_at: Option<Moment>,
    /// Whether any process was seen at the last observation.
    ran: bool,
    /// What the WAL receiver said last of when it heard anything, and when that was noticed.
    heard: Option<(String, Moment)>,
    /// How often in a row the startup process of a detached standby was seen to find no more WAL.
    idle_polls: u32,
    /// The names that every process is known to use.
    settled: Option<Names>,
    /// The control file, as of its last change.
    control: Option<(std::time::SystemTime, ControlData)>,
    /// The past of a timeline never changes.
    history: Option<crate::History>,
    /// How much room is left, in bytes.
    room: Lately<u64>,
    /// Which WAL of earlier rewinds is kept.
    kept: Lately<Arc<Vec<Kept>>>,
    /// Where the oldest WAL on disk begins.
    oldest_wal: Lately<Option<Lsn>>,
    /// For whom commits do not wait for standbys.
    early_commits: Lately<Arc<[String]>>,
}

impl Instance {
    /// Takes control of the instance in a home. Touches nothing yet.
    ///
    /// # Errors
    /// `Invalid` when settings, lines for `pg_hba.conf` or passwords are not acceptable.
    pub fn new(config: InstanceConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let in_force = Mutex::new(configuration::InForce::of(&config)?);
        let secrets = &config.secrets;
        conf_file::passfile(&[
            ("postgres", &secrets.superuser),
            ("pgdock_replication", &secrets.replication),
            ("pgdock_rewind", &secrets.rewind),
            ("pgdock_monitor", &secrets.monitor),
            (&config.owner, &secrets.app),
        ])?;
        let layout = Layout::new(&config.home, config.port)?;
        let family = Family {
            data: layout.data.clone(),
            cluster_name: cluster_name(&config.cluster, &config.node, &layout.home),
            uid: config.os_user.uid,
        };
        let session = || Session::new(&layout.run, config.port);
        let (watching, control, upkeep) = (session(), session(), session());
        let memory = Mutex::default();
        let observation = observe::query_for(config.binaries.version());
        let stopping = watch::Sender::new(false);
        let inner =
            Inner { stopping, observation, config, layout, family, clock, in_force, watching, control, upkeep, memory };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it was made of.
    #[must_use]
    pub fn config(&self) -> &InstanceConfig {
        &self.inner.config
    }

    /// Where its files lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// Whether PostgreSQL is being stopped, or was, and not started again since.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.inner.stopping.subscribe()
    }

    /// This node's present life, once there is a data directory.
    #[must_use]
    pub fn member(&self) -> Option<Member> {
        Some(Member { node: self.inner.config.node.clone(), incarnation: self.incarnation()? })
    }

    /// How much room is left for PostgreSQL in the file systems of its data directory and its WAL, in bytes, as
    /// of a moment ago. Never waits: a file system that does not answer leaves the last value.
    #[must_use]
    pub fn disk_free(&self) -> Option<u64> {
        self.lately_on_disk(|m| &mut m.room, ROOM_EVERY, |this| free_bytes(&this.inner.layout.data))
    }

    /// Whether this PostgreSQL keeps logical slots on standbys, so that they survive a failover: since version 17, where
    /// `wal_level` is `logical` and `hot_standby_feedback`, which that needs, was not switched off. It is as it was at the last start.
    #[must_use]
    pub fn keeps_failover_slots(&self) -> bool {
        self.in_force().keeps_failover_slots
    }

    fn in_force(&self) -> MutexGuard<'_, configuration::InForce> {
        self.inner.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of PostgreSQL's programs, to be run as its user.
    fn program(&self, name: &str, limit: std::time::Duration) -> Command {
        let config = &self.inner.config;
        Command::new(config.binaries.program(name), &config.os_user, &self.inner.layout.home, limit)
    }

    /// Writes a file of this instance durably.
    async fn write(&self, path: &Path, text: impl Into<Vec<u8>>) -> Result<()> {
        durable::write(path, text.into(), &self.inner.config.os_user).await
    }
}

/// The room in the file systems of a data directory and of its WAL: the smaller one.
fn free_bytes(data: &Path) -> Option<u64> {
    let free = |path: &Path| rustix::fs::statvfs(path).ok().map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    free(data).map(|of_data| free(&data.join("pg_wal")).map_or(of_data, |of_wal| of_wal.min(of_data)))
}

/// What every process shows in its title, in at most 63 bytes. The home makes it unique on a host, also among clusters
/// of one name: processes are told by it where nothing better can be seen.
fn cluster_name(cluster: &str, node: &NodeName, home: &Path) -> String {
    let plain: String = cluster.chars().filter(char::is_ascii_graphic).take(20).collect();
    let hash = crate::fnv::fnv1a(home.as_os_str().as_encoded_bytes());
    format!("{plain}/{node}-{:08x}", hash as u32)
}
