//! [`Clerk`]: what the leader's agent knows of the backups that there are, and has done by schedule.
//!
//! Every agent runs one, and it does nothing but on the leader. So there is one at a time as a rule; where there are two for a moment,
//! the document gives the turn to one backup.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Backups;
use crate::agent::api::Published;
use crate::agent::client::AgentClient;
use crate::backup::catalog::Catalog;
use crate::backup::schedule::{Due, Plan, Run};
use crate::backup::verify::Level;
use crate::backup::{Label, Repository, expire, retention};
use crate::clock::{Clock, Moment};
use crate::report::{Report, State};
use crate::{NodeName, Result, Role, Settings};

/// How often the archive is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long to wait after a new leader was seen, or a look that failed.
const SOON: Duration = Duration::from_secs(2);
/// A backup that is due for so long, and does not come to be, is somebody's concern.
const OVERDUE: Duration = Duration::from_secs(6 * 3600);

/// The backups that there are, as the leader knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupsKept {
    /// How many.
    pub count: u64,
    /// The newest one.
    pub newest: Option<Label>,
    /// When the newest one had ended.
    pub newest_at: Option<Timestamp>,
    /// When one was last seen to restore.
    pub verified_at: Option<Timestamp>,
    /// When the next one is due, where there is a schedule.
    pub next_at: Option<Timestamp>,
}

/// Looks after backups while its node leads.
#[derive(Debug)]
pub(crate) struct Clerk {
    pub(super) settings: Arc<Settings>,
    pub(super) published: watch::Receiver<Published>,
    pub(super) peers: BTreeMap<NodeName, AgentClient>,
    pub(super) own: Arc<Backups>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) known: Mutex<Known>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    kept: Option<BackupsKept>,
    /// Since when a backup is due.
    due_since: Option<Moment>,
    /// The backup after which was deleted what no rule keeps.
    tidied: Option<Label>,
    /// Why the archive cannot be looked at, or a backup that is due not be begun.
    failing: Option<String>,
}

impl Clerk {
    /// Works until it is told to end.
    pub(crate) async fn run(&self, end: CancellationToken) {
        loop {
            let leads = self.published.borrow().leads();
            let done = if leads { self.look().await } else { Ok(()) };
            let pause = if leads && done.is_ok() { LOOK_EVERY } else { SOON };
            {
                let mut known = self.known();
                if !leads {
                    *known = Known::default();
                }
                known.failing = done.err().map(|error| error.chain());
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = turn_over(self.published.clone()) => {}
            }
        }
    }

    /// The backups that there are; nothing where this node does not lead.
    pub(crate) fn kept(&self) -> Option<BackupsKept> {
        self.known().kept.clone()
    }

    /// What a person should know.
    pub(crate) fn problem(&self) -> Option<String> {
        let known = self.known();
        let since = known.due_since.filter(|since| self.clock.now().since(*since) >= OVERDUE)?;
        let why = known.failing.clone().unwrap_or_else(|| "`pgdock events` tells what became of it".to_owned());
        let hours = self.clock.now().since(since).as_secs() / 3600;
        Some(format!("a backup is due and does not come to be. hours={hours}, why={why}"))
    }

    async fn look(&self) -> Result<()> {
        let repository = Repository::open(&self.settings).await?;
        let catalog = Catalog::load(&*repository.sink, &repository.codec).await?;
        let due = self.due(&catalog);
        let newest = catalog.backups.last().map(|backup| &backup.manifest);
        let kept = BackupsKept {
            count: catalog.backups.len() as u64,
            newest: newest.map(|manifest| manifest.label.clone()),
            newest_at: newest.map(|manifest| manifest.ended),
            verified_at: verified_at(&catalog),
            next_at: match due {
                Some(Due::At(at)) => Some(at),
                _ => None,
            },
        };
        let now = self.clock.now();
        {
            let mut known = self.known();
            known.kept = Some(kept);
            known.due_since = match due {
                Some(Due::Now) => Some(known.due_since.unwrap_or(now)),
                _ => None,
            };
        }
        match due {
            Some(Due::Now) => self.begin().await,
            _ => self.tidy(&repository, newest.map(|manifest| &manifest.label)).await,
        }
    }

    /// Deletes what no rule keeps, once after each new backup: where agents make them, they do not let them pile up.
    async fn tidy(&self, repository: &Repository, newest: Option<&Label>) -> Result<()> {
        let Some(backup) = self.settings.backup.as_ref().filter(|backup| backup.schedule.is_some()) else {
            return Ok(());
        };
        if newest.is_none() || self.known().tidied.as_ref() == newest {
            return Ok(());
        }
        let claimed = self.published.borrow().record.as_ref().and_then(|record| record.backup.clone());
        let stock = expire::stock(repository, claimed.map(|claim| claim.label)).await?;
        let now = self.clock.wall();
        let deleted = expire::expire(&*repository.sink, &retention::plan(&stock, &backup.keep, now), now).await?;
        if deleted.objects > 0 {
            let (backups, wal) = (deleted.backups, deleted.wal_files);
            tracing::info!(backups, wal, bytes = deleted.bytes, "deleted what no rule keeps");
        }
        self.known().tidied = newest.cloned();
        Ok(())
    }

    /// Whether a backup is due by the schedule; nothing where there is none, or one is under way.
    fn due(&self, catalog: &Catalog) -> Option<Due> {
        let backup = self.settings.backup.as_ref()?;
        let schedule = backup.schedule.as_ref()?;
        if self.published.borrow().record.as_ref().is_some_and(|record| record.backup.is_some()) {
            return None;
        }
        let plan = Plan { schedule, jitter: backup.jitter, name: &self.settings.cluster.name };
        let good = catalog.backups.iter().map(|backup| Run { begun: backup.manifest.label.begins(), good: true });
        let bad = catalog.unfinished.iter().map(|label| Run { begun: label.begins(), good: false });
        Some(plan.due(good.chain(bad), self.clock.wall()))
    }

    /// Has the best node take one.
    async fn begin(&self) -> Result<()> {
        let said = self.published.borrow().clone();
        let node = best(&said.report, &said.peers);
        let begun = match self.peers.get(&node) {
            Some(peer) => peer.begin_backup().await?,
            None => self.own.begin()?,
        };
        tracing::info!(%node, label = %begun, "a backup is due");
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a backup that is being made has ended, however.
async fn turn_over(mut published: watch::Receiver<Published>) {
    let under_way = |published: &Published| published.record.as_ref().is_some_and(|record| record.backup.is_some());
    let seen = async {
        published.wait_for(under_way).await.ok()?;
        published.wait_for(|published| !under_way(published)).await.ok().map(drop)
    };
    if seen.await.is_none() {
        // Nobody publishes any more.
        std::future::pending().await
    }
}

/// When a backup was last restored and looked at, and found to be good.
fn verified_at(catalog: &Catalog) -> Option<Timestamp> {
    let reports = catalog.backups.iter().filter_map(|backup| backup.verified.as_ref());
    reports.filter(|report| report.good() && report.level == Level::Boot).map(|report| report.at).max()
}

/// The node that a backup costs least: a standby that streams, the one that is furthest; else the leader.
pub(crate) fn best(leader: &Report, others: &[Report]) -> NodeName {
    let streams = |report: &&Report| report.role == Role::Standby && report.state == State::Streaming;
    let standby = others.iter().filter(streams).max_by(|a, b| (a.replayed, &b.node).cmp(&(b.replayed, &a.node)));
    standby.map_or_else(|| leader.node.clone(), |report| report.node.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;
    use crate::agent::api::tests::report;

    #[test]
    fn a_standby_that_streams_is_spared_the_leader() {
        let leader = report("n1", Role::Primary);
        let (behind, mut ahead) = (report("n2", Role::Standby), report("n3", Role::Standby));
        ahead.replayed = Lsn(ahead.replayed.0 + 1);
        assert_eq!(best(&leader, &[behind.clone(), ahead.clone()]), ahead.node);
        ahead.state = State::Following;
        assert_eq!(best(&leader, &[behind.clone(), ahead.clone()]), behind.node);
        assert_eq!(best(&leader, &[ahead]), leader.node);
        assert_eq!(best(&leader, &[]), leader.node);
    }
}
