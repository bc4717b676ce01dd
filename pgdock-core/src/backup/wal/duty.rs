//! [`duty`]: what a node does with a file of WAL, judged by the history of the cluster. A pure function.
//!
//! ```text
//!   timeline 1  ──▪──▪──▪──▪────╮ fork ▪──▪  diverged: nobody stores it
//!   timeline 2                  ╰──▪──▪──▪   the leader puts it, standbys wait until it is there
//!   timeline 3                               not known yet: asked again later
//! ```
//!
//! A standby gives up no WAL before it is in the sink. So whatever the leader has not archived when it dies, whoever
//! takes over has, and archives it: a failover leaves no gap.

use super::file::WalFile;
use crate::postgres::timeline::History;

/// What a node does with a file that its PostgreSQL wants archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It leads: the file goes into the sink.
    Put,
    /// It follows: PostgreSQL may give the file up once it is in the sink.
    Confirm,
    /// Nobody needs it in the sink: PostgreSQL may give it up.
    Release,
    /// It cannot be told yet.
    Wait,
}

/// How a node stands to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It is the leader, and out of recovery.
    pub leads: bool,
    /// The past of the leader's timeline: as this node's PostgreSQL has it where it leads, as the document has it
    /// where it does not. Nothing before a document was read.
    pub history: Option<History>,
}

/// What a node does with a file.
#[must_use]
pub fn duty(file: WalFile, standing: &Standing, segment_bytes: u64) -> Duty {
    let Some(history) = &standing.history else { return Duty::Wait };
    let timeline = file.timeline();
    if timeline > history.timeline {
        // Begun by a promotion of which the document does not tell yet.
        return Duty::Wait;
    }
    let mine = if standing.leads { Duty::Put } else { Duty::Confirm };
    let Some(end) = history.end_of(timeline) else {
        // The number of a promotion that came to nothing, or that the cluster did not go on with.
        return Duty::Release;
    };
    match file {
        WalFile::BackupLabel(_) => Duty::Release,
        WalFile::History(_) => mine,
        WalFile::Segment(segment) | WalFile::Partial(segment) if segment.begin(segment_bytes) >= end => Duty::Release,
        // What counts of the segment in which the timeline ended is in the first one of the timeline after it, which
        // the leader does not give up before it is archived.
        WalFile::Segment(segment) if segment.end(segment_bytes) > end && !standing.leads => Duty::Release,
        // The new leader makes one of its own.
        WalFile::Partial(_) if !standing.leads => Duty::Release,
        WalFile::Segment(_) | WalFile::Partial(_) => mine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::lsn::Lsn;
    use crate::postgres::timeline::{Fork, TimelineId};

    const SIZE: u64 = 16 << 20;

    /// Timeline 1 ended in the middle of segment 5, timeline 3 goes on.
    fn standing(leads: bool) -> Standing {
        let forks = vec![Fork { timeline: TimelineId(1), end: Lsn(5 * SIZE + 100) }];
        Standing { leads, history: Some(History { timeline: TimelineId(3), forks }) }
    }

    fn of(name: &str, leads: bool) -> Duty {
        duty(WalFile::parse(name).unwrap(), &standing(leads), SIZE)
    }

    #[test]
    fn the_leader_puts_what_is_of_the_history_and_a_standby_waits_for_it() {
        for name in [
            "000000010000000000000004",
            "000000030000000000000005",
            "000000030000000000000009",
            "00000003.history",
            "00000001.history",
        ] {
            assert_eq!((of(name, true), of(name, false)), (Duty::Put, Duty::Confirm), "{name}");
        }
    }

    #[test]
    fn what_the_cluster_did_not_go_on_with_is_not_stored() {
        for name in [
            "000000010000000000000006",
            "000000020000000000000004",
            "00000002.history",
            "000000010000000000000006.partial",
        ] {
            assert_eq!((of(name, true), of(name, false)), (Duty::Release, Duty::Release), "{name}");
        }
    }

    #[test]
    fn the_segment_of_the_fork_is_kept_by_the_leader_alone() {
        for name in ["000000010000000000000005", "000000010000000000000005.partial"] {
            assert_eq!((of(name, true), of(name, false)), (Duty::Put, Duty::Release), "{name}");
        }
        // A fork at the very end of a segment leaves that whole.
        let forks = vec![Fork { timeline: TimelineId(1), end: Lsn(6 * SIZE) }];
        let standing = Standing { leads: false, history: Some(History { timeline: TimelineId(2), forks }) };
        let last = WalFile::parse("000000010000000000000005").unwrap();
        assert_eq!(duty(last, &standing, SIZE), Duty::Confirm);
    }

    #[test]
    fn what_is_not_known_yet_is_asked_again() {
        assert_eq!(of("000000040000000000000009", true), Duty::Wait);
        assert_eq!(of("00000004.history", false), Duty::Wait);
        let nothing = Standing { leads: false, history: None };
        assert_eq!(duty(WalFile::parse("000000010000000000000004").unwrap(), &nothing, SIZE), Duty::Wait);
    }

    #[test]
    fn labels_of_backups_are_not_stored() {
        assert_eq!(of("000000030000000000000009.00000028.backup", true), Duty::Release);
    }
}
