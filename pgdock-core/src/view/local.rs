//! [`Local`]: what a node knows of its own PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::node::{Incarnation, Member};
use crate::postgres::diverged::Kept;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{History, TimelineId};
use crate::{NodeName, Role};

/// What a node knows of its own PostgreSQL.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// PostgreSQL's system identifier, once there is a data directory.
    pub system_identifier: Option<u64>,
    /// The data directory's identity.
    pub incarnation: Option<Incarnation>,
    /// What PostgreSQL is doing.
    pub postgres: Postgres,
    /// Starts that failed one after the other.
    pub start_failures: u32,
    /// Where the oldest WAL begins that a primary here can still send.
    pub oldest_wal: Option<Lsn>,
    /// When it was observed.
    pub observed_at: Option<Moment>,
    /// The physical slots that pgdock made on a standby, but for those that have lost their WAL, and from where on they
    /// hold WAL back.
    pub slots: BTreeMap<String, Lsn>,
    /// A standby has logical slots of an earlier reign, which are in the way of those that it would copy from the leader.
    pub stale_slots: bool,
    /// Where recovery would begin.
    pub redo: Lsn,
    /// When each standby last moved, kept from one observation to the next.
    pub progress: BTreeMap<Member, Progress>,
    /// Since when it was seen starting without a break.
    pub starting_since: Option<Moment>,
    /// Where the WAL of a primary that lets no client in ended when it was first seen so: no earlier than its
    /// recovery did.
    pub closed_at: Option<Lsn>,
    /// Since when it was seen out of recovery without a break.
    pub primary_since: Option<Moment>,
    /// The WAL that rewinds took off and that is kept here; `None` before it was looked for.
    pub kept: Option<Arc<Vec<Kept>>>,
    /// For which roles and databases a primary acknowledges commits before a standby has them; `None` before it was
    /// looked for.
    pub early_commits: Option<Arc<[String]>>,
    /// How much room is left for the data directory and its WAL, in bytes.
    pub disk_free: Option<u64>,
    /// That is too little.
    pub disk_low: bool,
}

/// How a standby gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Up to where its disk holds the WAL.
    pub flushed: Lsn,
    /// When it last streamed and either lacked nothing or moved; where that was seen to have happened since the
    /// observation before, the earlier of the two, but no more than a beat ago.
    pub moved_at: Moment,
}

/// What a PostgreSQL is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Postgres {
    /// Not observed yet.
    #[default]
    Unknown,
    /// There is no data directory, or an empty one.
    Empty,
    /// There is something that is not ours to touch.
    Unusable {
        /// What a person should know.
        reason: String,
    },
    /// No process of it is left.
    Stopped(Stopped),
    /// Started, not yet accepting connections.
    Starting {
        /// It was started to be a primary.
        primary: bool,
    },
    /// In recovery.
    Standby(Standby),
    /// Out of recovery.
    Primary(Primary),
}

/// A PostgreSQL of which no process is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// It was shut down in order: its control file says so.
    pub clean: bool,
    /// It was out of recovery when it ran last.
    pub was_primary: bool,
    /// The timeline of its last checkpoint.
    pub timeline: TimelineId,
    /// Where its last checkpoint record begins.
    pub checkpoint: Lsn,
    /// Where its WAL was last known to end, while this agent watched it run.
    pub flushed: Lsn,
    /// When this agent saw it end; `None` if it was so when the agent began.
    pub ended_at: Option<Moment>,
}

/// A PostgreSQL in recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// The timeline of its WAL.
    pub timeline: TimelineId,
    /// Up to where its WAL is on disk.
    pub flushed: Lsn,
    /// Up to where it was replayed.
    pub replayed: Lsn,
    /// `flushed` is the end of all that it has: it has streamed, or replayed all that lay there.
    pub end_known: bool,
    /// The node that `primary_conninfo` names.
    pub upstream: Option<NodeName>,
    /// `primary_conninfo` and `restore_command` are cleared durably, and the WAL receiver is gone.
    pub detached: bool,
    /// Its WAL receiver streams.
    pub receiving: bool,
    /// When it last received anything from its upstream, keepalives included.
    pub heard_at: Option<Moment>,
}

/// A PostgreSQL out of recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Its timeline.
    pub timeline: TimelineId,
    /// Up to where its WAL is on disk.
    pub flushed: Lsn,
    /// The past of its timeline.
    pub history: History,
    /// `synchronous_standby_names` as it is set.
    pub names: Names,
    /// Every process that acknowledges commits is seen to use them.
    pub names_settled: bool,
    /// It lets nobody in but pgdock and standbys.
    pub closed: bool,
    /// Who streams from it.
    pub senders: BTreeMap<Member, Sender>,
    /// The physical slots that pgdock made, but for those that have lost their WAL: they are made anew.
    pub slots: BTreeSet<String>,
}

/// A standby as its primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// It has caught up and streams.
    pub streaming: bool,
    /// Up to where its disk holds the WAL.
    pub flushed: Lsn,
    /// Up to where it has replayed.
    pub replayed: Lsn,
    /// Milliseconds that its replay is behind, as PostgreSQL measures it.
    pub replay_lag_ms: Option<u64>,
}

/// `synchronous_standby_names` as pgdock writes it: k of G.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// G: who may acknowledge.
    pub members: BTreeSet<Member>,
    /// k: how many of them must. With nobody in G and a k above zero, no commit is acknowledged.
    pub count: u32,
}

impl Names {
    /// Commits wait for nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The value for `postgresql.conf` (PostgreSQL documentation, section 20.6.2).
    #[must_use]
    pub fn to_setting(&self) -> String {
        if self.count == 0 {
            return String::new();
        }
        let mut names: Vec<_> = self.members.iter().map(|m| format!("\"{m}\"")).collect();
        if names.is_empty() {
            // A name that no standby can have: names of nodes begin with a letter.
            names.push("\"-\"".to_owned());
        }
        format!("ANY {} ({})", self.count, names.join(", "))
    }

    /// The same k of the same members in order, behind a name that nobody has: everybody's place is the second or
    /// a later one. It asks for no less, and is set for a moment to tell by the places who has read it.
    pub(crate) fn in_order(&self) -> String {
        let members: Vec<_> = self.members.iter().map(|m| format!("\"{m}\"")).collect();
        format!("FIRST {} (\"-\", {})", self.count, members.join(", "))
    }

    /// Reads what pgdock wrote; `None` for anything else.
    #[must_use]
    pub fn from_setting(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Some(Self::none());
        }
        // An agent that ended in the midst of a change leaves them in order.
        let in_order = || text.strip_prefix("FIRST ").filter(|rest| rest.contains("(\"-\", "));
        let (count, list) = text.strip_prefix("ANY ").or_else(in_order)?.split_once(" (")?;
        let members = list
            .strip_suffix(')')?
            .split(", ")
            .map(|name| name.trim_matches('"'))
            .filter(|name| *name != "-")
            .map(|name| name.parse::<Member>().ok())
            .collect::<Option<_>>()?;
        Some(Self { members, count: count.parse().ok()? })
    }
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.count == 0 {
            return f.write_str("nobody");
        }
        let names: Vec<_> = self.members.iter().map(ToString::to_string).collect();
        write!(f, "{} of {{{}}}", self.count, names.join(", "))
    }
}

impl Postgres {
    /// The role that it plays.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Primary(_) => Role::Primary,
            Self::Standby(_) => Role::Standby,
            _ => Role::Unknown,
        }
    }

    /// Whether a process of it may be out of recovery.
    #[must_use]
    pub fn may_write(&self) -> bool {
        matches!(self, Self::Primary(_) | Self::Starting { primary: true })
    }

    /// Whether any process of it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(self, Self::Primary(_) | Self::Standby(_) | Self::Starting { .. })
    }

    /// `synchronous_standby_names`, on a primary.
    #[must_use]
    pub fn names(&self) -> Option<&Names> {
        match self {
            Self::Primary(primary) => Some(&primary.names),
            _ => None,
        }
    }

    /// The standby's state, if it is one.
    #[must_use]
    pub fn as_standby(&self) -> Option<&Standby> {
        match self {
            Self::Standby(standby) => Some(standby),
            _ => None,
        }
    }

    /// The primary's state, if it is one.
    #[must_use]
    pub fn as_primary(&self) -> Option<&Primary> {
        match self {
            Self::Primary(primary) => Some(primary),
            _ => None,
        }
    }
}

impl Local {
    /// Takes over from the observation before this one what only a series of them tells.
    pub(super) fn remember(&mut self, before: &Self, now: Moment, beat: Duration) {
        self.observed_at = Some(now);
        if matches!(self.postgres, Postgres::Starting { .. }) {
            self.starting_since = before.starting_since.or(Some(now));
        }
        if let Postgres::Stopped(stopped) = &mut self.postgres {
            match &before.postgres {
                Postgres::Stopped(known) if stopped.ended_at.is_none() => {
                    stopped.ended_at = known.ended_at;
                    stopped.flushed = stopped.flushed.max(known.flushed);
                }
                Postgres::Primary(Primary { flushed, .. }) | Postgres::Standby(Standby { flushed, .. }) => {
                    stopped.ended_at = stopped.ended_at.or(Some(now));
                    stopped.flushed = stopped.flushed.max(*flushed);
                }
                Postgres::Starting { .. } => stopped.ended_at = stopped.ended_at.or(Some(now)),
                _ => {}
            }
        }
        let Postgres::Primary(primary) = &self.postgres else { return };
        if matches!(before.postgres, Postgres::Primary(_)) {
            self.progress = before.progress.clone();
            self.primary_since = before.primary_since;
        } else {
            self.progress.clear();
            self.primary_since = Some(now);
        }
        if primary.closed {
            let known = before.postgres.as_primary().filter(|p| p.closed).and(before.closed_at);
            self.closed_at = known.or(Some(primary.flushed));
        }
        for (member, sender) in &primary.senders {
            let entry = self.progress.entry(member.clone()).or_insert(Progress { flushed: Lsn(0), moved_at: now });
            if sender.streaming && sender.flushed >= primary.flushed {
                entry.moved_at = now;
            } else if sender.streaming && sender.flushed > entry.flushed {
                // It may have stopped right after the observation before: commits hang since then, not since now.
                entry.moved_at = entry.moved_at.max(before.observed_at.unwrap_or(now)).max(now - beat);
            }
            entry.flushed = sender.flushed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_setting() {
        let both: BTreeSet<Member> = ["n2:0000000a", "n3:0000000b"].iter().map(|m| m.parse().unwrap()).collect();
        for names in [
            Names::none(),
            Names { members: both.clone(), count: 1 },
            Names { members: both, count: 2 },
            Names { members: BTreeSet::new(), count: 1 },
        ] {
            assert_eq!(Names::from_setting(&names.to_setting()), Some(names.clone()));
            if !names.members.is_empty() {
                assert_eq!(Names::from_setting(&names.in_order()), Some(names));
            }
        }
        assert_eq!(Names::from_setting("ANY 1 (\"n2:0000000a\")").unwrap().count, 1);
        assert_eq!(Names::from_setting("*"), None);
        assert_eq!(Names::from_setting("FIRST 1 (a)"), None);
    }

    /// A primary at 2000 that sees its standby at this position.
    fn sees(flushed: u64) -> Local {
        let sender = Sender { streaming: true, flushed: Lsn(flushed), replayed: Lsn(flushed), replay_lag_ms: None };
        let postgres = Postgres::Primary(Primary {
            timeline: TimelineId(1),
            flushed: Lsn(2000),
            history: History::new(TimelineId(1)),
            names: Names::none(),
            names_settled: true,
            closed: false,
            senders: [("n2:0000000a".parse().unwrap(), sender)].into(),
            slots: BTreeSet::new(),
        });
        Local { postgres, ..Local::default() }
    }

    #[test]
    fn a_standby_that_stops_counts_as_silent_from_no_later_than_it_did() {
        let at = |millis| Moment(Duration::from_millis(millis));
        let beat = Duration::from_millis(200);
        let mut local = Local::default();
        let mut observe = |millis, flushed| {
            let mut next = sees(flushed);
            next.remember(&local, at(millis), beat);
            local = next;
            local.progress.values().next().unwrap().moved_at
        };
        assert_eq!(observe(1000, 2000), at(1000), "it lacks nothing");
        // It has moved at some time since the observation before.
        assert_eq!(observe(1150, 1900), at(1000));
        assert_eq!(observe(1300, 1950), at(1150));
        // An observation that took long is no reason to drop it.
        assert_eq!(observe(2300, 1960), at(2100));
        assert_eq!(observe(2400, 1960), at(2100), "it stands still");
        assert_eq!(observe(2500, 2000), at(2500));
    }
}
