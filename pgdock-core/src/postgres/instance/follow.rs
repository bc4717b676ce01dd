//! Leaving an upstream, durably and provably, and attaching to one.

use std::time::Duration;

use super::{Instance, observe};
use crate::postgres::conf_file::{self, Clients, REPLICATION_ROLE};
use crate::postgres::conninfo::Conninfo;
use crate::postgres::timeline::TimelineId;
use crate::{Error, Lsn, NodeName, Result};

/// How long leaving or attaching may take.
const FOLLOW_LIMIT: Duration = Duration::from_secs(10);
/// How long one question in between may take.
const QUERY_LIMIT: Duration = Duration::from_secs(3);
/// How often the state is looked at in between.
const POLL: Duration = Duration::from_millis(2);

/// A standby that has left its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// The timeline that its WAL ends on.
    pub timeline: TimelineId,
    /// Up to where its WAL is on disk. Nothing is added before it is attached or promoted.
    pub flushed: Lsn,
}

impl Instance {
    /// Leaves the upstream: `primary_conninfo`, `primary_slot_name` and `restore_command` are cleared durably, every
    /// process has seen it, and no WAL receiver is left or can come.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL does not answer, or does not get there in 10 s: it may, or may not, still be
    /// attached, but stays away from the upstream at the next start.
    pub async fn detach(&self) -> Result<Detached> {
        self.write_upstream(None).await?;
        match tokio::time::timeout(FOLLOW_LIMIT, self.await_detached()).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("the WAL receiver does not go away. limit={FOLLOW_LIMIT:?}"))
                .outcome_unknown()),
        }
    }

    async fn await_detached(&self) -> Result<Detached> {
        self.signal_reload().await?;
        let control = &self.inner.control;
        loop {
            let rows = control
                .query(
                    "SELECT current_setting('primary_conninfo') = '' AND current_setting('restore_command') = ''",
                    &[],
                    QUERY_LIMIT,
                )
                .await?;
            if rows.first().map(|r| observe::get::<bool>(r, 0)).transpose()? == Some(true) {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        // What copies logical slots asks the upstream as well. Where that is dead it may wait for an answer, and a promotion
        // for it. It does not come back without an upstream.
        if self.keeps_failover_slots() {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'slotsync worker'";
            control.query(end, &[], QUERY_LIMIT).await?;
        }
        // The postmaster takes new connections only after it has told all its children, so from here on
        // the startup process has been told.
        control.close().await;
        control.open().await?;
        // It acts on that when it next looks. A pause that it confirms shows that it has looked; between two of them it
        // has gone once around its loop, where it ends a receiver that it had asked for before.
        self.pause_startup().await?;
        self.resume_startup().await?;
        loop {
            self.pause_startup().await?;
            let rows = control
                .query(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
                            pg_last_wal_receive_lsn()::text, pg_last_wal_replay_lsn()::text",
                    &[],
                    QUERY_LIMIT,
                )
                .await;
            self.resume_startup().await?;
            let rows = rows?;
            let row = rows.first().ok_or_else(|| Error::internal("postgresql answered without a row"))?;
            if !observe::get::<bool>(row, 0)? {
                let flushed = observe::lsn(row, 1)?.max(observe::lsn(row, 2)?).unwrap_or_default();
                return Ok(Detached { timeline: self.standby_timeline(None, flushed).await?, flushed });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Has the startup process wait, and sees that it does.
    async fn pause_startup(&self) -> Result<()> {
        let control = &self.inner.control;
        control.query("SELECT pg_wal_replay_pause()", &[], QUERY_LIMIT).await?;
        loop {
            let rows = control.query("SELECT pg_get_wal_replay_pause_state()", &[], QUERY_LIMIT).await?;
            if rows.first().map(|r| observe::get::<String>(r, 0)).transpose()?.as_deref() == Some("paused") {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn resume_startup(&self) -> Result<()> {
        self.inner.control.query("SELECT pg_wal_replay_resume()", &[], QUERY_LIMIT).await?;
        Ok(())
    }

    /// Streams from a member, through its slot for this node. Returns when PostgreSQL knows; whether it streams,
    /// [`observe`](Self::observe) tells.
    ///
    /// # Errors
    /// `Invalid` when there is no such member, `Unavailable` when PostgreSQL does not answer.
    pub async fn attach(&self, upstream: &NodeName) -> Result<()> {
        let conninfo = self.upstream_conninfo(upstream)?;
        self.write_upstream(Some(&conninfo)).await?;
        self.memory().heard = None;
        if self.clients_in_file() == Clients::KeptOut {
            // A promotion that was begun, and did not come about.
            self.admit_clients().await?;
        }
        let work = async {
            // Where a detach was cut short in between, the startup process still waits.
            self.resume_startup().await?;
            self.signal_reload().await?;
            loop {
                let rows =
                    self.inner.control.query("SELECT current_setting('primary_conninfo')", &[], QUERY_LIMIT).await?;
                if rows.first().map(|r| observe::get::<String>(r, 0)).transpose()?.as_deref() == Some(&conninfo) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(FOLLOW_LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("the new upstream is not taken over. limit={FOLLOW_LIMIT:?}"))
                .hint("look for primary_conninfo in postgresql.auto.conf and on the command line")),
        }
    }

    /// How this node's WAL receiver connects to a member.
    pub(super) fn upstream_conninfo(&self, upstream: &NodeName) -> Result<String> {
        let (host, port) = self.member_address(upstream)?;
        let member = self.member().ok_or_else(|| Error::not_ready("there is no data directory"))?;
        Ok(self
            .conninfo(host, *port, REPLICATION_ROLE)
            .set("application_name", member)
            .set("connect_timeout", 2)
            .set("keepalives", 1)
            .set("keepalives_idle", 2)
            .set("keepalives_interval", 1)
            .set("keepalives_count", 3)
            .set("tcp_user_timeout", 3000)
            // The worker that copies logical slots (PostgreSQL 17) asks there what slots there are.
            .set("dbname", "postgres")
            .to_string())
    }

    pub(super) fn member_address(&self, node: &NodeName) -> Result<&(String, u16)> {
        self.inner
            .config
            .members
            .get(node)
            .ok_or_else(|| Error::invalid(format!("there is no such member. node={node}")))
    }

    /// How to reach another PostgreSQL as one of pgdock's roles: encrypted, the server proven by its certificate,
    /// the password from a file.
    pub(super) fn conninfo(&self, host: &str, port: u16, role: &str) -> Conninfo {
        let layout = &self.inner.layout;
        Conninfo::new()
            .set("host", host)
            .set("port", port)
            .set("user", role)
            .set_path("passfile", &layout.passfile())
            .set("sslmode", "verify-ca")
            .set_path("sslrootcert", &layout.ca())
    }

    /// Writes down whom to stream from.
    pub(super) async fn write_upstream(&self, conninfo: Option<&str>) -> Result<()> {
        let mut text = String::from("# Written by pgdock: the upstream of a standby.\n");
        let slot = conninfo.map(|_| self.inner.config.node.slot());
        conf_file::line(&mut text, "primary_conninfo", conninfo.unwrap_or_default());
        conf_file::line(&mut text, "primary_slot_name", slot.as_deref().unwrap_or_default());
        conf_file::line(&mut text, "restore_command", "");
        conf_file::line(&mut text, "recovery_target_timeline", "latest");
        self.write(&self.inner.layout.conf_file("upstream.conf"), text).await
    }
}
