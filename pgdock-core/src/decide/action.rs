//! [`Action`] and [`Decision`]: what is to be done, as data.

use std::time::Duration;

use crate::clock::Moment;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::report::{Plea, Relay, Tail};
use crate::view::{Given, Names, Task};
use crate::witness::{Record, Version};
use crate::{NodeName, Term};

/// One thing to do. Each belongs to a lane, and a lane does one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Read the witness document.
    ReadWitness,
    /// Swap the witness document. The driver puts a fresh nonce into `next`.
    SwapWitness {
        /// The version that must still stand; `None` to create it.
        expected: Option<Version>,
        /// What to make of it.
        next: Record,
    },
    /// Make a swap on the leader's behalf, exactly as it stands.
    RelaySwap {
        /// The version that must still stand.
        expected: Version,
        /// What to make of it, nonce included.
        next: Record,
    },

    /// Make the first data directory of a new cluster.
    Bootstrap,
    /// Copy the data directory of a node into a new one; keep an old one aside.
    Clone {
        /// The node to copy from.
        from: NodeName,
        /// The system identifier that the copy must have.
        system_identifier: u64,
    },
    /// Keep the diverged WAL, then take the data directory back to the fork. PostgreSQL is stopped in
    /// order first where it runs.
    Rewind {
        /// The primary to follow afterwards.
        from: NodeName,
        /// Where this node's history forked off.
        fork: Lsn,
    },
    /// Start PostgreSQL in recovery.
    StartStandby {
        /// The node to stream from, only where a rewound data directory needs its WAL; else nobody.
        upstream: Option<NodeName>,
    },
    /// Start PostgreSQL as a primary, on its old timeline. It lets no client in until it is told to.
    StartPrimary,
    /// Let clients in.
    AdmitClients,
    /// Kill the postmaster and every backend, and see them gone. Breaks into whatever else is going on.
    Fence {
        /// Why, for the log.
        why: &'static str,
    },
    /// Clear `primary_conninfo` and `restore_command` durably and see the WAL receiver gone; then, with a
    /// version, write down the pledge for it.
    Detach {
        /// The version to pledge for.
        pledge: Option<Version>,
    },
    /// Stream from a node.
    Attach {
        /// The node to stream from.
        upstream: NodeName,
    },
    /// Leave recovery. Only a detached standby is told to. Where the names list members, one of these may take over at
    /// any moment: then no client is let in until [`AdmitClients`](Self::AdmitClients).
    Promote {
        /// `synchronous_standby_names` to begin with.
        names: Names,
        /// The timeline to begin: the number that the document gave to this promotion. PostgreSQL takes the
        /// first number of which it finds no history file, so that those between have to be there.
        timeline: TimelineId,
    },
    /// Set `synchronous_standby_names`, and see that every process uses it.
    SetNames(Names),
    /// Take a WAL position after the present names have taken effect everywhere.
    TakeBarrier {
        /// Commits did not wait at all before: the checkpointer must have seen the change, too.
        from_none: bool,
    },
    /// Shut PostgreSQL down in order.
    Stop {
        /// Write a checkpoint first, so that the shutdown is short.
        checkpoint: bool,
        /// After this, it is killed.
        budget: Duration,
    },
    /// Read the configuration again.
    Reload,
    /// Take the end of a crashed primary's WAL from its agent, and put it where recovery finds it.
    TakeTail {
        /// What is served.
        tail: Tail,
    },
    /// Take WAL that the leader no longer has from the archive, and put it where recovery finds it.
    FetchWal {
        /// The timeline of this standby and of the leader.
        timeline: TimelineId,
        /// Up to where: from there on the leader has it.
        to: Lsn,
    },
    /// Make pgdock's roles and the application's database in a new cluster.
    EnsureRoles,
    /// Make the slots of members that have none, drop those of nobody.
    SyncSlots {
        /// The slots that should be there.
        wanted: Vec<String>,
    },
    /// The same on a standby, where nobody streams through them: they are moved on by hand.
    FollowSlots {
        /// The slots that should be there, and up to where WAL is not held back any more.
        wanted: Vec<(String, Lsn)>,
    },

    /// Point the failover IP at this node.
    AssignAddress {
        /// The term that allows it.
        term: Term,
    },
}

/// What works on one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Requests to the witness.
    Witness,
    /// Changes of PostgreSQL's state.
    Postgres,
    /// Housekeeping inside PostgreSQL that may run beside anything.
    Upkeep,
    /// The failover IP.
    Address,
}

impl Action {
    /// The lane that does it.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::ReadWitness | Self::SwapWitness { .. } | Self::RelaySwap { .. } => Lane::Witness,
            Self::AssignAddress { .. } => Lane::Address,
            Self::SyncSlots { .. } | Self::FollowSlots { .. } | Self::EnsureRoles => Lane::Upkeep,
            _ => Lane::Postgres,
        }
    }

    /// What the view calls it while it is going on.
    #[must_use]
    pub fn task(&self) -> Option<Task> {
        Some(match self {
            Self::Bootstrap => Task::Bootstrap,
            Self::Clone { .. } => Task::Clone,
            Self::Rewind { .. } => Task::Rewind,
            Self::StartStandby { .. } => Task::StartStandby,
            Self::StartPrimary => Task::StartPrimary,
            Self::Fence { .. } => Task::Fence,
            Self::Detach { .. } => Task::Detach,
            Self::Attach { .. } => Task::Attach,
            Self::Promote { .. } => Task::Promote,
            Self::SetNames(_) => Task::SetNames,
            Self::TakeBarrier { .. } => Task::TakeBarrier,
            Self::Stop { .. } => Task::Stop,
            Self::Reload => Task::Reload,
            Self::AdmitClients => Task::AdmitClients,
            Self::TakeTail { .. } => Task::TakeTail,
            Self::FetchWal { .. } => Task::FetchWal,
            Self::ReadWitness
            | Self::SwapWitness { .. }
            | Self::RelaySwap { .. }
            | Self::SyncSlots { .. }
            | Self::FollowSlots { .. }
            | Self::EnsureRoles
            | Self::AssignAddress { .. } => {
                return None;
            }
        })
    }
}

/// How an operator's order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done(String),
    /// It is refused, because it could lose data or the state does not allow it.
    Refused(String),
    /// It was tried and failed; the cluster is as it was before, or heals by itself.
    Failed(String),
}

/// What to do now, and what to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What to do: at most one thing a lane.
    pub actions: Vec<Action>,
    /// The moment at which this node's right to be primary ends, as far as is known now. The deadman is
    /// armed with it. `None` disarms it, which is only said while no primary can run here.
    pub deadline: Option<Moment>,
    /// The version for which this node looks for pledges.
    pub campaign: Option<Version>,
    /// What this node asks of those who could take over from it.
    pub plea: Option<Plea>,
    /// What it promises now. It binds from this decision on.
    pub promise: Option<Given>,
    /// The swap that it asks others to make.
    pub relay: Option<Relay>,
    /// The end of the WAL that this node serves to an heir.
    pub tail: Option<Tail>,
    /// What became of the operator's order, once something did.
    pub verdict: Option<Verdict>,
    /// The stage that the order has reached, if it changed.
    pub order: Option<crate::view::Order>,
    /// What a person should know.
    pub problems: Vec<String>,
    /// Something is about to happen: observe PostgreSQL often.
    pub watchful: bool,
    /// Decide again at this moment, even if nothing happens until then: time alone changes something.
    pub wake_at: Option<Moment>,
}

impl Decision {
    /// Asks for an action, unless its lane already has one: findings come in the order of their weight.
    pub fn want(&mut self, action: Action) {
        if !self.lane_taken(action.lane()) {
            self.actions.push(action);
        }
    }

    /// Whether an earlier finding already asked something of a lane.
    #[must_use]
    pub fn lane_taken(&self, lane: Lane) -> bool {
        self.actions.iter().any(|a| a.lane() == lane)
    }

    /// Asks to decide again at a moment to come.
    pub fn wake(&mut self, now: Moment, at: Moment) {
        if at > now {
            self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
        }
    }

    /// Says something to a person.
    pub fn problem(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }
}
