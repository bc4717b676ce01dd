//! [`Feed`]: lines that many connections are sent, each written once.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::state::{ApiState, Published};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::{NodeName, Role, Term};

/// What the loop said longer ago is not repeated: a loop that hangs must fall silent to its peers.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(2);
/// How often those who watch hear of a node whose role does not change.
const WATCH_EVERY: Duration = STALE_AFTER;

/// The latest line, for any number of readers.
#[derive(Clone, Debug)]
pub(super) struct Feed(watch::Receiver<Bytes>);

impl Feed {
    /// Begins with the present line, and goes on with each new one. While there is none, it is empty.
    pub(super) fn subscribe(&self) -> watch::Receiver<Bytes> {
        self.0.clone()
    }
}

/// A line of `/v1/watch`: what a node is, whenever that changes, and every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// Who speaks.
    pub node: NodeName,
    /// The present term, as far as it knows.
    pub term: Option<Term>,
    /// What it is; `Primary` only while it leads, and its PostgreSQL accepts writes.
    pub role: Role,
    /// The timeline of its WAL.
    pub timeline: TimelineId,
    /// Where clients reach its PostgreSQL, as `host:port`.
    pub address: String,
    /// Up to where it has replayed; on a primary, up to where its WAL is on disk.
    pub lsn: Lsn,
}

impl RoleChange {
    fn of(published: &Published) -> Self {
        let report = &published.report;
        // A primary that does not lead is on its way out: nobody shall send it writes.
        let role = match report.role {
            Role::Primary if !published.leads() => Role::Unknown,
            Role::Standby if !published.answers() => Role::Unknown,
            role => role,
        };
        Self {
            node: report.node.clone(),
            term: published.term(),
            role,
            timeline: report.timeline,
            address: published.address.clone(),
            lsn: report.replayed,
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        Self { lsn: other.lsn, ..self.clone() } == *other
    }
}

/// The reports for peers: at once on every change, and every beat.
pub(super) fn reports(state: &ApiState, shutdown: CancellationToken) -> Feed {
    run(state, state.beat, |published| published.report.clone(), PartialEq::eq, shutdown)
}

/// The roles for those who watch.
pub(super) fn roles(state: &ApiState, shutdown: CancellationToken) -> Feed {
    run(state, WATCH_EVERY, RoleChange::of, RoleChange::says_the_same, shutdown)
}

fn run<T: Serialize + Send + Sync + 'static>(
    state: &ApiState,
    every: Duration,
    pick: fn(&Published) -> T,
    same: fn(&T, &T) -> bool,
    shutdown: CancellationToken,
) -> Feed {
    let (mut published, clock) = (state.published.clone(), state.clock.clone());
    let first = pick(&published.borrow_and_update());
    let (sender, receiver) = watch::channel(line(&first));
    tokio::spawn(async move {
        let mut last = first;
        let mut beat = tokio::time::interval(every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        beat.reset();
        loop {
            let regular = tokio::select! {
                () = shutdown.cancelled() => return,
                changed = published.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                _ = beat.tick() => true,
            };
            let next = {
                let published = published.borrow_and_update();
                (clock.now().since(published.at) < STALE_AFTER).then(|| pick(&published))
            };
            let Some(next) = next else {
                // Whoever connects now must not take the last line for news.
                sender.send_replace(Bytes::new());
                continue;
            };
            if regular || !same(&last, &next) {
                beat.reset();
                sender.send_replace(line(&next));
                last = next;
            }
        }
    });
    Feed(receiver)
}

fn line<T: Serialize>(value: &T) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    if !text.is_empty() {
        text.push(b'\n');
    }
    text.into()
}
