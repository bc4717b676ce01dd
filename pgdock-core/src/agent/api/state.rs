//! What the API server and the agent's loop tell each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::order::OrderRequest;
use crate::agent::backup::{BackupStatus, Backups, BackupsKept, Clerk};
use crate::backup::wal::{ArchiveStatus, Archiver};
use crate::clock::{Clock, Moment};
use crate::decide::action::Verdict;
use crate::event::EventLog;
use crate::postgres::diverged::DivergedWal;
use crate::report::{Report, State};
use crate::witness::Record;
use crate::{NodeName, Role, Term};

/// What an agent makes known. Its loop sends one into a watch channel on every change, and at least every
/// beat: what is older than two seconds counts for nothing.
#[derive(Clone, Debug)]
pub struct Published {
    /// When this was said.
    pub at: Moment,
    /// What the agent says of its node.
    pub report: Report,
    /// The newest witness document that it has seen.
    pub record: Option<Record>,
    /// When its right to be primary ends, if it has one.
    pub right_until: Option<Moment>,
    /// Where clients reach its PostgreSQL, as `host:port`.
    pub address: String,
    /// What the other nodes said last, as far as they are heard.
    pub peers: Vec<Report>,
    /// The nodes that the agent's settings name, in order.
    pub members: Vec<NodeName>,
}

impl Published {
    /// The present term, as far as is known.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.record.as_ref().map(|record| record.term)
    }

    /// Whether this node is the leader, and its PostgreSQL accepts writes.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.report.role == Role::Primary
            && self.report.state == State::Running
            && self.record.as_ref().is_some_and(|record| record.leader.as_ref() == Some(&self.report.node))
    }

    /// Whether its PostgreSQL answers queries from a copy that is kept up to date.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.report.role == Role::Standby && self.report.state == State::Streaming
    }

    /// Whether its PostgreSQL answers queries.
    #[must_use]
    pub fn answers(&self) -> bool {
        matches!(
            self.report.state,
            State::Running | State::Closed | State::Streaming | State::Following | State::Detached
        )
    }

    /// Whether each acknowledged commit is held by every member of the sync set, rather than by some.
    #[must_use]
    pub fn all_hold(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.acks as usize >= record.sync_set.len())
    }

    /// Whether acknowledged commits count on this standby, among others.
    #[must_use]
    pub fn in_sync_set(&self) -> bool {
        self.report.member().is_some_and(|me| self.record.as_ref().is_some_and(|record| record.sync_set.contains(&me)))
    }

    /// How many bytes of WAL of the leader, as far as they are known here, were not replayed yet.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        let by_record = self.record.as_ref().map(|record| record.leader_lsn);
        let by_peer = self.peers.iter().filter(|peer| peer.role == Role::Primary).map(|peer| peer.flushed);
        let head = by_peer.chain(by_record).max().unwrap_or_default();
        if self.report.role == Role::Primary { 0 } else { head.ahead_of(self.report.replayed) }
    }
}

/// What the API server works with.
#[derive(Clone, Debug)]
pub struct ApiState {
    /// What the loop makes known.
    pub published: watch::Receiver<Published>,
    /// Where orders go.
    pub orders: mpsc::Sender<PendingOrder>,
    /// What happened here.
    pub events: Arc<EventLog>,
    /// What a caller has to show who changes anything.
    pub token: SecretString,
    /// For ages and deadlines.
    pub clock: Arc<dyn Clock>,
    /// How often peers hear of this node, at least.
    pub beat: Duration,
    /// The node's own folder.
    pub home: PathBuf,
    /// The WAL that rewinds took off this node.
    pub diverged: DivergedWal,
    /// What archives its WAL, where that is done.
    pub archiver: Option<Arc<Archiver>>,
    /// What takes its base backups, where that is done.
    pub backups: Option<Arc<Backups>>,
    /// What looks after all backups, where there are any.
    pub(in crate::agent) clerk: Option<Arc<Clerk>>,
}

/// An order on its way to the loop.
#[derive(Debug)]
pub struct PendingOrder {
    /// What is wanted.
    pub request: OrderRequest,
    /// After this the caller no longer waits: an order that can be given up is.
    pub deadline: Moment,
    /// Where the loop says how it ended. Dropping it says that nobody knows.
    pub answer: oneshot::Sender<Verdict>,
}

/// What `/v1/status` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's calendar time.
    pub now: Timestamp,
    /// How long ago the agent's loop said this, in seconds.
    pub age_seconds: f64,
    /// Where clients reach its PostgreSQL, as `host:port`.
    pub address: String,
    /// How long its right to be primary still lasts, in seconds, if it has one.
    pub right_seconds: Option<f64>,
    /// What the agent says of its node.
    pub report: Report,
    /// The newest witness document that it has seen.
    pub record: Option<Record>,
    /// What the other nodes said last, as far as it hears them.
    pub peers: Vec<Report>,
    /// The nodes that the agent's settings name, in order.
    #[serde(default)]
    pub members: Vec<NodeName>,
    /// How the archiving of its WAL stands, where that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveStatus>,
    /// What it does about base backups, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// The base backups that there are; only the leader tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupsKept>,
}

impl NodeStatus {
    pub(super) fn of(state: &ApiState) -> Self {
        let (published, clock) = (state.published.borrow(), &*state.clock);
        let now = clock.now();
        Self {
            now: clock.wall(),
            age_seconds: now.since(published.at).as_secs_f64(),
            address: published.address.clone(),
            right_seconds: published.right_until.map(|until| until.since(now).as_secs_f64()),
            report: published.report.clone(),
            record: published.record.clone(),
            peers: published.peers.clone(),
            members: published.members.clone(),
            archive: state.archiver.as_ref().map(|archiver| archiver.status()),
            backup: state.backups.as_ref().map(|backups| backups.status()),
            backups: state.clerk.as_ref().and_then(|clerk| clerk.kept()),
        }
    }
}
