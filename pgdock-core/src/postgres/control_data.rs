//! [`ControlData`]: what `pg_controldata` tells of a data directory.

use std::collections::{BTreeMap, HashMap};

use super::limits::LIMITS;
use super::lsn::Lsn;
use super::timeline::TimelineId;
use crate::{Error, Result};

/// The part of a data directory's control file that pgdock needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// The number that all copies of one cluster share.
    pub system_identifier: u64,
    /// What the server was doing last.
    pub state: ClusterState,
    /// Where the last checkpoint record begins.
    pub checkpoint: Lsn,
    /// Where crash recovery would begin.
    pub redo: Lsn,
    /// The timeline of the last checkpoint.
    pub timeline: TimelineId,
    /// Up to where recovery must go before the data is consistent; zero outside recovery.
    pub min_recovery_end: Lsn,
    /// The timeline of that position; zero outside recovery.
    pub min_recovery_timeline: TimelineId,
    /// `wal_log_hints` as it was when the server ran last.
    pub wal_log_hints: bool,
    /// Data pages have checksums.
    pub checksums: bool,
    /// The size of a WAL segment, in bytes.
    pub wal_segment_bytes: u64,
    /// What the primary has of the settings of which a standby must have no less; without those that were not printed.
    pub limits: BTreeMap<&'static str, i64>,
}

/// What a server was doing last, as `pg_controldata` words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterState {
    /// `starting up`: made by `initdb`, and never run.
    StartingUp,
    /// `shut down`: a primary, in order.
    ShutDown,
    /// `shut down in recovery`: a standby, in order.
    ShutDownInRecovery,
    /// `shutting down`: a primary that did not finish.
    ShuttingDown,
    /// `in crash recovery`: a primary that had crashed before.
    InCrashRecovery,
    /// `in archive recovery`: a standby that runs or crashed.
    InArchiveRecovery,
    /// `in production`: a primary that runs or crashed.
    InProduction,
}

impl ClusterState {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "starting up" => Self::StartingUp,
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            "shutting down" => Self::ShuttingDown,
            "in crash recovery" => Self::InCrashRecovery,
            "in archive recovery" => Self::InArchiveRecovery,
            "in production" => Self::InProduction,
            _ => return None,
        })
    }

    /// It was shut down in order.
    #[must_use]
    pub fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }

    /// It was out of recovery, or on the way there without having left its timeline.
    #[must_use]
    pub fn was_primary(self) -> bool {
        !matches!(self, Self::ShutDownInRecovery | Self::InArchiveRecovery)
    }
}

impl ControlData {
    /// Reads what `pg_controldata` prints under `LC_ALL=C`.
    ///
    /// # Errors
    /// `Invalid` when a line is missing or not understood.
    pub fn parse(text: &str) -> Result<Self> {
        let lines: HashMap<&str, &str> =
            text.lines().filter_map(|l| l.split_once(':')).map(|(key, value)| (key.trim(), value.trim())).collect();
        let get = |key: &str| {
            lines
                .get(key)
                .copied()
                .ok_or_else(|| Error::invalid(format!("pg_controldata does not print a line. line={key}")))
        };
        let odd = |key: &str, value: &str| {
            Error::invalid(format!("pg_controldata prints something unknown. line={key}, value={value}"))
        };
        let number = |key: &str| get(key).and_then(|v| v.parse::<u64>().map_err(|_| odd(key, v)));
        let lsn = |key: &str| get(key).and_then(|v| v.parse::<Lsn>().map_err(|_| odd(key, v)));
        let timeline = |key: &str| get(key).and_then(|v| v.parse::<u32>().map(TimelineId).map_err(|_| odd(key, v)));
        let state = get("Database cluster state")?;
        Ok(Self {
            system_identifier: number("Database system identifier")?,
            state: ClusterState::parse(state).ok_or_else(|| odd("Database cluster state", state))?,
            checkpoint: lsn("Latest checkpoint location")?,
            redo: lsn("Latest checkpoint's REDO location")?,
            timeline: timeline("Latest checkpoint's TimeLineID")?,
            min_recovery_end: lsn("Minimum recovery ending location")?,
            min_recovery_timeline: timeline("Min recovery ending loc's timeline")?,
            wal_log_hints: get("wal_log_hints setting")? == "on",
            checksums: number("Data page checksum version")? != 0,
            wal_segment_bytes: number("Bytes per WAL segment")?,
            limits: LIMITS.iter().filter_map(|(name, line, _)| Some((*name, lines.get(line)?.parse().ok()?))).collect(),
        })
    }

    /// The newest timeline that the control file speaks of: right after a promotion the last checkpoint
    /// still lies on the old one.
    #[must_use]
    pub fn newest_timeline(&self) -> TimelineId {
        TimelineId(self.timeline.0.max(self.min_recovery_timeline.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7575757575757575757
Database cluster state:               in archive recovery
pg_control last modified:             Mon Nov 23 22:00:00 2026
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's REDO WAL file:    000000010000000000000003
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/5000148
Min recovery ending loc's timeline:   2
wal_level setting:                    replica
wal_log_hints setting:                on
max_connections setting:              150
max_locks_per_xact setting:           64
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    #[test]
    fn the_lines_are_read() {
        let control = ControlData::parse(TEXT).unwrap();
        assert_eq!(control.system_identifier, 7_575_757_575_757_575_757);
        assert_eq!(control.state, ClusterState::InArchiveRecovery);
        assert!(!control.state.is_clean() && !control.state.was_primary());
        assert_eq!(control.checkpoint, Lsn(0x0300_0060));
        assert_eq!(control.newest_timeline(), TimelineId(2));
        assert!(control.wal_log_hints && control.checksums);
        assert_eq!(control.limits, [("max_connections", 150), ("max_locks_per_transaction", 64)].into());
    }

    #[test]
    fn what_is_missing_or_odd_is_named() {
        let error = ControlData::parse(&TEXT.replace("in archive recovery", "en récupération")).unwrap_err();
        assert!(error.to_string().contains("Database cluster state"), "{error}");
        let error = ControlData::parse("").unwrap_err();
        assert!(error.to_string().contains("line="), "{error}");
    }
}
