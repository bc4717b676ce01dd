//! The agents' minds: production's [`View`] and [`decide`], put together from a state and taken apart again.
//!
//! Of time nothing is kept but the order of a few moments: whether the document was read after a swap was
//! sent, and whether that was sent after PostgreSQL was seen to end. All else that rests on clocks, such as
//! who is silent for how long and whether it is time to renew, is a *fact* that anybody may find at any
//! moment: [`Mind::decisions`] tries all of them. So the world is checked for all speeds of all clocks.

use std::sync::Arc;
use std::time::Duration;

use pgdock_core::NodeName;
use pgdock_core::decide::rules::Rules;
use pgdock_core::decide::{Action, decide};
use pgdock_core::node::{Incarnation, Member};
use pgdock_core::view::{MemberPolicy, Order as CoreOrder, Policy, View};
use pgdock_core::witness::record::Durability;

use super::Bounds;
use super::state::{Agent, Doc, Job, LIVES, NOBODY, NODES, Node, NodeId, Order, Report, Run, name};
use super::told::Decided;
use crate::known::Known;

mod hearing;
mod view;
mod words;

pub(super) use hearing::Heard;
use hearing::Hearing;
use view::STEP;
use words::{position, version};

/// What an agent finds where clocks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    /// How each peer appears.
    pub peers: [Appears; NODES],
    /// Whatever is waited for has been waited for long enough.
    pub waited: bool,
    /// It is time to renew.
    pub due: bool,
}

/// How a peer appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Appears {
    /// It was heard just now.
    Fresh,
    /// What was heard last is an old report.
    Late,
    /// It is silent, for long enough to be suspected.
    Gone,
    /// And, as a standby, confirms nothing any more.
    Stuck,
}

/// One thing that an agent may decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decision {
    /// What begins.
    pub decided: Decided,
    /// The order after it, if it changes.
    pub order: Option<Option<Order>>,
}

/// All that an agent may decide where it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    /// Each that changes something.
    pub all: Vec<Decision>,
    /// It may read the document.
    pub reads: bool,
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Situation {
    node: NodeId,
    here: Node,
    reports: [Option<Report>; NODES],
    late: Option<(NodeId, Report)>,
}

/// How agents think.
#[derive(Debug)]
pub(super) struct Mind {
    nodes: usize,
    policy: Policy,
    members: Vec<Member>,
    names: Vec<NodeName>,
    decisions: Known<Situation, Arc<Decisions>>,
    single: Known<(Situation, Facts), (Decision, bool)>,
    hearings: Known<Hearing, Agent>,
}

impl Mind {
    /// The agents of a world, under some rules.
    #[must_use]
    pub(super) fn new(bounds: &Bounds, rules: Rules) -> Self {
        let Bounds { nodes, durability, acks, strict, .. } = *bounds;
        let names: Vec<_> = (0..3).map(|n| NodeName::new(name(n)).expect("a letter and a digit")).collect();
        let member = |(i, node): (usize, &NodeName)| {
            let life = move |life| u32::try_from(i).unwrap_or(0) * 16 + u32::from(life);
            let node = node.clone();
            (0..LIVES).map(move |l| Member { node: node.clone(), incarnation: Incarnation(life(l)) })
        };
        let members = names.iter().enumerate().flat_map(member).collect();
        let policy = Policy {
            cluster: "model".into(),
            durability,
            acks,
            strict,
            heartbeat: Duration::ZERO,
            ttl: STEP / 2,
            margin: STEP / 10,
            silent_after: STEP,
            suspect_after: STEP * 2,
            // In `async`, more than there is: only the end of the WAL that is served keeps commits.
            lag_bytes_max: if durability == Durability::Async { 100 } else { 0 },
            members: names[..nodes]
                .iter()
                .map(|n| (n.clone(), MemberPolicy { priority: 100, failover: true, address: String::new() }))
                .collect(),
            rejoin_budget: STEP,
            disk_free_min: 0,
            archive: false,
            failover_ip: false,
            rules,
        };
        Self { nodes, policy, members, names, decisions: Known::new(), single: Known::new(), hearings: Known::new() }
    }

    /// All that an agent may decide, whatever it finds where clocks are asked.
    pub(super) fn decisions(
        &self,
        node: NodeId,
        here: &Node,
        reports: &[Option<Report>; NODES],
        late: Option<(NodeId, Report)>,
    ) -> Arc<Decisions> {
        let situation = Situation { node, here: *here, reports: *reports, late };
        self.decisions.get(situation, |at| Arc::new(self.think(at)))
    }

    /// What an agent decides with given facts, and whether it reads the document.
    pub(super) fn decision(
        &self,
        node: NodeId,
        here: &Node,
        reports: &[Option<Report>; NODES],
        facts: &Facts,
    ) -> (Decision, bool) {
        let situation = Situation { node, here: *here, reports: *reports, late: None };
        self.single.get((situation, *facts), |(at, facts)| {
            let mut view = self.view(at.node, &at.here);
            self.finds(&mut view, at, facts, &self.reports(at));
            self.decide(at, &view, facts)
        })
    }

    /// How many pledges a takeover needs.
    pub(super) fn pledges_needed(&self, doc: &Doc) -> usize {
        self.record(doc).pledges_needed()
    }

    fn think(&self, at: &Situation) -> Decisions {
        let mut found = Decisions::default();
        let mut appear = vec![[Appears::Fresh; NODES]];
        for peer in (0..self.nodes).filter(|p| *p != usize::from(at.node)) {
            let mut ways = vec![Appears::Fresh, Appears::Gone];
            if at.here.run == Run::Primary {
                ways.push(Appears::Stuck);
            }
            if at.late.is_some_and(|(from, _)| usize::from(from) == peer) {
                ways.push(Appears::Late);
            }
            let with = |base: &[Appears; NODES]| {
                let mut all = *base;
                ways.iter()
                    .map(move |way| {
                        all[peer] = *way;
                        all
                    })
                    .collect::<Vec<_>>()
            };
            appear = appear.iter().flat_map(with).collect();
        }
        let leads = at.here.agent.seen.is_some_and(|d| d.leader == at.node);
        let mut view = self.view(at.node, &at.here);
        let reports = self.reports(at);
        // Patience is for worlds with clocks: here, in `async`, nobody has any.
        let waits: &[bool] = if self.policy.durability == Durability::Async { &[false] } else { &[false, true] };
        for waited in waits.iter().copied() {
            for due in [false, true] {
                if due && !leads {
                    continue;
                }
                for peers in &appear {
                    let facts = Facts { peers: *peers, waited, due };
                    self.finds(&mut view, at, &facts, &reports);
                    let (decision, reads) = self.decide(at, &view, &facts);
                    found.reads |= reads;
                    let same = |d: &Decision| {
                        let decided = Decided { gone: d.decided.gone, ..decision.decided };
                        d.decided == decided && d.order == decision.order
                    };
                    let idle = decision.order.is_none()
                        && decision.decided == Decided { gone: decision.decided.gone, ..Decided::default() };
                    if !idle && !found.all.iter().any(same) {
                        found.all.push(decision);
                    }
                }
            }
        }
        found
    }

    /// What an agent decides with given facts, and whether it reads the document.
    fn decide(&self, at: &Situation, view: &View, facts: &Facts) -> (Decision, bool) {
        let d = decide(view);
        let mut decided = Decided::default();
        let mut reads = false;
        for action in d.actions {
            match action {
                Action::ReadWitness => reads = true,
                Action::SwapWitness { next, .. } => decided.swap = Some(self.doc(&next)),
                Action::RelaySwap { next, .. } => decided.relay = Some(self.doc(&next)),
                Action::Fence { .. } => decided.fence = true,
                action => decided.job = self.job(action).or(decided.job),
            }
        }
        let order = match (&d.verdict, &d.order) {
            (Some(_), _) => Some(None),
            (None, Some(order)) => {
                let order = match order {
                    CoreOrder::Switchover { to: Some(to), .. } => Order::Switchover(self.node(to)),
                    CoreOrder::UndoSwitchover { .. } => Order::Undo,
                    _ => Order::Switchover(NOBODY),
                };
                (at.here.agent.order != Some(order)).then_some(Some(order))
            }
            (None, None) => None,
        };
        decided.verdict = d.verdict.is_some();
        for (peer, appears) in facts.peers.iter().enumerate() {
            if matches!(appears, Appears::Gone | Appears::Stuck) {
                decided.gone |= 1 << peer;
            }
        }
        (Decision { decided, order }, reads)
    }

    fn job(&self, action: Action) -> Option<Job> {
        Some(match action {
            Action::StartStandby { .. } => Job::StartStandby,
            Action::StartPrimary => Job::StartPrimary,
            Action::AdmitClients => Job::Admit,
            Action::Detach { pledge } => Job::Detach(pledge.map(|v| version(&v))),
            Action::Attach { upstream } => Job::Attach(self.node(&upstream)),
            Action::Promote { names, timeline } => Job::Promote(self.names(&names), position(timeline.0.into())),
            Action::SetNames(names) => Job::SetNames(self.names(&names)),
            Action::TakeBarrier { from_none } => Job::TakeBarrier(from_none),
            Action::Stop { .. } => Job::Stop,
            Action::Rewind { from, .. } => Job::Rewind(self.node(&from)),
            Action::Clone { from, .. } => Job::Clone(self.node(&from)),
            Action::TakeTail { tail } => Job::TakeTail(self.node(&tail.crash.node)),
            _ => return None,
        })
    }
}
