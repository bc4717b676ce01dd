//! [`Pg`]: a model PostgreSQL: what lies on its disk, and what runs.
//!
//! WAL is a list of records that reached the disk. What was written and not flushed is lost in a crash,
//! and is not modelled before it is flushed: nobody is told of it, and it is streamed to nobody.

use std::collections::BTreeSet;

use pgdock_core::node::{Incarnation, Member};
use pgdock_core::postgres::timeline::{Fork, TimelineId};
use pgdock_core::view::Names;
use pgdock_core::{History, Lsn};

use super::scenario::Micros;

/// A WAL record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rec {
    /// No two records of a run have the same. In any WAL they grow, because records are made in time.
    pub id: u64,
    /// The timeline that it was written on.
    pub timeline: TimelineId,
    /// Where it ends.
    pub end: Lsn,
}

/// What lies on a node's disk.
#[derive(Clone, Debug)]
pub struct Data {
    /// The data directory's identity.
    pub incarnation: Incarnation,
    /// The WAL that was flushed.
    pub wal: Vec<Rec>,
    /// The timeline of its end, and how it came about.
    pub history: History,
    /// `primary_conninfo`: the node to stream from.
    pub upstream: Option<usize>,
    /// `synchronous_standby_names` in the configuration.
    pub names: Names,
    /// It was out of recovery when it ran last.
    pub was_primary: bool,
    /// It was shut down in order.
    pub clean: bool,
    /// Where the last checkpoint record begins.
    pub checkpoint: Lsn,
    /// The slots.
    pub slots: BTreeSet<String>,
}

impl Data {
    /// Where the WAL ends.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.wal.last().map_or(Lsn(0), |r| r.end)
    }

    /// Whether the WAL holds a record.
    #[must_use]
    pub fn holds(&self, id: u64) -> bool {
        self.wal.binary_search_by_key(&id, |r| r.id).is_ok()
    }

    /// Writes a record.
    pub fn append(&mut self, id: u64, bytes: u64) -> Lsn {
        let end = Lsn(self.end().0 + bytes);
        self.wal.push(Rec { id, timeline: self.history.timeline, end });
        end
    }

    /// Begins a new timeline at the end of the WAL.
    pub fn fork(&mut self, timeline: TimelineId) {
        let fork = Fork { timeline: self.history.timeline, end: self.end() };
        self.history.forks.push(fork);
        self.history.timeline = timeline;
    }
}

/// What runs.
#[derive(Clone, Debug)]
pub enum Run {
    /// Nothing.
    Stopped,
    /// A postmaster that takes no connections yet.
    Starting {
        /// It is to be a primary.
        primary: bool,
    },
    /// A server in recovery.
    Standby(StandbyRun),
    /// A server out of recovery.
    Primary(PrimaryRun),
}

/// A server in recovery.
#[derive(Clone, Debug, Default)]
pub struct StandbyRun {
    /// It has replayed all that lay there.
    pub end_known: bool,
    /// The stream that it receives.
    pub receiver: Option<usize>,
    /// When anything was received last, on the node's own clock.
    pub heard_at: Option<Micros>,
}

/// A server out of recovery.
#[derive(Clone, Debug, Default)]
pub struct PrimaryRun {
    /// `synchronous_standby_names` as the postmaster has it: new WAL senders begin with it.
    pub names: Names,
    /// What the checkpointer made known to backends: commits wait for somebody.
    pub waits: bool,
    /// Commits that wait: record, and where it ends.
    pub waiting: Vec<(u64, Lsn)>,
    /// The streams that it sends.
    pub senders: Vec<usize>,
    /// It lets no client in.
    pub closed: bool,
    /// It shuts down: no more clients.
    pub stopping: bool,
}

/// A model PostgreSQL.
#[derive(Clone, Debug)]
pub struct Pg {
    /// What lies on disk; `None` without a data directory.
    pub data: Option<Data>,
    /// What runs.
    pub run: Run,
    /// Grows whenever a server starts or ends: what concerned an earlier one does not concern this one.
    pub number: u64,
    /// When the last server ended, on the node's own clock.
    pub ended_at: Micros,
}

impl Pg {
    /// The primary, if it is one.
    #[must_use]
    pub fn primary(&self) -> Option<&PrimaryRun> {
        if let Run::Primary(p) = &self.run { Some(p) } else { None }
    }

    /// The primary, to change it.
    pub fn primary_mut(&mut self) -> Option<&mut PrimaryRun> {
        if let Run::Primary(p) = &mut self.run { Some(p) } else { None }
    }

    /// The standby, if it is one.
    #[must_use]
    pub fn standby(&self) -> Option<&StandbyRun> {
        if let Run::Standby(s) = &self.run { Some(s) } else { None }
    }

    /// The standby, to change it.
    pub fn standby_mut(&mut self) -> Option<&mut StandbyRun> {
        if let Run::Standby(s) = &mut self.run { Some(s) } else { None }
    }

    /// Whether any process runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        !matches!(self.run, Run::Stopped)
    }

    /// The life of a node that has this data.
    #[must_use]
    pub fn member(&self, node: usize) -> Option<Member> {
        Some(Member { node: super::Scenario::name(node), incarnation: self.data.as_ref()?.incarnation })
    }
}
