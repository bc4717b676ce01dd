//! [`Report`]: what an agent tells the others of itself, several times a second and on every change.
//!
//! Agents send each other nothing but reports. A candidate asks for pledges by saying in its report that
//! it campaigns; a giver answers by saying in its own that it has pledged. So every exchange is level
//! triggered: a lost report is repaired by the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::Label;
use crate::clock::Moment;
use crate::node::{Incarnation, Member};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{History, TimelineId};
use crate::witness::{Record, Version};
use crate::{NodeName, Role, Term};

/// What an agent says of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who speaks.
    pub node: NodeName,
    /// The cluster that it belongs to.
    pub cluster: String,
    /// PostgreSQL's system identifier, once there is a data directory.
    pub system_identifier: Option<u64>,
    /// The data directory's identity.
    pub incarnation: Option<Incarnation>,
    /// What it is.
    pub role: Role,
    /// What its PostgreSQL is doing.
    pub state: State,
    /// The timeline of its WAL.
    pub timeline: TimelineId,
    /// Up to where its WAL is on disk.
    pub flushed: Lsn,
    /// Up to where it was replayed; on a primary the same as `flushed`.
    pub replayed: Lsn,
    /// The node that it streams from, or is set to stream from.
    pub upstream: Option<NodeName>,
    /// The past of its timeline; only a primary tells.
    pub history: Option<History>,
    /// Who streams from it; only a primary tells.
    pub standbys: Vec<Downstream>,
    /// The newest document that it has seen: its heartbeat number and term.
    pub witness: Option<(u64, Term)>,
    /// Whether the witness answered its last request.
    pub witness_reachable: bool,
    /// It is looking for pledges to take over from the leader of this version of the document.
    pub campaign: Option<Version>,
    /// It has detached for this version of the document, and holds this much.
    pub pledge: Option<Pledge>,
    /// What it asks of the others and does for them, where one of them cannot go on alone.
    #[serde(default, skip_serializing_if = "Aid::is_none")]
    pub aid: Aid,
    /// There is hardly any room left on its disk.
    #[serde(default)]
    pub disk_low: bool,
    /// The configuration that runs here.
    pub bundle: Option<String>,
    /// What a person should know.
    pub problems: Vec<String>,
}

impl Report {
    /// This node's present life, once it has one.
    #[must_use]
    pub fn member(&self) -> Option<Member> {
        Some(Member { node: self.node.clone(), incarnation: self.incarnation? })
    }
}

/// What agents ask of each other, and do for each other, where one of them cannot go on alone (R6, R7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aid {
    /// It leads, and asks whoever could take over to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plea: Option<Plea>,
    /// It has promised to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<Promise>,
    /// It leads, does not hear of a swap of its own, and asks whoever reaches the witness to make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Box<Relay>>,
    /// The newest document that it has read, for those who do not reach the witness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Box<Told>>,
    /// Its PostgreSQL was primary and crashed: it serves the end of the WAL to an heir before it hands over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Box<Tail>>,
    /// Where the oldest WAL begins that it can still send; only a primary tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_wal: Option<Lsn>,
    /// It has taken the end of the WAL of a primary that crashed: all that it served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Box<Crash>>,
    /// The backup that it wants to make, or makes: it waits until the document says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Label>,
}

impl Aid {
    /// Nothing is asked or done.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A leader asks for time: whoever promises makes no swap that takes over from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plea {
    /// The term that it leads.
    pub term: Term,
    /// The life of its agent: what was promised to an earlier one says nothing to this.
    pub session: u64,
    /// The number of the plea: the moment at which it was first made, by the leader's own clock. It means
    /// nothing to anybody else.
    pub number: Moment,
    /// For how long.
    #[serde(with = "crate::witness::record::millis")]
    pub lasts: Duration,
}

/// A promise: its giver does not take over from a leader for as long as the plea says, and a little longer,
/// counted from the moment at which it heard the plea.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// To whom it was given.
    pub to: NodeName,
    /// What it answers.
    pub plea: Plea,
}

/// A swap of a leader's own, to be made by whoever reaches the witness: exactly this one, nonce included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// The version that must still stand.
    pub expected: Version,
    /// What to make of it.
    pub next: Record,
}

/// A crash of a primary's PostgreSQL, told apart from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// Whose PostgreSQL it was.
    pub node: NodeName,
    /// The life of its agent.
    pub session: u64,
    /// When it was seen, by that node's own clock.
    pub at: Moment,
}

/// The end of a crashed primary's WAL, which its agent serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Who is to take it.
    pub heir: NodeName,
    /// Which crash left it.
    pub crash: Crash,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
}

/// A document that was committed, and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The document.
    pub record: Record,
    /// Its version.
    pub version: Version,
}

/// What a node's PostgreSQL is doing, in the words that `status` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Not observed yet.
    #[default]
    Unknown,
    /// There is no data directory.
    Empty,
    /// A copy of the primary is being made.
    Cloning,
    /// Its WAL is being taken back to where the primary's history forked off.
    Rewinding,
    /// Not running.
    Stopped,
    /// Starting; not yet accepting connections.
    Starting,
    /// In recovery, attached to nobody.
    Detached,
    /// In recovery, catching up or waiting for its upstream.
    Following,
    /// In recovery, streaming.
    Streaming,
    /// On the way out of recovery.
    Promoting,
    /// Out of recovery; only pgdock and standbys are let in.
    Closed,
    /// Out of recovery.
    Running,
    /// Being shut down.
    Stopping,
    /// Only a person can go on: see the problems.
    Failed,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Empty => "empty",
            Self::Cloning => "cloning",
            Self::Rewinding => "rewinding",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Detached => "detached",
            Self::Following => "following",
            Self::Streaming => "streaming",
            Self::Promoting => "promoting",
            Self::Closed => "closed",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        })
    }
}

/// A standby as its primary sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downstream {
    /// Which life of which node.
    pub member: Member,
    /// It has caught up and streams.
    pub streaming: bool,
    /// Up to where it says its disk holds the WAL.
    pub flushed: Lsn,
    /// Up to where it has replayed.
    pub replayed: Lsn,
    /// Milliseconds that its replay is behind, as PostgreSQL measures it.
    pub replay_lag_ms: Option<u64>,
}

/// A pledge: its giver has durably cleared `primary_conninfo` and `restore_command`, has seen the WAL
/// receiver gone, and stays so until it has read a newer version that still names the old leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pledge {
    /// The version of the document that it holds for.
    pub version: Version,
    /// The giver's life when it was given.
    pub member: Member,
    /// The timeline of the giver's WAL.
    pub timeline: TimelineId,
    /// How far the giver's WAL reaches.
    pub flushed: Lsn,
}
