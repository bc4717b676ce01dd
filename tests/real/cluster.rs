//! [`RealCluster`]: the same scaffold that `pgdock init` writes, with an agent process for each node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgdock_core::clock::SystemClock;
use pgdock_core::cluster::{Cluster, ClusterStatus};
use pgdock_core::scaffold::{Scaffold, ScaffoldWitness};
use pgdock_core::secrets::Secrets;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result, Role, Settings};
use pgdock_makara::{Router, RouterBuilder};

use super::Route;
use super::processes::signal_all;
use crate::faults::Lab;

/// What kind of cluster to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// What an acknowledged commit means.
    pub durability: Durability,
    /// How many standbys have each acknowledged commit, in `quorum`.
    pub acks: u32,
    /// The last part of the first node's address, 127.0.0.N. Tests that run side by side differ in it.
    pub first: u8,
    /// Lines to add to `cluster.toml`, by the section that they belong to.
    pub extra: BTreeMap<&'static str, String>,
    /// A network of the cluster's own, instead of loopback addresses.
    pub lab: Option<Arc<Lab>>,
    /// Where the document lives, with the text of `secrets/witness.env`, instead of in a file.
    pub witness: Option<(ScaffoldWitness, String)>,
    /// Further files of `secrets/`.
    pub secrets: BTreeMap<&'static str, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            durability: Durability::Sync,
            acks: 1,
            first: 41,
            extra: BTreeMap::new(),
            lab: None,
            witness: None,
            secrets: BTreeMap::new(),
        }
    }
}

/// Whether real PostgreSQL can be tested here. Where it cannot, it is said, and with
/// `PGDOCK_REAL=required` it is a failure.
#[must_use]
pub fn available() -> bool {
    let path = std::env::var_os("PATH");
    let found = pgdock_core::postgres::version::Binaries::find(None, None, path.as_deref());
    match (found, program()) {
        (Ok(_), Ok(_)) => true,
        (Err(why), _) | (_, Err(why)) => {
            assert!(std::env::var("PGDOCK_REAL").as_deref() != Ok("required"), "cannot test on real parts: {why}");
            eprintln!("skipped: {why}");
            false
        }
    }
}

/// The `pgdock` program that was built beside this test.
///
/// # Errors
/// `Invalid` where it was not built.
pub fn program() -> Result<PathBuf> {
    let exe = std::env::current_exe().map_err(|e| Error::internal("cannot tell where this test lies").because(e))?;
    exe.ancestors()
        .map(|dir| dir.join("pgdock"))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::invalid("the program pgdock was not built").hint("run `cargo build -p pgdock-cli` first"))
}

/// A cluster of processes on this machine. Dropped, it leaves nothing running.
#[derive(Debug)]
pub struct RealCluster {
    /// Its settings.
    pub settings: Settings,
    /// The handle that users have.
    pub cluster: Cluster,
    program: PathBuf,
    agents: Mutex<BTreeMap<NodeName, Child>>,
    dir: Option<tempfile::TempDir>,
    lab: Option<Arc<Lab>>,
}

impl RealCluster {
    /// Makes the folder of a cluster; nothing runs yet.
    ///
    /// # Errors
    /// Whatever the scaffold, the settings or the machine say.
    pub async fn make(options: Options) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let io = |e: std::io::Error| Error::internal("cannot prepare a folder for the test").because(e);
        let above = options.lab.as_ref().map_or(Path::new("/tmp"), |lab| lab.dir());
        let dir = tempfile::Builder::new().prefix("pgdock-test-").tempdir_in(above).map_err(io)?;
        // PostgreSQL's user must be able to reach its folder.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).map_err(io)?;
        let nodes = (0..options.nodes).map(|i| {
            let name = NodeName::new(format!("n{}", i + 1)).expect("a valid name");
            let address = match &options.lab {
                Some(lab) => lab.address(name.as_str()).to_owned(),
                None => format!("127.0.0.{}", usize::from(options.first) + i),
            };
            (name, address)
        });
        let mut scaffold = Scaffold::new("test", nodes);
        scaffold.durability = options.durability;
        scaffold.acks = options.acks;
        scaffold.postgres_port = 54320;
        scaffold.agent_port = 57432;
        scaffold.witness = options.witness.as_ref().map(|(witness, _)| witness.clone());
        scaffold.write(dir.path(), &SystemClock)?;
        if let Some((_, credentials)) = &options.witness {
            std::fs::write(dir.path().join("secrets/witness.env"), credentials).map_err(io)?;
        }
        for (name, text) in &options.secrets {
            let path = dir.path().join("secrets").join(name);
            std::fs::write(&path, text).map_err(io)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        }
        let file = dir.path().join("cluster.toml");
        let mut text = std::fs::read_to_string(&file).map_err(io)?;
        for (section, lines) in &options.extra {
            let head = format!("[{section}]");
            // A comment may follow it.
            match text.lines().find(|line| line.starts_with(&head)).map(str::to_owned) {
                Some(found) => text = text.replacen(&found, &format!("{found}\n{lines}"), 1),
                None => text.push_str(&format!("\n{head}\n{lines}\n")),
            }
        }
        std::fs::write(&file, text).map_err(io)?;
        let settings = Settings::from_path(dir.path())?;
        let cluster = Cluster::builder(settings.clone()).build().await?;
        let (program, agents) = (program()?, Mutex::default());
        Ok(Self { settings, cluster, program, agents, dir: Some(dir), lab: options.lab })
    }

    /// Makes a cluster, starts its agents, founds it, and waits until every standby streams.
    ///
    /// # Errors
    /// Whatever goes wrong, with the agents' logs printed.
    pub async fn up(options: Options) -> Result<Self> {
        let this = Self::make(options).await?;
        this.begin().await?;
        Ok(this)
    }

    /// Starts the agents of a cluster that was made, founds it, and waits until every standby streams.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub async fn begin(&self) -> Result<()> {
        for node in self.nodes() {
            self.start_agent(&node);
        }
        self.found().await?;
        self.wait("every node streams", Duration::from_secs(60), |s| healthy(s, true)).await.map(drop)
    }

    /// Makes the first node the first primary.
    ///
    /// # Errors
    /// What its agent says.
    pub async fn found(&self) -> Result<()> {
        let first = self.nodes()[0].clone();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.cluster.bootstrap(&first).await {
                Ok(()) => return Ok(()),
                Err(e) if e.is_retryable() && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => {
                    self.print_logs();
                    return Err(e);
                }
            }
        }
    }

    /// The names of its nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeName> {
        self.settings.nodes.keys().cloned().collect()
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.settings.dir
    }

    /// The secrets.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn secrets(&self) -> Result<Secrets> {
        Secrets::load(&self.settings.secrets())
    }

    /// Starts the agent of a node as a process.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start_agent(&self, node: &NodeName) {
        let log = std::fs::File::options().create(true).append(true).open(self.agent_log(node)).expect("a log file");
        let mut command = match &self.lab {
            Some(lab) => lab.command(node.as_str(), &self.program),
            None => Command::new(&self.program),
        };
        let child = command
            .args(["--verbose", "agent", "--node", node.as_str()])
            .env("PGDOCK_CONFIG", self.config_dir(node))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        if let Some(mut old) = self.agents().insert(node.clone(), child) {
            let _ = old.kill();
            let _ = old.wait();
        }
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<NodeName, Child>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node's agent writes to its standard error, all of its lives one after the other.
    #[must_use]
    pub fn agent_log(&self, node: &NodeName) -> PathBuf {
        self.dir().join(format!("{node}.log"))
    }

    /// The process id of a node's agent.
    #[must_use]
    pub fn agent_pid(&self, node: &NodeName) -> Option<u32> {
        self.agents().get(node).map(Child::id)
    }

    /// Whether a node's agent runs: it was started, and has not ended, also by itself.
    #[must_use]
    pub fn agent_runs(&self, node: &NodeName) -> bool {
        self.agents().get_mut(node).is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal to a node's agent. One that is stopped has stopped when this returns.
    ///
    /// # Panics
    /// Where there is none.
    pub fn signal_agent(&self, node: &NodeName, signal: rustix::process::Signal) {
        let pid = self.agent_pid(node).expect("an agent runs");
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
        if signal == rustix::process::Signal::STOP {
            return crate::signals::stop(pid);
        }
        rustix::process::kill_process(pid, signal).expect("the agent can be signalled");
        if signal == rustix::process::Signal::KILL
            && let Some(mut child) = self.agents().remove(node)
        {
            let _ = child.wait();
        }
    }

    /// Has a node's agent end in order, and waits for it.
    ///
    /// # Errors
    /// `Unavailable` when it does not end.
    ///
    /// # Panics
    /// Where there is none.
    pub async fn stop_agent(&self, node: &NodeName) -> Result<()> {
        self.signal_agent(node, rustix::process::Signal::TERM);
        let mut child = self.agents().remove(node).expect("an agent runs");
        super::until("the agent ends", Duration::from_secs(30), async || !matches!(child.try_wait(), Ok(None))).await
    }

    /// Runs the program with the settings of this cluster, to its end.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub async fn pgdock(&self, args: &[&str]) -> Result<Output> {
        self.pgdock_at(self.dir(), args).await
    }

    /// As [`pgdock`](Self::pgdock), with the settings in another folder.
    ///
    /// # Errors
    /// Where it cannot be run, or does not end within two minutes.
    pub async fn pgdock_at(&self, dir: &Path, args: &[&str]) -> Result<Output> {
        let running = tokio::process::Command::new(&self.program)
            .args(args)
            .env("PGDOCK_CONFIG", dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(Duration::from_secs(120), running).await {
            Ok(ended) => ended.map_err(|e| Error::internal("pgdock cannot be run").because(e)),
            Err(_) => Err(Error::unavailable(format!("pgdock does not end. args={args:?}"))),
        }
    }

    /// How to connect to the primary.
    ///
    /// # Errors
    /// Where the secrets cannot be read.
    pub fn route(&self) -> Result<Route> {
        Route::to_primary(&self.settings, &self.secrets()?)
    }

    /// How to connect to one node, whatever it is.
    ///
    /// # Errors
    /// Where the secrets cannot be read.
    pub fn route_to(&self, node: &NodeName) -> Result<Route> {
        let of = &self.settings.nodes[node];
        Ok(self.route()?.to_node(&of.address, of.postgres_port))
    }

    /// A router over all nodes, as an application has one.
    ///
    /// # Errors
    /// Where the secrets cannot be read.
    pub fn router(&self) -> Result<Router> {
        let mut builder = Router::builder();
        for node in self.nodes() {
            builder = builder.node(node.as_str(), self.route_to(&node)?.parts().0, 1);
        }
        let built = builder.build(self.route()?.parts().1);
        built.map_err(|e| Error::internal("the router cannot be made").because(e))
    }

    /// A router that hears from the agents who leads, as an application with a handle on the cluster has one.
    ///
    /// # Errors
    /// Where the secrets cannot be read.
    pub fn router_by_agents(&self, change: impl FnOnce(RouterBuilder) -> RouterBuilder) -> Result<Router> {
        let failed = |e: pgdock_makara::Error| Error::internal("the router cannot be made").because(e);
        let builder = Router::builder().cluster(&self.cluster).map_err(failed)?;
        change(builder).build(self.route()?.parts().1).map_err(failed)
    }

    /// A node's data directory.
    #[must_use]
    pub fn data_dir(&self, node: &NodeName) -> PathBuf {
        self.settings.nodes[node].home.join("data")
    }

    /// The process id of a node's postmaster.
    #[must_use]
    pub fn postmaster_pid(&self, node: &NodeName) -> Option<i32> {
        let file = self.settings.nodes[node].home.join("data").join("postmaster.pid");
        std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
    }

    /// Kills a node's postmaster, as the kernel does when memory runs out.
    ///
    /// # Panics
    /// Where there is none.
    pub fn kill_postmaster(&self, node: &NodeName) {
        let pid = self.postmaster_pid(node).and_then(rustix::process::Pid::from_raw).expect("a postmaster runs");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
    }

    /// Kills a node's agent and its postmaster.
    pub fn kill_both(&self, node: &NodeName) {
        self.kill_postmaster(node);
        self.signal_agent(node, rustix::process::Signal::KILL);
    }

    /// Waits until the status fulfils a condition.
    ///
    /// # Errors
    /// `Unavailable` with the last status when it does not in time.
    pub async fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.cluster.status().await;
            match status {
                Ok(status) if condition(&status) => return Ok(status),
                status if Instant::now() >= deadline => {
                    let status = status.map(|s| serde_json::to_string_pretty(&s).unwrap_or_default());
                    return Err(Error::unavailable(format!("waited {limit:?} for: {what}; last status: {status:?}")));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The node that is primary, once all is well.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn settled(&self, limit: Duration) -> Result<NodeName> {
        let status = self.wait("one primary, all others streaming", limit, |s| healthy(s, true)).await?;
        Ok(status.leader.expect("a healthy cluster has a leader"))
    }

    /// Prints the end of every log.
    pub fn print_logs(&self) {
        for node in self.nodes() {
            for file in [self.agent_log(&node), self.settings.nodes[&node].home.join("logs/postgresql.log")] {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                eprintln!("== {}", file.display());
                for line in &lines[lines.len().saturating_sub(30)..] {
                    eprintln!("{line}");
                }
            }
        }
    }

    /// Keeps the folder when this is dropped, to look at it.
    pub fn keep(&mut self) {
        if let Some(dir) = self.dir.take() {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}

/// One primary that leads, every other node streams from it, and, in `sync` and `quorum`, a standby guards commits.
#[must_use]
pub fn healthy(status: &ClusterStatus, all: bool) -> bool {
    let Some(leader) = &status.leader else { return false };
    let guarded = !status.durability.is_some_and(Durability::is_guarded) || !status.sync_set.is_empty();
    guarded
        && status.nodes.iter().filter(|n| n.role == Role::Primary).count() == 1
        && status.nodes.iter().all(|n| {
            if n.name == *leader {
                n.role == Role::Primary
            } else {
                !all || n.role == Role::Standby
                    && n.upstream.as_ref() == Some(leader)
                    && n.state == pgdock_core::report::State::Streaming
            }
        })
}

impl Drop for RealCluster {
    fn drop(&mut self) {
        for child in self.agents().values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for node in self.nodes() {
            pgdock_core::agent::deadman::kill_all(&self.data_dir(&node));
            signal_all(self.deadman_pid(&node), rustix::process::Signal::KILL);
        }
        if std::thread::panicking() {
            self.print_logs();
        }
    }
}
