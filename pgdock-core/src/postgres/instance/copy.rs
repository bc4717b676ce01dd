//! Copying the data directory of another node.

use std::time::Duration;

use super::{Instance, durable};
use crate::node::Incarnation;
use crate::postgres::conf_file::REPLICATION_ROLE;
use crate::{Error, Result};

/// How far a copy got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received.
    pub done: u64,
    /// Bytes expected, an estimate.
    pub total: u64,
}

impl Instance {
    /// Copies the data directory of a running node into `data.new`, moves the old one aside to `data.old-N`, and puts the
    /// copy in its place with a fresh identity. PostgreSQL must be stopped here, and stays so.
    ///
    /// A copy that was interrupted begins anew. `progress` hears how far it is, about once a second.
    ///
    /// # Errors
    /// `Conflict` when PostgreSQL runs here, `NeedsOperator` when the source belongs to another cluster than `expected`
    /// names, `Unavailable` when the copy fails or takes longer than `limit`. The old data directory is
    /// in its place then.
    pub async fn copy_from(
        &self,
        host: &str,
        port: u16,
        expected: Option<u64>,
        limit: Duration,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Incarnation> {
        let layout = &self.inner.layout;
        self.must_not_run("copy over it")?;
        self.clear(&layout.data_new).await?;
        let source = self
            .conninfo(host, port, REPLICATION_ROLE)
            .set("application_name", format!("{}-copy", self.inner.config.node))
            .set("connect_timeout", 5)
            .set("keepalives_idle", 10)
            .set("tcp_user_timeout", 30_000);
        self.program("pg_basebackup", limit)
            .arg("-D")
            .arg(&layout.data_new)
            .args(["-X", "stream", "--checkpoint=fast", "--progress", "--no-password"])
            .arg("-d")
            .arg(source.to_string())
            .run_watched(|line| {
                if let Some(seen) = parse_progress(line) {
                    progress(seen);
                }
            })
            .await?;
        let control = self.read_control_data(&layout.data_new).await?;
        if let Some(expected) = expected.filter(|e| *e != control.system_identifier) {
            self.clear(&layout.data_new).await?;
            return Err(Error::needs_operator(format!(
                "the source belongs to another cluster. host={host}, expected={expected}, found={}",
                control.system_identifier
            ))
            .hint("check the node's address: another server answers there"));
        }
        // The copy brought the source's identity along.
        let incarnation = self.renew_incarnation(&layout.data_new).await?;
        // Nobody may have started it meanwhile.
        self.must_not_run("move it aside")?;
        if layout.data.symlink_metadata().is_ok() {
            durable::rename(&layout.data, &layout.data_old()).await?;
        }
        durable::rename(&layout.data_new, &layout.data).await?;
        durable::remove(&layout.rewinding).await?;
        self.forget();
        Ok(incarnation)
    }

    pub(super) fn must_not_run(&self, what: &str) -> Result<()> {
        let running = self.inner.family.members()?;
        if running.is_empty() {
            return Ok(());
        }
        let pids: Vec<_> = running.iter().map(|p| p.pid().to_string()).collect();
        Err(Error::conflict(format!("postgresql runs here: cannot {what}. pids={}", pids.join(","))))
    }

    /// Forgets what was learned of a data directory that has been replaced.
    pub(super) fn forget(&self) {
        let mut memory = self.memory();
        memory.incarnation = None;
        memory.control = None;
        memory.history = None;
        memory.flushed = None;
        memory.heard = None;
    }
}

/// Reads a line such as `  12345/67890 kB (18%), 0/1 tablespace`.
fn parse_progress(line: &str) -> Option<Progress> {
    let (done, rest) = line.trim().split_once('/')?;
    let (total, _) = rest.split_once(" kB")?;
    let bytes = |text: &str| text.trim().parse::<u64>().ok()?.checked_mul(1024);
    Some(Progress { done: bytes(done)?, total: bytes(total)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        let seen = parse_progress(" 1024/4096 kB (25%), 0/1 tablespace (/x/base/1/2)").unwrap();
        assert_eq!(seen, Progress { done: 1 << 20, total: 4 << 20 });
        assert_eq!(parse_progress("pg_basebackup: error: x/y"), None);
    }
}
