//! Start, stop, kill, and the notice of an end.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::future::Future;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::{Inspection, Instance, durable};
use crate::postgres::conf_file::Clients;
use crate::postgres::limits;
use crate::postgres::process::PidFile;
use crate::view::Names;
use crate::{Error, NodeName, Result, Role};

/// How long a postmaster may take until it has bound its port.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often a starting postmaster is looked at.
const START_POLL: Duration = Duration::from_millis(5);
/// How long killing may take. A process that waits for a hung disk does not die.
const FENCE_LIMIT: Duration = Duration::from_secs(10);
/// How long asking to read the configuration again may take.
const RELOAD_LIMIT: Duration = Duration::from_secs(5);
/// A log of more bytes than this is put aside at a start.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// How much of the log is looked at for why a start failed, in bytes.
const LOG_TAIL_BYTES: u64 = 64 << 10;

/// How the error begins that tells of a server that gave up by itself while it started.
const NOT_STARTED: &str = "postgresql did not start";

/// Beginnings of what is worth telling of a failed start.
const TELLING: [&str; 6] = [
    "FATAL:",
    "PANIC:",
    "LOG:  could not bind",
    "LOG:  unrecognized configuration parameter",
    "LOG:  invalid value for parameter",
    "LOG:  syntax error in file",
];

impl Instance {
    /// Starts the postmaster, as a standby or as a primary on its old timeline, and returns when it has bound
    /// its port. A primary lets no client in before [`admit_clients`](Self::admit_clients). It outlives this agent. A standby is attached to nobody, unless an upstream is named: a
    /// data directory that was just rewound takes no connections before it has the upstream's WAL.
    ///
    /// # Errors
    /// `Conflict` when a process of the data directory still runs, `NeedsOperator` when a standby's data directory is to
    /// become a primary's, `NotReady` when the data directory must be copied
    /// anew, `Invalid` when the port is in use or the configuration is refused, `Unavailable` otherwise;
    /// the message holds what PostgreSQL said.
    pub async fn start(&self, role: Role, upstream: Option<&NodeName>) -> Result<()> {
        let layout = &self.inner.layout;
        let running = self.inner.family.members()?;
        if !running.is_empty() {
            let pids: Vec<_> = running.iter().map(|p| p.pid().to_string()).collect();
            return Err(Error::conflict(format!("postgresql still runs. pids={}", pids.join(","))));
        }
        let limits = match self.inspect().await? {
            // Recovery would end on the old timeline, beside the primary that the WAL came from.
            Inspection::Ours(data) if role == Role::Primary && !data.control.state.was_primary() => {
                return Err(Error::needs_operator("a standby is promoted, never started as a primary"));
            }
            Inspection::Ours(data) => data.control.limits,
            Inspection::Empty => return Err(Error::not_ready("there is no data directory")),
            Inspection::Unusable { reason } => {
                return Err(Error::not_ready(format!("the data directory cannot be started: {reason}")));
            }
        };
        if self.incarnation().is_none() {
            self.renew_incarnation(&layout.data).await?;
        }
        self.prepare_start(role, upstream).await?;
        {
            let mut memory = self.memory();
            memory.heard = None;
            memory.idle_polls = 0;
            memory.ended_at = None;
            memory.ran = true;
            // Every process begins with the names in the file.
            memory.settled = self.names_in_file();
        }
        let raised = if role == Role::Standby { self.too_low(&limits) } else { Vec::new() };
        let from = self.spawn(&raised)?;
        self.await_start(from).await
    }

    /// Puts the files in place that decide what the server becomes.
    async fn prepare_start(&self, role: Role, upstream: Option<&NodeName>) -> Result<()> {
        let data = &self.inner.layout.data;
        let conninfo = upstream.map(|node| self.upstream_conninfo(node)).transpose()?;
        self.write_upstream(conninfo.as_deref()).await?;
        // Whoever starts as a primary recovers first, and may show what nobody was told is committed.
        let clients = if role == Role::Primary { Clients::KeptOut } else { Clients::Admitted };
        self.write_clients(clients).await?;
        self.take_over_configuration();
        self.write_configuration().await?;
        durable::remove(&data.join("recovery.signal")).await?;
        // The lock file of a postmaster that was killed names a process that is none any more, or by now
        // another program (a container that restarts gives out the same numbers). PostgreSQL takes any
        // living number for the old postmaster, and refuses to start. `start` has seen that no process of
        // this data directory is left.
        if let Some(file) = PidFile::read(data)
            && Path::new(&format!("/proc/{}", file.pid.as_raw_nonzero())).exists()
        {
            durable::remove(&data.join("postmaster.pid")).await?;
        }
        // The folder of the socket is this instance's alone.
        let socket = format!(".s.PGSQL.{}", self.inner.config.port);
        durable::remove(&self.inner.layout.run.join(format!("{socket}.lock"))).await?;
        durable::remove(&self.inner.layout.run.join(socket)).await?;
        let signal = data.join("standby.signal");
        match role {
            Role::Standby => {
                // Those of an earlier reign; a promotion brings its own, and finds the most likely ones in force.
                self.write_names("", &Names::none()).await?;
                self.write(&signal, "").await
            }
            Role::Primary => durable::remove(&signal).await,
            Role::Witness | Role::Unknown => {
                Err(Error::invalid(format!("postgresql is started as a standby or as a primary. role={role}")))
            }
        }
    }

    /// What a standby is started with besides its settings: as much as its primary has, where that is more. It does not start
    /// otherwise, and gets what it is set to when the primary has had it first.
    fn too_low(&self, primary: &BTreeMap<&'static str, i64>) -> Vec<(&'static str, i64)> {
        let auto = std::fs::read_to_string(self.inner.layout.data.join("postgresql.auto.conf")).unwrap_or_default();
        let raised = limits::too_low(primary, &self.user_configuration().settings, &auto);
        for (name, value) in &raised {
            tracing::info!(setting = name, value, "started with what the primary has, which is more than is set");
        }
        raised
    }

    /// Runs the postmaster, and returns where its part of the log begins, and its number.
    fn spawn(&self, raised: &[(&str, i64)]) -> Result<Started> {
        self.inner.stopping.send_replace(false);
        let (config, layout) = (&self.inner.config, &self.inner.layout);
        let mut log = open_log(&layout.log)
            .map_err(|e| Error::internal(format!("cannot open the log. path={}", layout.log.display())).because(e))?;
        let give = |e| Error::internal("cannot give the log to the user of postgresql").because(e);
        config.os_user.take(&log).map_err(give)?;
        let begin = log.seek(SeekFrom::End(0)).map_err(give)?;
        let set = |key: &str, file: &str| format!("{key}={}", layout.conf_file(file).display());
        let program = self.program("postgres", START_LIMIT);
        let program = program
            .arg("-D")
            .arg(&layout.data)
            .args(["-c", &set("config_file", "postgresql.conf")])
            .args(["-c", &set("hba_file", "pg_hba.conf")])
            .args(["-c", &set("ident_file", "pg_ident.conf")]);
        // Where `wal_level` is less than logical, this ends the postmaster. Both are as they were at the start for as long
        // as it runs, whatever a reload finds in the file.
        let program =
            if self.keeps_failover_slots() { program.args(["-c", "sync_replication_slots=on"]) } else { program };
        let program =
            raised.iter().fold(program, |program, (name, value)| program.args(["-c", &format!("{name}={value}")]));
        let mut command = program.to_std();
        // From its first moment on it is found by its working directory.
        command.current_dir(&layout.data).stderr(log.try_clone().map_err(give)?).stdout(log);
        let mut child = tokio::process::Command::from(command).spawn().map_err(|e| program.cannot_run(e))?;
        let pid = child.id();
        let (told, ended) = tokio::sync::oneshot::channel();
        // Reaps it, whenever it ends.
        tokio::spawn(async move {
            // Later than during the start nobody listens any more.
            let _ = told.send(child.wait().await);
        });
        Ok(Started { begin, pid, ended })
    }

    /// Waits until the postmaster has bound its port, or has given up.
    async fn await_start(&self, mut started: Started) -> Result<()> {
        let layout = &self.inner.layout;
        let pid = started.pid.and_then(|p| i32::try_from(p).ok());
        let work = async {
            loop {
                if let Some(file) = PidFile::read(&layout.data)
                    && Some(file.pid.as_raw_nonzero().get()) == pid
                    && !file.status.is_empty()
                {
                    return Ok(());
                }
                if let Ok(status) = tokio::time::timeout(START_POLL, &mut started.ended).await {
                    let status = match status {
                        Ok(Ok(status)) => status.to_string(),
                        Ok(Err(error)) => error.to_string(),
                        Err(error) => error.to_string(),
                    };
                    return Err(self.why_not_started(started.begin, &status));
                }
            }
        };
        match tokio::time::timeout(START_LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("the postmaster does not get ready. limit={START_LIMIT:?}"))),
        }
    }

    /// Reads from the log why a start failed.
    fn why_not_started(&self, begin: u64, status: &str) -> Error {
        let (config, log) = (&self.inner.config, &self.inner.layout.log);
        let text = read_from(log, begin).unwrap_or_default();
        let said: Vec<&str> = text
            .lines()
            .filter_map(|line| TELLING.iter().find_map(|mark| line.find(mark)).map(|at| &line[at..]))
            .collect();
        // The earliest complaints have no mark yet.
        let said = if said.is_empty() { text.trim().replace('\n', " | ") } else { said.join(" | ") };
        if text.contains("Address already in use") {
            return Error::invalid(format!(
                "the port is in use. key=postgres.port, address={}, port={}",
                config.address, config.port
            ))
            .hint(format!("find who has it: ss -ltnp 'sport = :{}'", config.port))
            .hint("stop that server, or set postgres.port to a free one");
        }
        if text.contains("Cannot assign requested address") {
            return Error::invalid(format!(
                "this host does not have the address. key=nodes.{}.address, address={}",
                config.node, config.address
            ))
            .hint("set the address to one that `ip address` shows on this host");
        }
        let kind_invalid = text.contains("configuration file") || text.contains("unrecognized configuration parameter");
        let message = format!("{NOT_STARTED}. log={}, status={status}, said={said}", log.display());
        if kind_invalid {
            Error::invalid(message).hint("correct the key in postgres.settings that it names")
        } else {
            Error::unavailable(message)
        }
    }

    /// Resolves when no postmaster runs any more: at once if there is none. Event driven.
    pub fn exited(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let postmaster = self.inner.family.postmaster();
        async move {
            if let Some(postmaster) = postmaster {
                postmaster.gone().await;
            }
        }
    }

    /// Kills the postmaster and every other process of the data directory, and sees them gone: after that no commit
    /// is acknowledged any more. May break into any other method.
    ///
    /// # Errors
    /// `Internal` when a process is still there after 10 s, or `/proc` cannot be read.
    pub async fn fence(&self) -> Result<()> {
        self.inner.family.kill(FENCE_LIMIT).await
    }

    /// Shuts down in order (`fast`): sessions are ended, standbys that stream are sent all WAL, a last checkpoint is
    /// written. With `checkpoint`, one is written first, while the sessions still work.
    ///
    /// # Errors
    /// `Unavailable` when it still runs after `budget`: it goes on shutting down, and the caller decides
    /// whether to [`fence`](Self::fence).
    pub async fn stop(&self, budget: Duration, checkpoint: bool) -> Result<()> {
        let work = async {
            if checkpoint {
                // Only makes the shutdown shorter; one that recovers or hangs refuses it.
                let _ = self.inner.upkeep.batch("CHECKPOINT", budget / 2).await;
            }
            // Nobody waits for the archive from now on.
            self.inner.stopping.send_replace(true);
            if let Some(postmaster) = self.inner.family.postmaster() {
                postmaster.signal(Signal::INT)?;
                postmaster.gone().await;
            }
            // The last to leave: a logger may outlive the postmaster by a moment.
            for process in self.inner.family.members()? {
                process.gone().await;
            }
            Ok(())
        };
        match tokio::time::timeout(budget, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("postgresql did not stop in its budget. budget={budget:?}"))),
        }
    }

    /// Writes the configuration and has every process read it.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL does not answer.
    pub async fn reload(&self) -> Result<()> {
        self.write_configuration().await?;
        self.signal_reload().await
    }

    /// Has every process read the configuration.
    pub(super) async fn signal_reload(&self) -> Result<()> {
        self.strip_auto_conf().await?;
        self.inner.control.query("SELECT pg_reload_conf()", &[], RELOAD_LIMIT).await?;
        Ok(())
    }
}

/// Whether a start failed because the server gave up by itself, as it does over its configuration.
pub(crate) fn gave_up(error: &Error) -> bool {
    error.to_string().starts_with(NOT_STARTED)
}

struct Started {
    begin: u64,
    pid: Option<u32>,
    ended: tokio::sync::oneshot::Receiver<std::io::Result<std::process::ExitStatus>>,
}

/// Opens the log to append to, never through a link, and puts a long one aside.
fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.size() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_follow).open(path)
}

fn read_from(path: &Path, begin: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
