//! The nodes of a router, and what is known of them: written by polls, agents and failures, read by every statement.
//!
//! Each change makes a new [`View`], whole and immutable; a statement looks at one, and never waits for a change.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_postgres::Config;

use super::connection::Pool;
use super::stats::NodeStats;
use super::topology::{NodeState, Progress, Reign, Role, Topology};
use crate::clock::{self, Clock};
use crate::{Balancer, BanPolicy, Blacklist, CommitToken, Strategy};

/// A node: how to reach it. What it is stands in a [`View`].
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: Config,
    pub(super) weight: u32,
    pub(super) zone: Option<String>,
    pub(super) pool: Pool,
    /// A call to ask it for its role at once.
    pub(super) asked: Notify,
    pub(super) stats: NodeStats,
}

impl Node {
    /// Closes what is idle, and what is lent out when it comes back.
    pub(super) fn evict(&self) {
        self.pool.manager().epoch.fetch_add(1, Ordering::Relaxed);
        self.pool.retain(|_, _| false);
    }

    /// Connections in use, and callers that wait for one.
    pub(super) fn in_flight(&self) -> u32 {
        let status = self.pool.status();
        u32::try_from(status.size.saturating_sub(status.available) + status.waiting).unwrap_or(u32::MAX)
    }
}

/// Up to where a node had replayed when it answered a question.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replayed {
    pub(super) lsn: u64,
    pub(super) question: u64,
}

/// What all statements see.
pub(super) struct View {
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) topology: Topology,
    pub(super) primary: Option<usize>,
    /// Whether a node may answer reads: a standby that is not banned, and not too far behind.
    fit: Vec<bool>,
    replayed: Vec<Replayed>,
    balancer: Arc<Mutex<Balancer>>,
}

impl View {
    pub(super) fn primary(&self) -> Option<&Arc<Node>> {
        self.primary.map(|primary| &self.nodes[primary])
    }

    /// Whether a node told that it has replayed something, and in answer to which question.
    pub(super) fn replayed(&self, node: usize, token: &CommitToken) -> Option<u64> {
        let Replayed { lsn, question } = self.replayed[node];
        (self.topology.nodes[node].timeline == Some(token.timeline) && lsn >= token.lsn).then_some(question)
    }

    /// The node whose turn it is to read, of those that fit and are asked for; of the reader's zone, if one of it does.
    pub(super) fn pick(&self, zone: Option<&str>, asked_for: impl Fn(usize) -> bool) -> Option<usize> {
        let usable = |node: usize| self.fit[node] && asked_for(node);
        let near = |node: usize| zone.is_some() && self.nodes[node].zone.as_deref() == zone;
        let local = (0..self.nodes.len()).any(|node| near(node) && usable(node));
        let mut balancer = self.balancer.lock().unwrap_or_else(PoisonError::into_inner);
        balancer.pick(|node| usable(node) && (!local || near(node)), |node| self.nodes[node].in_flight())
    }

    /// When every standby is banned, the one whose ban is the oldest.
    pub(super) fn last_resort(&self, fleet: &Fleet, asked_for: impl Fn(usize) -> bool) -> Option<usize> {
        let entries = fleet.entries();
        let since = |node: usize| {
            let entry = entries.list.iter().find(|entry| Arc::ptr_eq(&entry.node, &self.nodes[node]))?;
            entry.ban.ban(0).map(|ban| ban.since)
        };
        let banned = (0..self.nodes.len()).filter(|node| asked_for(*node) && Some(*node) != self.primary);
        banned.filter_map(|node| Some((since(node)?, node))).min().map(|(_, node)| node)
    }
}

/// What a node said of itself when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) role: Role,
    pub(super) timeline: Option<u32>,
    pub(super) lsn: u64,
    pub(super) system: u64,
    /// The number of the question, by which connections know whether they are older.
    pub(super) question: u64,
    /// When its server was started, by its own clock, to the microsecond: who says the same is the same server.
    pub(super) started: i64,
}

/// What its agent says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) role: Role,
    pub(super) timeline: u32,
    pub(super) term: Option<u64>,
    pub(super) lsn: u64,
}

struct Entry {
    node: Arc<Node>,
    polled: Role,
    word: Option<Word>,
    timeline: Option<u32>,
    lsn: Option<u64>,
    replayed: Replayed,
    lag: Option<(u64, Duration)>,
    started: Option<i64>,
    ban: Blacklist,
    poll: Option<AbortHandle>,
}

impl Entry {
    /// What the node is, by all that is said of it. Its agent knows better who leads; whether it can be reached, only
    /// the node itself can show.
    fn role(&self) -> Role {
        match (&self.word, self.polled) {
            (Some(Word { role: role @ Role::Primary { .. }, .. }), _) => *role,
            // On its way out, or not sure yet that it leads.
            (Some(_), Role::Primary { .. }) => Role::Unknown,
            (_, polled) => polled,
        }
    }
}

#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    progress: Progress,
    reign: Option<Reign>,
    system: Option<u64>,
}

/// How far behind a standby may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LagMax {
    pub(super) time: Option<Duration>,
    pub(super) bytes: Option<u64>,
}

impl LagMax {
    /// By either measure it is enough to be near: of an idle primary, nothing is late, and of a busy one, much is.
    fn allows(self, state: &NodeState) -> bool {
        let within = |limit: Option<bool>| limit.unwrap_or(false);
        match (self.time, self.bytes) {
            (None, None) => true,
            (time, bytes) => {
                // Without a primary to compare with, nobody knows, and reads go on.
                (state.lag.is_none() && state.lag_bytes.is_none())
                    || within(time.zip(state.lag).map(|(limit, lag)| lag <= limit))
                    || within(bytes.zip(state.lag_bytes).map(|(limit, lag)| lag <= limit))
            }
        }
    }
}

pub(super) struct Fleet {
    inner: Mutex<Entries>,
    view: ArcSwap<View>,
    watch: watch::Sender<Arc<Topology>>,
    strategy: Strategy,
    lag_max: LagMax,
    /// Whether the primary takes its turn among the standbys.
    primary_reads: bool,
    clock: Clock,
}

impl Fleet {
    pub(super) fn new(strategy: Strategy, lag_max: LagMax, primary_reads: bool) -> Self {
        let view = View {
            nodes: Vec::new(),
            topology: Topology::default(),
            primary: None,
            fit: Vec::new(),
            replayed: Vec::new(),
            balancer: Arc::new(Mutex::new(Balancer::new(strategy, &[]))),
        };
        Self {
            inner: Mutex::default(),
            view: ArcSwap::from_pointee(view),
            watch: watch::Sender::default(),
            strategy,
            lag_max,
            primary_reads,
            clock: Clock::start(),
        }
    }

    pub(super) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Topology>> {
        self.watch.subscribe()
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nodes in. `poll` starts to ask one for its role.
    pub(super) fn add(&self, node: Arc<Node>, ban: BanPolicy, poll: impl FnOnce(Arc<Node>) -> AbortHandle) {
        let mut entries = self.entries();
        if entries.list.iter().any(|entry| entry.node.name == node.name) {
            return;
        }
        let poll = Some(poll(node.clone()));
        let (ban, polled) = (Blacklist::new([ban]), Role::Unknown);
        entries.list.push(Entry {
            node,
            polled,
            word: None,
            timeline: None,
            lsn: None,
            replayed: Replayed::default(),
            lag: None,
            started: None,
            ban,
            poll,
        });
        self.publish(&mut entries, true);
    }

    /// Lets go of all nodes but these. What runs there may end.
    pub(super) fn retain(&self, names: &BTreeSet<&str>) {
        let mut entries = self.entries();
        let before = entries.list.len();
        entries.list.retain_mut(|entry| {
            let stays = names.contains(entry.node.name.as_str());
            if !stays {
                entry.node.pool.close();
                entry.poll.take().inspect(AbortHandle::abort);
            }
            stays
        });
        if entries.list.len() != before {
            self.publish(&mut entries, true);
        }
    }

    /// Ends the polls, and closes all pools.
    pub(super) fn close(&self) {
        self.retain(&BTreeSet::new());
    }

    fn change(&self, node: &Arc<Node>, change: impl FnOnce(&mut Entry, &mut Progress)) {
        let mut entries = self.entries();
        let Entries { list, progress, .. } = &mut *entries;
        // It may have been let go meanwhile.
        if let Some(entry) = list.iter_mut().find(|entry| Arc::ptr_eq(&entry.node, node)) {
            let before = entry.role();
            change(entry, progress);
            let now = entry.role();
            if before != now {
                tracing::info!(node = %node.name, ?before, ?now, "role changed");
                // The connections of a standby that was promoted are as good as before. Any other change may leave
                // some to a server that is gone, or that was a primary.
                let promoted = before == Role::Standby && matches!(now, Role::Primary { .. });
                if before != Role::Unknown && !promoted {
                    node.evict();
                }
            }
            self.publish(&mut entries, false);
            if matches!(before, Role::Primary { .. }) && !matches!(now, Role::Primary { .. }) {
                // Somebody else may be the primary already, or soon.
                entries.list.iter().for_each(|entry| entry.node.asked.notify_one());
            }
        }
    }

    /// Notes what a node said of itself. An answer of another cluster is none: `false`.
    pub(super) fn answered(&self, node: &Arc<Node>, asked: Duration, answer: Answer) -> bool {
        let system = *self.entries().system.get_or_insert(answer.system);
        if system != answer.system {
            self.failed(node, &format!("it belongs to another cluster. system={}, expected={system}", answer.system));
            return false;
        }
        if let Some(other) = self.same_server(node, answer.started) {
            // Two that claim the same reign would make each other nobody.
            self.failed(node, &format!("it is the same server as another node. node={other}"));
            return false;
        }
        let now = self.now();
        self.change(node, |entry, progress| {
            entry.started = Some(answer.started);
            match answer.role {
                Role::Primary { .. } if progress.is_of(&node.name) => progress.note(now, answer.lsn),
                Role::Standby => entry.lag = progress.lag(asked, answer.lsn),
                _ => {}
            }
            entry.polled = answer.role;
            (entry.timeline, entry.lsn) = (answer.timeline, Some(answer.lsn));
            entry.replayed = Replayed { lsn: answer.lsn, question: answer.question };
            // An answer to a question that was asked while the ban lasted ends nothing.
            if entry.ban.ban(0).is_some_and(|ban| ban.until <= asked) && entry.ban.worked(0) {
                tracing::info!(node = %node.name, "node works again");
            }
        });
        true
    }

    /// The node before this one that is the same server under another name.
    fn same_server(&self, node: &Arc<Node>, started: i64) -> Option<String> {
        let entries = self.entries();
        let before = entries.list.iter().take_while(|entry| !Arc::ptr_eq(&entry.node, node));
        let mut same = before.filter(|entry| entry.started == Some(started) && entry.polled != Role::Unknown);
        same.next().map(|entry| entry.node.name.clone())
    }

    /// Notes that a node did not answer the question for its role.
    pub(super) fn failed(&self, node: &Arc<Node>, error: &str) {
        let now = self.now();
        self.change(node, |entry, _| {
            if !entry.ban.begin_probe(0, now) && entry.ban.is_usable(0) {
                tracing::warn!(node = %node.name, error, "node does not answer");
            }
            entry.ban.failed(0, now, clock::chance(), error);
            (entry.polled, entry.word) = (Role::Unknown, None);
        });
    }

    /// Leaves a node alone for a while, since a statement met an error that is the node's.
    pub(super) fn ban(&self, node: &Arc<Node>, error: &str) {
        let now = self.now();
        node.stats.bans.increment();
        self.change(node, |entry, _| entry.ban.failed(0, now, clock::chance(), error));
        node.asked.notify_one();
    }

    /// A node is not what it was thought to be: ask all.
    pub(super) fn forget(&self, node: &Arc<Node>) {
        self.change(node, |entry, _| (entry.polled, entry.word) = (Role::Unknown, None));
        self.view().nodes.iter().for_each(|node| node.asked.notify_one());
    }

    /// A connection to a node says that its server is, or is not, in recovery.
    pub(super) fn heard(&self, name: &str, hot_standby: bool) {
        let Some((node, role)) = self.find(name) else { return };
        match (role, hot_standby) {
            (Role::Standby, true) | (Role::Primary { .. }, false) => {}
            // It is a standby now, whatever it was.
            (Role::Primary { .. }, true) => self.forget(&node),
            // It may be the new primary: ask it on which timeline.
            _ => node.asked.notify_one(),
        }
    }

    #[cfg(feature = "agents")]
    /// Notes what the agent of a node says, or that it says nothing any more.
    pub(super) fn told(&self, name: &str, word: Option<Word>) {
        let Some((node, _)) = self.find(name) else { return };
        let mut ask = false;
        self.change(&node, |entry, _| {
            let role = |word: Option<Word>| word.map(|word| word.role);
            ask = role(entry.word) != role(word);
            entry.word = word;
            if let Some(word) = word {
                (entry.timeline, entry.lsn) = (Some(word.timeline), Some(word.lsn).max(entry.lsn));
            }
        });
        if ask {
            node.asked.notify_one();
        }
    }

    fn find(&self, name: &str) -> Option<(Arc<Node>, Role)> {
        let entries = self.entries();
        let entry = entries.list.iter().find(|entry| entry.node.name == name)?;
        Some((entry.node.clone(), entry.role()))
    }

    /// The system identifier of the cluster, once a node told it.
    pub(super) fn system(&self) -> Option<u64> {
        self.entries().system
    }

    /// Makes a new view of what is known.
    fn publish(&self, entries: &mut Entries, members_changed: bool) {
        let states = entries.list.iter().map(|entry| NodeState {
            name: entry.node.name.clone(),
            role: entry.role(),
            term: entry.word.and_then(|word| word.term),
            timeline: match entry.role() {
                Role::Primary { timeline } => Some(timeline),
                _ => entry.timeline,
            },
            lsn: entry.lsn,
            lag_bytes: entry.lag.map(|(bytes, _)| bytes),
            lag: entry.lag.map(|(_, time)| time),
            banned: entry.ban.ban(0).map(|ban| ban.error.clone()),
            zone: entry.node.zone.clone(),
        });
        let mut topology = Topology { nodes: states.collect(), reign: entries.reign };
        let primary = topology.primary_index();
        if let Some(primary) = primary {
            let state = &topology.nodes[primary];
            if !entries.progress.is_of(&state.name) {
                entries.progress = Progress::of(&state.name);
                entries.list.iter_mut().for_each(|entry| entry.lag = None);
            }
            entries.reign = topology.reign_of(primary);
            topology.reign = entries.reign;
        }
        let fit = |(node, state): (usize, &NodeState)| match state.role {
            Role::Standby => state.banned.is_none() && self.lag_max.allows(state),
            _ => self.primary_reads && primary == Some(node),
        };
        let balancer = match members_changed {
            true => {
                let weights: Vec<u32> = entries.list.iter().map(|entry| entry.node.weight).collect();
                Arc::new(Mutex::new(Balancer::new(self.strategy, &weights)))
            }
            false => self.view.load().balancer.clone(),
        };
        let view = View {
            nodes: entries.list.iter().map(|entry| entry.node.clone()).collect(),
            fit: topology.nodes.iter().enumerate().map(fit).collect(),
            replayed: entries.list.iter().map(|entry| entry.replayed).collect(),
            topology: topology.clone(),
            primary,
            balancer,
        };
        self.view.store(Arc::new(view));
        self.watch.send_if_modified(|seen| {
            let changed = !seen.is_like(&topology);
            *seen = Arc::new(topology);
            changed
        });
    }
}

#[cfg(test)]
mod tests;
