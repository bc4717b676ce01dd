//! The session that a backup is begun and ended on: it must be one and the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::Row;

use crate::postgres::session::Session;
use crate::{Error, Lsn, Result, TimelineId};

/// How long a checkpoint at the beginning may take.
const START_LIMIT: Duration = Duration::from_secs(3600);
/// How long other questions may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Settings of which a server that recovers needs as much as the one had that wrote the WAL.
const NEEDED: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];
/// A library that WAL of its own resource manager cannot be replayed without.
const LIBRARIES: &str = "shared_preload_libraries";

/// What a server tells of itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) standby: bool,
    pub(super) server_version: u32,
    pub(super) system_identifier: u64,
    pub(super) wal_segment_bytes: u64,
    pub(super) block_bytes: u32,
    pub(super) segment_blocks: u32,
    pub(super) checksums: bool,
    pub(super) settings: BTreeMap<String, String>,
}

/// What the end of a backup told.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) stop: Lsn,
    pub(super) timeline: TimelineId,
    pub(super) next_xid: u64,
    pub(super) backup_label: String,
}

/// A backup that the server knows of, from its beginning on. When it is dropped, the server forgets it.
#[derive(Debug)]
pub(super) struct BackupSession {
    session: Session,
    old_names: bool,
}

impl BackupSession {
    /// Asks the local server what it is.
    pub(super) async fn open(socket_dir: &Path, port: u16) -> Result<(Self, Facts)> {
        let session = Session::new(socket_dir, port);
        let rows = session
            .query(
                "SELECT pg_is_in_recovery()::text, current_setting('server_version_num'),
                        (SELECT system_identifier::text FROM pg_control_system()),
                        (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'),
                        current_setting('block_size'),
                        (SELECT setting FROM pg_settings WHERE name = 'segment_size'),
                        current_setting('data_checksums')",
                &[],
                LIMIT,
            )
            .await?;
        let row = only(rows)?;
        let mut settings = BTreeMap::new();
        for row in session.query("SELECT name, setting FROM pg_settings", &[], LIMIT).await? {
            let (name, value) = (text(&row, 0)?, text(&row, 1)?);
            if NEEDED.contains(&name.as_str()) || name == LIBRARIES && !value.is_empty() {
                settings.insert(name, value);
            }
        }
        let facts = Facts {
            standby: text(&row, 0)? == "true",
            server_version: number(&row, 1)?,
            // PostgreSQL shows the number as one with a sign.
            system_identifier: number::<i64>(&row, 2)?.cast_unsigned(),
            wal_segment_bytes: number(&row, 3)?,
            block_bytes: number(&row, 4)?,
            segment_blocks: number(&row, 5)?,
            checksums: text(&row, 6)? == "on",
            settings,
        };
        let old_names = facts.server_version < 150_000;
        Ok((Self { session, old_names }, facts))
    }

    /// Begins: from the position that it answers on, recovery repairs whatever is copied while it changes.
    pub(super) async fn start(&self, label: &str) -> Result<Lsn> {
        let sql = if self.old_names {
            "SELECT pg_start_backup($1, true, false)::text"
        } else {
            "SELECT pg_backup_start($1, true)::text"
        };
        let label: &(dyn tokio_postgres::types::ToSql + Sync) = &label;
        let rows = self.session.query(sql, &[(label, tokio_postgres::types::Type::TEXT)], START_LIMIT).await?;
        number(&only(rows)?, 0)
    }

    /// Ends. Nothing is waited for.
    pub(super) async fn stop(&self) -> Result<End> {
        let sql = if self.old_names {
            "SELECT lsn::text, labelfile FROM pg_stop_backup(false, false)"
        } else {
            "SELECT lsn::text, labelfile FROM pg_backup_stop(false)"
        };
        let row = only(self.session.query(sql, &[], START_LIMIT).await?)?;
        let (stop, backup_label): (Lsn, _) = (number(&row, 0)?, text(&row, 1)?);
        let timeline = label_timeline(&backup_label)?;
        let rows = self
            .session
            .query(
                "SELECT CASE WHEN pg_is_in_recovery()
                            THEN (SELECT min_recovery_end_timeline FROM pg_control_recovery())
                            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 END::text,
                            pg_snapshot_xmax(pg_current_snapshot())::text",
                &[],
                LIMIT,
            )
            .await?;
        let row = only(rows)?;
        let now = TimelineId(number(&row, 0)?);
        if now != timeline {
            let message = format!("the timeline changed while the backup was made. began={timeline}, ended={now}");
            return Err(Error::unavailable(message).hint("take it again"));
        }
        Ok(End { stop, timeline, next_xid: number(&row, 1)?, backup_label })
    }
}

/// The timeline that a `backup_label` says that the backup began on.
fn label_timeline(label: &str) -> Result<TimelineId> {
    let line = label.lines().find_map(|line| line.strip_prefix("START TIMELINE: "));
    let number = line.and_then(|text| text.trim().parse().ok());
    number.map(TimelineId).ok_or_else(|| Error::internal("postgresql's backup_label tells no timeline"))
}

fn only(rows: Vec<Row>) -> Result<Row> {
    rows.into_iter().next().ok_or_else(|| Error::internal("postgresql answered a question of the backup with nothing"))
}

fn text(row: &Row, column: usize) -> Result<String> {
    row.try_get(column).map_err(|e| Error::internal("postgresql answered a question of the backup oddly").because(e))
}

fn number<T: std::str::FromStr>(row: &Row, column: usize) -> Result<T> {
    let text = text(row, column)?;
    text.parse()
        .map_err(|_| Error::internal(format!("postgresql answered a question of the backup oddly. answer={text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_is_in_the_label() {
        let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nBACKUP METHOD: streamed\nSTART TIMELINE: 12\n";
        assert_eq!(label_timeline(label).unwrap(), TimelineId(12));
        assert!(label_timeline("START WAL LOCATION: 0/2000028\n").is_err());
    }
}
