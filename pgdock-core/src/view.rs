//! [`View`]: all that an agent knows at one moment. Plain data: no await, no clock, no I/O.
//!
//! The agent and the simulator fill a view from what they observe, and hand it to
//! [`decide`](crate::decide). What must be remembered between two decisions is in the view, too;
//! the functions that keep it up to date ([`View::witness_answered`] and its siblings) are the same for both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::Label;
use crate::clock::Moment;
use crate::decide::rules::Rules;
use crate::node::Member;
use crate::postgres::lsn::Lsn;
use crate::report::{Crash, Plea, Pledge, Report};
use crate::witness::record::Durability;
use crate::{NodeName, Term};

mod aid;
mod knowledge;
mod local;
mod peer;
mod trust;

pub use aid::{Given, Had};
pub use knowledge::{Answer, Attempt, Knowledge, Seen};
pub use local::{Local, Names, Postgres, Primary, Progress, Sender, Standby, Stopped};
pub use peer::{Link, Peer};
pub use trust::Trust;

/// All that an agent knows at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The moment on this node's monotonic clock.
    pub now: Moment,
    /// This node.
    pub me: NodeName,
    /// What the operator wants.
    pub policy: Policy,
    /// What is known of the witness document.
    pub witness: Knowledge,
    /// Whether the store of the document keeps its word.
    pub trust: Trust,
    /// The right to be primary, as far as this node ever had one.
    pub right: Option<Right>,
    /// This node's data directory and PostgreSQL.
    pub local: Local,
    /// The other nodes.
    pub peers: BTreeMap<NodeName, Peer>,
    /// What survives a restart of the agent.
    pub durable: Durable,
    /// What the agent is doing to PostgreSQL right now, and since when.
    pub busy: Option<(Task, Moment)>,
    /// What an operator asked of this node.
    pub order: Option<Order>,
    /// The last barrier taken on this primary.
    pub barrier: Option<Barrier>,
    /// The term for which the failover IP is known to point here.
    pub address_for: Option<Term>,
    /// Whether the failover IP is being moved, and the earliest moment of a next try.
    pub address_busy: Option<Moment>,
    /// A number that no other life of this agent has: pleas carry it. Whoever makes a view draws one.
    pub session: u64,
    /// What this node asks of those who could take over from it.
    pub plea: Option<Plea>,
    /// The promise given last. It need not survive a restart: patience is counted anew then (R3, R7).
    pub promise: Option<Given>,
    /// The crash of a primary whose last WAL this node has taken.
    pub took: Option<Crash>,
    /// The backup that this node wants to make, or makes.
    pub backup: Option<Label>,
    /// Where the WAL begins that the archive was last found not to have.
    pub archive_lacks: Option<Lsn>,
}

/// What the operator wants: the part of the settings that decisions rest on.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The cluster's name.
    pub cluster: String,
    /// What an acknowledged commit shall mean.
    pub durability: Durability,
    /// How many standbys shall hold each acknowledged commit, where that many serve: none in `async`, one in
    /// `sync`.
    pub acks: u32,
    /// Rather block writes than acknowledge them on the primary alone.
    pub strict: bool,
    /// How often the leader renews its right.
    pub heartbeat: Duration,
    /// How long a right lasts, as written into the document.
    pub ttl: Duration,
    /// How much earlier than that the leader takes it to end.
    pub margin: Duration,
    /// A peer that was not heard for so long is silent.
    pub silent_after: Duration,
    /// A leader that was not heard for so long, without further evidence of its death, is suspected.
    /// Enough more than `silent_after` that a leader that lives has dropped a silent standby first.
    pub suspect_after: Duration,
    /// In `async`: how far behind the leader's last known position a successor may be, in bytes.
    pub lag_bytes_max: u64,
    /// The members, this node among them.
    pub members: BTreeMap<NodeName, MemberPolicy>,
    /// How long a rewound data directory may take to catch up before the leader is copied instead.
    pub rejoin_budget: Duration,
    /// With less room on its disk a node does not stay leader where another one can lead, in bytes.
    pub disk_free_min: u64,
    /// Whether there is a failover IP to move.
    pub failover_ip: bool,
    /// Whether WAL is archived.
    pub archive: bool,
    /// Which rules hold: all of them, outside tests.
    pub rules: Rules,
}

/// What the operator wants of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPolicy {
    /// Among equals the highest takes over.
    pub priority: u32,
    /// Whether it may become primary at all.
    pub failover: bool,
    /// The address of its PostgreSQL, as `host:port`.
    pub address: String,
}

/// The right to be primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The term that it is for.
    pub term: Term,
    /// When the swap that carried it was sent.
    pub sent_at: Moment,
    /// When it ends. The deadman kills PostgreSQL then.
    pub until: Moment,
}

/// What survives a restart of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The pledge given last.
    pub pledge: Option<Pledge>,
    /// A rewind began and did not end well: the data directory is worth nothing until it is copied anew.
    #[serde(default)]
    pub rewinding: bool,
    /// The data directory was rewound, and has not taken connections since: it needs the WAL of the node that
    /// it was rewound to.
    #[serde(default)]
    pub rewound: bool,
    /// The data directory was made here for a cluster whose document does not exist yet.
    #[serde(default)]
    pub bootstrapping: bool,
    /// A copy, rather than a rewind, is to be made at the next occasion: an operator asked, or a rewind
    /// failed (which leaves `rewinding` set, too).
    #[serde(default)]
    pub reclone: bool,
    /// The data directory is a copy, and has not streamed since it was made.
    #[serde(default)]
    pub copied: bool,
    /// The term for which PostgreSQL was last made a primary here.
    #[serde(default)]
    pub reign: Term,
}

/// What the agent is doing to PostgreSQL. One thing at a time; only a fence breaks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Task {
    /// Making the cluster's first data directory.
    Bootstrap,
    /// Copying a data directory.
    Clone,
    /// Taking a data directory back to the fork.
    Rewind,
    /// Starting as a standby.
    StartStandby,
    /// Starting as a primary.
    StartPrimary,
    /// Killing.
    Fence,
    /// Leaving the upstream.
    Detach,
    /// Attaching to an upstream.
    Attach,
    /// Promoting.
    Promote,
    /// Changing `synchronous_standby_names`.
    SetNames,
    /// Taking a barrier.
    TakeBarrier,
    /// Shutting down.
    Stop,
    /// Reading the configuration again.
    Reload,
    /// Letting clients in.
    AdmitClients,
    /// Taking the end of a crashed primary's WAL.
    TakeTail,
    /// Taking WAL from the archive.
    FetchWal,
}

/// What an operator asked of this node. At most one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Make this the first primary of a new cluster.
    Bootstrap,
    /// Make the data directory that is here, another program's until now, that of the first primary.
    Adopt {
        /// What it must be.
        system_identifier: u64,
    },
    /// Hand the lead over, to a given node or to the best one.
    Switchover {
        /// The heir, once chosen.
        to: Option<NodeName>,
        /// When it is given up.
        deadline: Moment,
    },
    /// A switchover that is undone: PostgreSQL is started again as a primary, and nothing has changed.
    UndoSwitchover {
        /// Why.
        why: String,
        /// When it is no longer waited for.
        deadline: Moment,
    },
    /// Become primary, though the rules that guard data do not allow it.
    Failover {
        /// Also when acknowledged commits may be missing here.
        allow_data_loss: bool,
        /// When it is given up.
        deadline: Moment,
    },
    /// Stop or resume automatic decisions.
    Pause(bool),
    /// Restart PostgreSQL in its present role.
    Restart {
        /// PostgreSQL was stopped for it.
        stopped: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Make this node's data directory anew.
    Reclone,
    /// Make this node follow the leader, by rewind or copy if it must be.
    Rejoin,
}

/// A WAL position taken after a state of `synchronous_standby_names` had taken effect everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The state.
    pub names: Names,
    /// The position. Every commit that was acknowledged under an earlier state lies before it.
    pub lsn: Lsn,
}

impl View {
    /// An empty view: nothing observed yet.
    #[must_use]
    pub fn new(me: NodeName, policy: Policy) -> Self {
        let peers = policy.members.keys().filter(|n| **n != me).map(|n| (n.clone(), Peer::default())).collect();
        Self {
            now: Moment::default(),
            me,
            policy,
            witness: Knowledge::default(),
            trust: Trust::default(),
            right: None,
            local: Local::default(),
            peers,
            durable: Durable::default(),
            busy: None,
            order: None,
            barrier: None,
            address_for: None,
            address_busy: None,
            session: 0,
            plea: None,
            promise: None,
            took: None,
            backup: None,
            archive_lacks: None,
        }
    }

    /// Whether the newest known document names this node as leader.
    #[must_use]
    pub fn am_leader(&self) -> bool {
        self.witness.record().is_some_and(|r| r.leader.as_ref() == Some(&self.me))
    }

    /// Whether this node has an unexpired right for the term of the document.
    #[must_use]
    pub fn has_right(&self) -> bool {
        self.am_leader()
            && self.right.is_some_and(|right| {
                self.now < right.until && self.witness.record().is_some_and(|r| r.term == right.term)
            })
    }

    /// The members that the settings bar from taking over by themselves.
    #[must_use]
    pub fn barred(&self) -> BTreeSet<NodeName> {
        self.policy.members.iter().filter(|(_, m)| !m.failover).map(|(name, _)| name.clone()).collect()
    }

    /// This node's present life.
    #[must_use]
    pub fn member(&self) -> Option<Member> {
        Some(Member { node: self.me.clone(), incarnation: self.local.incarnation? })
    }

    /// The leader that the document names, if it is another node.
    #[must_use]
    pub fn other_leader(&self) -> Option<&NodeName> {
        self.witness.record()?.leader.as_ref().filter(|leader| **leader != self.me)
    }

    /// How the connection to a peer stands.
    #[must_use]
    pub fn link(&self, node: &NodeName) -> Link {
        self.peers.get(node).map_or(Link::Silent, |peer| peer.link(self.now, self.policy.silent_after))
    }

    /// The latest report of a peer that is up.
    #[must_use]
    pub fn report(&self, node: &NodeName) -> Option<&Report> {
        if self.link(node) == Link::Up { self.peers.get(node)?.report.as_ref() } else { None }
    }

    /// The peers that are up, with their reports.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.peers.keys().filter_map(|node| self.report(node))
    }

    /// Whether operator and document let a node become primary.
    #[must_use]
    pub fn may_lead(&self, node: &NodeName) -> bool {
        self.policy.members.get(node).is_some_and(|m| m.failover)
    }

    /// The rank of a node among equals: higher priority first, then the name that sorts first.
    #[must_use]
    pub fn rank(&self, node: &NodeName) -> (u32, std::cmp::Reverse<NodeName>) {
        (self.policy.members.get(node).map_or(0, |m| m.priority), std::cmp::Reverse(node.clone()))
    }

    /// Notes what was observed of this node's PostgreSQL.
    pub fn observe_local(&mut self, mut local: Local) {
        local.remember(&self.local, self.now, self.policy.silent_after / 5);
        // Once it is low it must rise a good deal, so that the lead does not go to and fro.
        let min = self.policy.disk_free_min;
        let enough = if self.local.disk_low { min.saturating_add(min / 4) } else { min };
        local.disk_low = local.disk_free.map_or(self.local.disk_low, |free| free < enough);
        if local.postgres.names() != self.local.postgres.names() {
            self.barrier = None;
        }
        self.local = local;
    }

    /// Notes the moment that a decision found for the end of the right.
    pub fn extend_right(&mut self, deadline: Option<Moment>) {
        if let (Some(right), Some(deadline)) = (&mut self.right, deadline) {
            right.until = right.until.max(deadline);
        }
    }

    /// Whether commits on this primary are known to reach the members that the document counts on, by
    /// every version that the document may be at: then no other node can take over, and nothing expires
    /// while the witness is away.
    #[must_use]
    pub fn guarded_by_sync_set(&self) -> bool {
        let Postgres::Primary(primary) = &self.local.postgres else { return false };
        let lives = |set: &BTreeSet<Member>, acks: u32| {
            let alive = set
                .iter()
                .filter(|m| {
                    primary.senders.get(*m).is_some_and(|s| s.streaming)
                        && self
                            .local
                            .progress
                            .get(*m)
                            .is_some_and(|p| self.now.since(p.moved_at) < self.policy.silent_after)
                })
                .count();
            alive >= acks as usize
        };
        self.am_leader() && self.witness.possible().all(|r| r.durability.is_guarded() && lives(&r.sync_set, r.acks))
    }
}
