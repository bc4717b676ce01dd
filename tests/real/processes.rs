//! The processes of a node, found by what they are, and signals to them.

use std::path::Path;
use std::time::{Duration, Instant};

use pgdock_core::{Error, NodeName, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::RealCluster;

impl RealCluster {
    /// The processes of a node's PostgreSQL, backends included.
    #[must_use]
    pub fn postgres_pids(&self, node: &NodeName) -> Vec<Pid> {
        let data = self.data_dir(node);
        processes(|proc| {
            let program = std::fs::read_link(proc.join("exe")).ok();
            program.is_some_and(|exe| exe.ends_with("postgres"))
                && std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == data)
        })
    }

    /// The process of a node's deadman.
    #[must_use]
    pub fn deadman_pid(&self, node: &NodeName) -> Option<Pid> {
        let data = self.data_dir(node);
        processes(|proc| {
            let line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.any(|word| word == b"deadman") && words.any(|word| word == data.as_os_str().as_encoded_bytes())
        })
        .first()
        .copied()
    }

    /// Stops a whole node in the midst of what it does, as a hypervisor does: agent, deadman, PostgreSQL.
    pub fn freeze(&self, node: &NodeName) {
        self.signal_agent(node, Signal::STOP);
        stop_all(self.deadman_pid(node));
        // Until there is none left that was born meanwhile.
        for _ in 0..3 {
            stop_all(self.postgres_pids(node));
        }
    }

    /// Lets PostgreSQL go on, and nobody else of a frozen node: the worst of zombies.
    pub fn thaw_postgres(&self, node: &NodeName) {
        signal_all(self.postgres_pids(node), Signal::CONT);
    }

    /// Lets the deadman of a frozen node go on.
    pub fn thaw_deadman(&self, node: &NodeName) {
        signal_all(self.deadman_pid(node), Signal::CONT);
    }

    /// Waits until no process of a node's PostgreSQL is left.
    ///
    /// # Errors
    /// `Unavailable` when some are still there in the end.
    pub async fn postgres_gone(&self, node: &NodeName, limit: Duration) -> Result<()> {
        until("no process of PostgreSQL is left", limit, async || self.postgres_pids(node).is_empty()).await
    }
}

/// Waits until a condition holds.
///
/// # Errors
/// `Unavailable` when it does not in time.
pub async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition().await {
        if Instant::now() >= deadline {
            return Err(Error::unavailable(format!("waited {limit:?} for: {what}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(super) fn signal_all(pids: impl IntoIterator<Item = Pid>, signal: Signal) {
    for pid in pids {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

pub(super) fn stop_all(pids: impl IntoIterator<Item = Pid>) {
    pids.into_iter().for_each(crate::signals::stop);
}

fn processes(matches: impl Fn(&Path) -> bool) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbered = entries.flatten().filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        Some((pid, entry.path()))
    });
    numbered.filter(|(_, path)| matches(path)).map(|(pid, _)| pid).collect()
}
