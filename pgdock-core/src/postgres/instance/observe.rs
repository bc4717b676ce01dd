//! What PostgreSQL is doing: one round trip where it runs, its files where it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use tokio_postgres::Row;

use super::slots::{FAILOVER_SLOTS, STALE_SLOT};
use super::{Inspection, Instance};
use crate::node::{Incarnation, Member};
use crate::postgres::conf_file;
use crate::postgres::conninfo::Conninfo;
use crate::postgres::session::Fault;
use crate::postgres::{lsn::Lsn, timeline::TimelineId, wal_aside};
use crate::view::{Names, Postgres, Primary, Sender, Standby, Stopped};
use crate::{Error, History, NodeName, Result};

/// How long one observation may wait for an answer.
const OBSERVE_LIMIT: Duration = Duration::from_secs(2);
/// Without an upstream, so many polls in a row must find the startup process out of WAL.
const IDLE_POLLS: u32 = 2;

/// What was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// PostgreSQL's system identifier, once there is a data directory.
    pub system_identifier: Option<u64>,
    /// The data directory's identity.
    pub incarnation: Option<Incarnation>,
    /// What PostgreSQL is doing.
    pub postgres: Postgres,
    /// The physical slots that pgdock made, where it runs, but for those that have lost their WAL, and from where on they
    /// hold WAL back.
    pub slots: BTreeMap<String, Lsn>,
    /// It is a standby with logical slots that are left from when it was primary.
    pub stale_slots: bool,
    /// Where recovery would begin, where it runs.
    pub redo: Lsn,
}

impl Observation {
    /// One that does not run.
    fn at_rest(system_identifier: Option<u64>, incarnation: Option<Incarnation>, postgres: Postgres) -> Self {
        let (slots, stale_slots, redo) = Default::default();
        Self { system_identifier, incarnation, postgres, slots, stale_slots, redo }
    }
}

/// Serves both roles. On a primary the functions of recovery yield null; those of a primary would fail in recovery, and
/// are not reached there.
const QUERY: &str = "
SELECT pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn()::text END,
       CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
       pg_last_wal_receive_lsn()::text,
       pg_last_wal_replay_lsn()::text,
       current_setting('primary_conninfo'),
       current_setting('restore_command'),
       current_setting('synchronous_standby_names'),
       (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'),
       EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
       r.status,
       r.received_tli,
       r.last_msg_receipt_time::text,
       (SELECT json_agg(json_build_object(
            'name', application_name, 'state', state, 'flushed', flush_lsn, 'replayed', replay_lsn,
            'lag_ms', (extract(epoch FROM replay_lag) * 1000)::bigint, 'priority', sync_priority)
            ORDER BY backend_start)::text FROM pg_stat_replication),
       (SELECT string_agg(slot_name || '=' || coalesce(restart_lsn, '0/0')::text, ' ') FROM pg_replication_slots
         WHERE slot_type = 'physical' AND slot_name LIKE 'pgdock\\_%' AND wal_status IS DISTINCT FROM 'lost'),
       (SELECT system_identifier FROM pg_control_system()),
       current_setting('pgdock.clients', true),
       (SELECT redo_lsn::text FROM pg_control_checkpoint()),
       /* stale slots */ false
  FROM (SELECT) one LEFT JOIN pg_stat_wal_receiver r ON true";

/// The query for a version of PostgreSQL.
pub(super) fn query_for(version: u32) -> String {
    let stale = format!("pg_is_in_recovery() AND EXISTS (SELECT FROM pg_replication_slots WHERE {STALE_SLOT})");
    if version < FAILOVER_SLOTS { QUERY.to_owned() } else { QUERY.replace("/* stale slots */ false", &stale) }
}

/// A row of `pg_stat_replication`.
#[derive(Debug, Deserialize)]
struct SenderRow {
    name: String,
    state: Option<String>,
    flushed: Option<Lsn>,
    replayed: Option<Lsn>,
    lag_ms: Option<i64>,
    priority: Option<i32>,
}

impl Instance {
    /// Observes PostgreSQL. One round trip where it runs.
    ///
    /// [`Postgres::Stopped`] is only said when no process of the data directory exists.
    /// [`Postgres::Starting`] also covers a server that shuts down: it has processes, and takes no new connections.
    ///
    /// # Errors
    /// `Unavailable` when processes exist and nothing can be learned from them: what was known before may
    /// still hold.
    pub async fn observe(&self) -> Result<Observation> {
        // Where it runs, nothing here waits for a disk.
        let known = self.memory().incarnation;
        let incarnation = known.or_else(|| self.incarnation());
        self.memory().incarnation = incarnation;
        let fault = match self.inner.watching.query(&self.inner.observation, &[], OBSERVE_LIMIT).await {
            Ok(rows) => return self.running(&rows, incarnation).await,
            // The connection may be one to an earlier server: the next one tells.
            Err(Fault::Broken(_)) => match self.inner.watching.query(&self.inner.observation, &[], OBSERVE_LIMIT).await
            {
                Ok(rows) => return self.running(&rows, incarnation).await,
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        if self.inner.family.members()?.is_empty() {
            return self.not_running(self.incarnation()).await;
        }
        self.memory().ran = true;
        match fault {
            Fault::Nobody | Fault::NotAccepting => {
                let primary = !self.inner.layout.data.join("standby.signal").exists();
                let system_identifier = self.control_data().await.ok().map(|c| c.system_identifier);
                Ok(Observation::at_rest(system_identifier, incarnation, Postgres::Starting { primary }))
            }
            fault => Err(fault.into()),
        }
    }

    async fn not_running(&self, incarnation: Option<Incarnation>) -> Result<Observation> {
        let nothing = |postgres| Ok(Observation::at_rest(None, incarnation, postgres));
        let data = match self.inspect().await? {
            Inspection::Empty => return nothing(Postgres::Empty),
            Inspection::Unusable { reason } => return nothing(Postgres::Unusable { reason }),
            Inspection::Ours(data) => data,
        };
        let now = self.inner.clock.now();
        let mut memory = self.memory();
        if memory.ran {
            memory.ran = false;
            memory.ended_at = Some(now);
        }
        let watched = memory.flushed.filter(|(of, _)| Some(*of) == incarnation).map(|(_, lsn)| lsn);
        let control = data.control;
        let stopped = Stopped {
            clean: control.state.is_clean(),
            was_primary: control.state.was_primary(),
            timeline: control.newest_timeline(),
            checkpoint: control.checkpoint,
            flushed: watched.unwrap_or_default().max(control.checkpoint).max(control.min_recovery_end),
            ended_at: memory.ended_at,
        };
        Ok(Observation::at_rest(Some(control.system_identifier), incarnation, Postgres::Stopped(stopped)))
    }

    async fn running(&self, rows: &[Row], incarnation: Option<Incarnation>) -> Result<Observation> {
        let row = rows.first().ok_or_else(|| Error::internal("postgresql answered without a row"))?;
        let slots = slots(row)?;
        let postgres = if get::<bool>(row, 0)? {
            Postgres::Standby(self.standby(row).await?)
        } else {
            Postgres::Primary(self.primary(row, slots.keys().cloned().collect())?)
        };
        let flushed = match &postgres {
            Postgres::Standby(standby) => standby.flushed,
            Postgres::Primary(primary) => primary.flushed,
            _ => Lsn::default(),
        };
        let mut memory = self.memory();
        memory.ran = true;
        memory.ended_at = None;
        if let Some(incarnation) = incarnation {
            let before = memory.flushed.filter(|(of, _)| *of == incarnation).map_or(Lsn(0), |(_, lsn)| lsn);
            memory.flushed = Some((incarnation, before.max(flushed)));
        }
        let system_identifier = get::<i64>(row, 15)?.cast_unsigned();
        Ok(Observation {
            system_identifier: Some(system_identifier),
            incarnation,
            postgres,
            slots,
            redo: lsn(row, 17)?.unwrap_or_default(),
            stale_slots: get(row, 18)?,
        })
    }

    async fn standby(&self, row: &Row) -> Result<Standby> {
        let (received, replayed) = (lsn(row, 3)?, lsn(row, 4)?.unwrap_or_default());
        let flushed = received.unwrap_or_default().max(replayed);
        let conninfo = get::<String>(row, 5)?;
        let cleared = conninfo.is_empty() && get::<String>(row, 6)?.is_empty();
        let receiver = get::<bool>(row, 9)?;
        let status = get::<Option<String>>(row, 10)?;
        let out_of_wal = matches!(
            get::<Option<String>>(row, 8)?.as_deref(),
            Some("RecoveryRetrieveRetryInterval" | "RecoveryWalStream")
        );
        let heard = get::<Option<String>>(row, 12)?;
        let now = self.inner.clock.now();
        let (end_known, heard_at) = {
            let mut memory = self.memory();
            memory.idle_polls = if out_of_wal { (memory.idle_polls + 1).min(IDLE_POLLS) } else { 0 };
            if let Some(heard) = heard
                && memory.heard.as_ref().is_none_or(|(before, _)| *before != heard)
            {
                memory.heard = Some((heard, now));
            }
            (received.is_some() || memory.idle_polls >= IDLE_POLLS, memory.heard.as_ref().map(|(_, at)| *at))
        };
        let streams_on = get::<Option<i32>>(row, 11)?.map(i32::cast_unsigned).map(TimelineId);
        Ok(Standby {
            timeline: self.standby_timeline(streams_on.filter(|_| received >= Some(replayed)), flushed).await?,
            flushed,
            replayed,
            end_known,
            upstream: self.upstream_of(&conninfo),
            detached: cleared && !receiver,
            receiving: status.as_deref() == Some("streaming"),
            heard_at,
        })
    }

    /// The timeline that a standby's WAL ends on: that of the stream, of the segments on disk, or, where an
    /// archive brought the WAL, that of the control file.
    pub(super) async fn standby_timeline(&self, streams_on: Option<TimelineId>, flushed: Lsn) -> Result<TimelineId> {
        if let Some(timeline) = streams_on.filter(|t| t.0 != 0) {
            return Ok(timeline);
        }
        let segment_bytes = self.memory().control.as_ref().map(|(_, control)| control.wal_segment_bytes);
        match wal_aside::timeline_at(&self.inner.layout.data, flushed, segment_bytes)? {
            Some(timeline) => Ok(timeline),
            None => Ok(self.control_data().await?.newest_timeline()),
        }
    }

    /// The member that a `primary_conninfo` names.
    fn upstream_of(&self, conninfo: &str) -> Option<NodeName> {
        let conninfo = Conninfo::parse(conninfo)?;
        let host = conninfo.get("host")?;
        let port: u16 = conninfo.get("port")?.parse().ok()?;
        let members = &self.inner.config.members;
        members.iter().find(|(_, (h, p))| h == host && *p == port).map(|(node, _)| node.clone())
    }

    fn primary(&self, row: &Row, slots: BTreeSet<String>) -> Result<Primary> {
        let timeline = get::<String>(row, 2)?;
        let timeline = u32::from_str_radix(&timeline, 16)
            .map(TimelineId)
            .map_err(|e| Error::internal(format!("odd name of a WAL file. name={timeline}")).because(e))?;
        let shown = get::<String>(row, 7)?;
        let rows: Vec<SenderRow> = match get::<Option<String>>(row, 13)? {
            None => Vec::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| Error::internal("odd rows of pg_stat_replication").because(e))?,
        };
        let names = Names::from_setting(&shown);
        let names_settled =
            names.is_some() && names == self.memory().settled && rows.iter().all(|r| r.agrees(names.as_ref()));
        let senders: BTreeMap<Member, Sender> = rows.into_iter().filter_map(SenderRow::into_sender).collect();
        Ok(Primary {
            timeline,
            flushed: lsn(row, 1)?.unwrap_or_default(),
            history: self.history(timeline)?,
            // What pgdock did not write counts for nothing.
            names: names.unwrap_or_default(),
            names_settled,
            closed: get::<Option<String>>(row, 16)?.as_deref() == Some(conf_file::KEPT_OUT),
            senders,
            slots,
        })
    }

    /// The past of a timeline, which never changes once it has begun.
    fn history(&self, timeline: TimelineId) -> Result<History> {
        if let Some(history) = self.memory().history.clone().filter(|h| h.timeline == timeline) {
            return Ok(history);
        }
        let history = wal_aside::read_history(&self.inner.layout.data, timeline)?;
        self.memory().history = Some(history.clone());
        Ok(history)
    }
}

impl SenderRow {
    /// Whether the sender's process uses these names: it shows its own place in them.
    fn agrees(&self, names: Option<&Names>) -> bool {
        let listed =
            names.is_some_and(|n| n.count > 0 && self.name.parse::<Member>().is_ok_and(|m| n.members.contains(&m)));
        // "ANY k (…)" gives everybody in it the first place. Who has not asked for WAL yet has no place, and acknowledges
        // nothing before it has read the names.
        let place = self.priority.unwrap_or_default();
        place == i32::from(listed) || place == 0 && self.state.as_deref() == Some("startup")
    }

    fn into_sender(self) -> Option<(Member, Sender)> {
        let sender = Sender {
            streaming: self.state.as_deref() == Some("streaming"),
            flushed: self.flushed.unwrap_or_default(),
            replayed: self.replayed.unwrap_or_default(),
            // A clock that was set back makes it negative.
            replay_lag_ms: self.lag_ms.map(|ms| ms.max(0).cast_unsigned()),
        };
        Some((self.name.parse().ok()?, sender))
    }
}

/// The slots, each with the position from which on it holds WAL back.
fn slots(row: &Row) -> Result<BTreeMap<String, Lsn>> {
    let text = get::<Option<String>>(row, 14)?.unwrap_or_default();
    let slot = |text: &str| {
        let (name, at) = text.split_once('=')?;
        Some((name.to_owned(), at.parse().ok()?))
    };
    text.split_terminator(' ')
        .map(|text| slot(text).ok_or_else(|| Error::internal(format!("postgresql answered an odd slot. slot={text}"))))
        .collect()
}

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column)
        .map_err(|e| Error::internal(format!("postgresql answered something odd. column={column}")).because(e))
}

pub(super) fn lsn(row: &Row, column: usize) -> Result<Option<Lsn>> {
    let text = get::<Option<String>>(row, column)?;
    text.map(|t| t.parse().map_err(|e| Error::internal("postgresql answered an odd position").because(e))).transpose()
}
