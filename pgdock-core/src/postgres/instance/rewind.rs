//! Taking a diverged data directory back to where its history forked off.

use std::time::Duration;

use super::{Inspection, Instance, durable};
use crate::node::Incarnation;
use crate::postgres::conf_file::REWIND_ROLE;
use crate::postgres::diverged::{self, Diverged};
use crate::postgres::wal_changes;
use crate::view::Postgres;
use crate::{Error, Lsn, Result, Role};

/// How long an unclean server may take to recover before it is stopped in order.
const RECOVER_LIMIT: Duration = Duration::from_secs(300);
/// How long stopping in order may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How long looking through diverged WAL may take. It only serves the report.
const WALDUMP_LIMIT: Duration = Duration::from_secs(60);
/// How often a recovering server is looked at.
const POLL: Duration = Duration::from_millis(50);

impl Instance {
    /// Stops PostgreSQL in order, and keeps the WAL behind `fork` below `diverged/`, with a report of what it holds. The
    /// data directory stays as good as it was: where this is interrupted, it is begun anew.
    ///
    /// # Errors
    /// `NotReady` when there is no usable data directory; `Unavailable` when PostgreSQL does not stop; `Internal` when the WAL
    /// cannot be kept.
    pub async fn set_aside(&self, fork: Lsn) -> Result<()> {
        self.stop_in_order().await?;
        self.keep_diverged(fork).await
    }

    /// Takes the data directory back to `fork`, where its history left that of the primary at `host`, with `pg_rewind`.
    /// First [sets aside](Self::set_aside) what is behind it. PostgreSQL stays stopped. The data directory is a standby's
    /// afterwards, with a fresh identity.
    ///
    /// # Errors
    /// `NotReady` when the primary has not written a checkpoint on its new timeline yet: nothing was changed. `Unavailable`
    /// when it fails or takes longer than `limit`: where the rewind itself had begun, the data directory is worth nothing,
    /// does not start any more, and must be copied anew.
    pub async fn rewind_from(&self, host: &str, port: u16, fork: Lsn, limit: Duration) -> Result<Incarnation> {
        let layout = &self.inner.layout;
        self.set_aside(fork).await?;
        let source = self
            .conninfo(host, port, REWIND_ROLE)
            .set("dbname", "postgres")
            .set("application_name", format!("{}-rewind", self.inner.config.node))
            .set("connect_timeout", 5)
            .set("tcp_user_timeout", 30_000);
        // From here on a crash leaves something that must never start.
        self.write(&layout.rewinding, "").await?;
        let mut nothing_to_do = false;
        self.program("pg_rewind", limit)
            .arg("-D")
            .arg(&layout.data)
            .arg("--source-server")
            .arg(source.to_string())
            // Libpq would take a password from the environment, too; this one does.
            .env("PGPASSFILE", layout.passfile())
            .arg("--no-ensure-shutdown")
            .run_watched(|line| nothing_to_do |= line.contains("no rewind required"))
            .await?;
        if nothing_to_do {
            durable::remove(&layout.rewinding).await?;
            return Err(Error::not_ready(format!("the primary has no checkpoint on its timeline yet. host={host}")));
        }
        // The source's identity and settings came along.
        let incarnation = self.renew_incarnation(&layout.data).await?;
        self.strip_auto_conf().await?;
        self.write(&layout.data.join("standby.signal"), "").await?;
        durable::remove(&layout.rewinding).await?;
        self.forget();
        Ok(incarnation)
    }

    /// Stops PostgreSQL in order; one that ended otherwise is started in recovery first, attached to nobody.
    async fn stop_in_order(&self) -> Result<()> {
        if !self.inner.family.members()?.is_empty() {
            self.stop(STOP_LIMIT, false).await?;
        }
        let data = match self.inspect().await? {
            Inspection::Ours(data) => data,
            Inspection::Empty => return Err(Error::not_ready("there is no data directory")),
            Inspection::Unusable { reason } => {
                return Err(Error::not_ready(format!("the data directory cannot be rewound: {reason}")));
            }
        };
        if data.control.state.is_clean() {
            return Ok(());
        }
        self.start(Role::Standby, None).await?;
        let consistent = async {
            loop {
                match self.observe().await?.postgres {
                    // Behind the end of all that it has, there is nothing more to keep.
                    Postgres::Standby(standby) if standby.end_known => return Ok(()),
                    Postgres::Stopped(_) => {
                        return Err(Error::unavailable(format!(
                            "postgresql ended while it recovered. log={}",
                            self.inner.layout.log.display()
                        )));
                    }
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        };
        match tokio::time::timeout(RECOVER_LIMIT, consistent).await {
            Ok(result) => result?,
            Err(_) => return Err(Error::unavailable(format!("recovery does not end. limit={RECOVER_LIMIT:?}"))),
        }
        self.stop(STOP_LIMIT, false).await
    }

    /// Copies the WAL behind the fork aside, with a report.
    async fn keep_diverged(&self, fork: Lsn) -> Result<()> {
        let layout = &self.inner.layout;
        let control = self.control_data().await?;
        let incarnation = self.incarnation();
        let watched = self.memory().flushed.filter(|(of, _)| Some(*of) == incarnation).map(|(_, lsn)| lsn);
        let diverged = Diverged {
            node: self.inner.config.node.clone(),
            incarnation,
            system_identifier: control.system_identifier,
            timeline: control.newest_timeline(),
            fork,
            end: watched.unwrap_or_default().max(control.checkpoint).max(control.min_recovery_end),
            found_at: self.inner.clock.wall(),
            files: Vec::new(),
            changes: None,
            incomplete: None,
        };
        let (data, into, owner) = (layout.data.clone(), layout.diverged.clone(), self.inner.config.os_user.clone());
        let segment_bytes = control.wal_segment_bytes;
        let kept = durable::blocking(move || diverged::keep(&data, &into, diverged, segment_bytes, &owner)).await?;
        let Some((folder, mut report, begin)) = kept else { return Ok(()) };
        if report.changes.is_some() && report.incomplete.is_none() {
            return Ok(());
        }
        let mut changes = wal_changes::Reader::new(report.fork);
        // From before the fork on, for transactions that were under way there.
        let dump = self
            .program("pg_waldump", WALDUMP_LIMIT)
            .arg("--path")
            .arg(&folder)
            .args(["--timeline", &report.timeline.to_string()])
            .args(["--start", &begin.to_string()])
            .args(["--end", &report.end.to_string()])
            .run_lines(|line| changes.line(line))
            .await;
        // The report is worth having without this, too.
        report.incomplete = dump.err().map(|error| error.chain());
        report.changes = Some(changes.finish());
        let text = serde_json::to_string_pretty(&report)
            .map_err(|e| Error::internal("cannot write the report of diverged WAL").because(e))?;
        self.write(&folder.join(diverged::REPORT), text).await
    }
}
