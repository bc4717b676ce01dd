//! [`Deadman`]: a small process that kills PostgreSQL when the right to be primary ends.
//!
//! ```text
//!  agent ── arm(deadline) ──▶ shared memory ◀── looks every 100 ms ── deadman ── SIGKILL ──▶ postmaster,
//!    ▲                             │                                                          backends
//!    └───────── fired? ────────────┘
//! ```
//!
//! Where the machine itself holds the failover IP while its node leads, it takes that off, too.
//!
//! It needs nothing of the agent: when the agent hangs, is stopped or killed, nobody moves the deadline any
//! more, and it passes. The deadman outlives its agent, and the next agent adopts it.
//!
//! Architecture invariant: a deadline that was armed is enforced, unless an agent moved or cleared it
//! *before* it passed. Both sides change it by compare-and-swap, so an agent that comes too late is told.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::backup::wal::client;
use crate::clock::{Clock, Moment};
use crate::fnv::fnv1a;
use crate::{Error, ErrorKind, Result};

mod shared;
mod watch;

pub use crate::postgres::process::{any_alive, kill_all};
pub use watch::run;

use shared::{DISARMED, ENDED, FIRING, Shared, address_key, moment, nanos};

/// A deadman that did not look for so long is not alive: it looks ten times a second.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long a new deadman may take to start.
const START_BUDGET: Duration = Duration::from_secs(5);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// How to find a deadman, or start one.
#[derive(Clone, Debug)]
pub struct DeadmanConfig {
    /// PostgreSQL's data directory.
    pub data_dir: PathBuf,
    /// The file that agent and deadman share.
    pub shared: PathBuf,
    /// Where a deadman writes what it does.
    pub log: PathBuf,
    /// A failover IP that this machine holds by itself while its node leads: it is taken off when the deadline
    /// passes, and as long as none is armed.
    pub address: Option<IpAddr>,
    /// The program to run: one whose `main` begins with [`intercept`]. Default: the running one.
    pub program: PathBuf,
    /// Arguments before `deadman --shared PATH --data DIR …`.
    pub args: Vec<OsString>,
}

impl DeadmanConfig {
    /// The usual configuration: shared memory in `/dev/shm`, or in `run_dir` where there is none.
    ///
    /// # Errors
    /// `Internal` when `run_dir` cannot be made.
    pub fn new(data_dir: &Path, run_dir: &Path, log: &Path) -> Result<Self> {
        std::fs::create_dir_all(run_dir)
            .map_err(|e| Error::internal(format!("cannot make the folder. path={}", run_dir.display())).because(e))?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            shared: shared_path(Path::new("/dev/shm"), data_dir, run_dir),
            log: log.to_owned(),
            address: None,
            program: own_program(),
            args: Vec::new(),
        })
    }
}

/// The running program. It may have been replaced by an upgrade; then its path is marked as deleted.
pub(super) fn own_program() -> PathBuf {
    std::env::current_exe().ok().filter(|exe| exe.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

/// Memory rather than disk: a page of a file on a stalled disk can stall whoever touches it.
fn shared_path(memory: &Path, data_dir: &Path, run_dir: &Path) -> PathBuf {
    // Containers may share /dev/shm and have equal paths; the folder's inode tells them apart.
    let mut key = data_dir.as_os_str().as_bytes().to_vec();
    if let Ok(meta) = std::fs::metadata(run_dir) {
        key.extend(meta.dev().to_le_bytes());
        key.extend(meta.ino().to_le_bytes());
    }
    let in_memory = memory.join(format!("pgdock-{:016x}.deadman", fnv1a(key)));
    let usable = memory.is_dir() && Shared::open(&in_memory).is_ok();
    if usable { in_memory } else { run_dir.join("deadman") }
}

/// What a deadman is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Armed {
    /// It waits to be armed.
    No,
    /// It kills PostgreSQL at this moment.
    Until(Moment),
    /// The moment has passed; it kills until no process is left.
    Firing,
    /// It has ended.
    Ended,
}

/// What a deadman did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Which arming it was, counted from the first.
    pub generation: u64,
    /// When no process was left any more.
    pub at: Moment,
}

/// An agent's handle on its deadman. Dropping it changes nothing: the deadman goes on.
#[derive(Debug)]
pub struct Deadman {
    config: DeadmanConfig,
    shared: Shared,
    clock: Arc<dyn Clock>,
    /// Kept to reap them.
    children: Vec<Child>,
}

impl Deadman {
    /// Adopts the deadman of an earlier agent, or starts one. A deadline that was armed stays armed.
    ///
    /// # Errors
    /// `Internal` when the memory cannot be shared, or no deadman comes up within five seconds.
    pub async fn open_or_spawn(config: DeadmanConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let shared = Shared::open(&config.shared)?;
        let mut deadman = Self { config, shared, clock, children: Vec::new() };
        deadman.ensure().await?;
        Ok(deadman)
    }

    /// Sees to it that a deadman lives. Returns whether one had to be started.
    ///
    /// # Errors
    /// As [`open_or_spawn`](Self::open_or_spawn).
    pub async fn ensure(&mut self) -> Result<bool> {
        self.reap();
        let layout = self.shared.layout();
        if self.is_alive() {
            layout.agent.store(std::process::id().into(), SeqCst);
            layout.end.store(0, SeqCst);
            if self.armed() != Armed::Ended {
                return Ok(false);
            }
        }
        self.take_over().await?;
        // One that ended in order took its file with it. Whoever is started now makes a new one.
        while !self.shared.is_linked() {
            self.shared = Shared::open(&self.config.shared)?;
            self.take_over().await?;
        }
        let layout = self.shared.layout();
        layout.agent.store(std::process::id().into(), SeqCst);
        let before = layout.heartbeat.load(SeqCst);
        self.shared.unlock();
        self.spawn()?;
        let comes_up = || self.shared.layout().heartbeat.load(SeqCst) != before && self.is_alive();
        if !self.wait_for(comes_up, START_BUDGET).await {
            return Err(Error::internal(format!(
                "the deadman does not start. program={}, log={}",
                self.config.program.display(),
                self.config.log.display()
            ))
            .hint("see the log; the program must hand `deadman …` to pgdock first thing in main"));
        }
        Ok(true)
    }

    /// Arms it, or moves the deadline: PostgreSQL is killed once `deadline` has passed.
    ///
    /// # Errors
    /// `Fenced` while it is killing because an earlier deadline has passed, `NotReady` when there is no
    /// deadman any more: call [`ensure`](Self::ensure).
    pub fn arm(&self, deadline: Moment) -> Result<()> {
        self.shared.layout().generation.fetch_add(1, SeqCst);
        self.set(nanos(deadline))
    }

    /// Clears the deadline. Only to be done while no primary can run here.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    pub fn disarm(&self) -> Result<()> {
        self.set(DISARMED)
    }

    fn set(&self, to: u64) -> Result<()> {
        let updated = self.shared.layout().deadline.fetch_update(SeqCst, SeqCst, |old| match old {
            FIRING | ENDED => None,
            _ => Some(to),
        });
        match updated {
            Ok(_) => Ok(()),
            Err(FIRING) => Err(Error::new(ErrorKind::Fenced, "the deadline has passed and the deadman is killing")),
            Err(_) => Err(Error::not_ready("the deadman has ended")),
        }
    }

    /// What it is up to.
    #[must_use]
    pub fn armed(&self) -> Armed {
        match self.shared.layout().deadline.load(SeqCst) {
            DISARMED => Armed::No,
            FIRING => Armed::Firing,
            ENDED => Armed::Ended,
            at => Armed::Until(moment(at)),
        }
    }

    /// The deadline, while one is armed and has not passed.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        match self.armed() {
            Armed::Until(at) => Some(at),
            _ => None,
        }
    }

    /// How often it was armed so far, by this agent and those before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.layout().generation.load(SeqCst)
    }

    /// What it did last, if it ever killed since the machine started.
    #[must_use]
    pub fn fired(&self) -> Option<Fired> {
        let layout = self.shared.layout();
        let at = layout.fired_at.load(SeqCst);
        (at != 0).then(|| Fired { generation: layout.fired_generation.load(SeqCst), at: moment(at) })
    }

    /// Whether a deadman watches over all that it should: it holds its lock, and has looked within the last second.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let looked_at = self.shared.layout().heartbeat.load(SeqCst);
        let fresh = looked_at != 0 && self.clock.now().since(moment(looked_at)) < STALE_AFTER;
        fresh && self.shared.understood() && self.is_locked() && self.has_the_address()
    }

    /// The deadman's process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        u32::try_from(self.shared.layout().pid.load(SeqCst)).ok().filter(|pid| *pid != 0)
    }

    /// Tells it to end, and to remove the file that it shares, once no process of PostgreSQL is left. It
    /// stays armed if it is.
    pub fn release(&self) {
        self.shared.layout().end.store(1, SeqCst);
    }

    /// One that was started with other settings may not know of the address, or of another one.
    fn has_the_address(&self) -> bool {
        self.shared.layout().address.load(SeqCst) == address_key(self.config.address)
    }

    fn is_locked(&self) -> bool {
        if self.shared.try_lock() {
            self.shared.unlock();
            return false;
        }
        true
    }

    /// Gets hold of the lock of a deadman that is not alive, and leaves the memory filled in.
    async fn take_over(&mut self) -> Result<()> {
        // One that is about to start or to end gets the time to do so.
        if !self.wait_for(|| self.shared.try_lock(), STALE_AFTER).await {
            // It hangs, or is of another version. Without it the deadline would not be enforced.
            self.kill_holder();
            if !self.wait_for(|| self.shared.try_lock(), START_BUDGET).await {
                return Err(Error::internal(format!(
                    "a deadman that does not answer holds the lock. shared={}",
                    self.shared.path().display()
                )));
            }
        }
        self.shared.initialise();
        Ok(())
    }

    fn kill_holder(&self) {
        let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())) else { return };
        // The number may belong to another process by now: one that has not mapped this memory.
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero())).unwrap_or_default();
        let path = self.shared.path().canonicalize().unwrap_or_else(|_| self.shared.path().to_owned());
        if maps.lines().any(|line| line.ends_with(&*path.to_string_lossy())) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn spawn(&mut self) -> Result<()> {
        let failed = |e| {
            Error::internal(format!("cannot start the deadman. program={}", self.config.program.display())).because(e)
        };
        if let Some(folder) = self.config.log.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.config.log).map_err(failed)?;
        let mut command = Command::new(&self.config.program);
        command.args(&self.config.args).arg("deadman");
        command.arg("--shared").arg(&self.config.shared).arg("--data").arg(&self.config.data_dir);
        if let Some(address) = self.config.address {
            command.arg("--address").arg(address.to_string());
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        self.children.push(child);
        Ok(())
    }

    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    async fn wait_for(&self, condition: impl Fn() -> bool, budget: Duration) -> bool {
        let holds = async {
            while !condition() {
                tokio::time::sleep(POLL_EVERY).await;
            }
        };
        tokio::time::timeout(budget, holds).await.is_ok()
    }
}

/// For the first line of a program's `main`: runs the deadman, or asks for PostgreSQL about WAL, if that is what the program
/// was started for.
///
/// `args` are the program's arguments with its name first, as [`std::env::args_os`] yields them. A program
/// that embeds an agent must do this, since the agent starts its own program anew as its deadman, and PostgreSQL runs it as
/// its `archive_command`.
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(code) = pgdock_core::agent::deadman::intercept(std::env::args_os()) {
///         return code;
///     }
///     // … the program itself
///     ExitCode::SUCCESS
/// }
/// ```
pub fn intercept(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1)? == "deadman" { Some(run(args.into_iter().skip(2))) } else { client::intercept(args) }
}

#[cfg(test)]
mod tests;
