//! The agents' minds: production's [`View`] and [`decide`], put together from ticks and taken apart again.

use std::time::Duration;

use pgdock_core::clock::Moment;
use pgdock_core::decide::rules::Rules;
use pgdock_core::decide::{Action, decide};
use pgdock_core::node::{Incarnation, Member};
use pgdock_core::report::{Aid, Plea as CorePlea, Promise, Report, State as Running};
use pgdock_core::view::{
    Answer, Attempt as CoreAttempt, Given as CoreGiven, Had as CoreHad, Local, MemberPolicy, Names, Policy, Postgres,
    Primary, Right as CoreRight, Seen, Standby, Stopped, Task, View,
};
use pgdock_core::witness::record::Durability;
use pgdock_core::witness::{Record, Version};
use pgdock_core::{History, Lsn, NodeName, Role, Term, TimelineId};

use super::state::{ATTEMPTS, Agent, Attempt, Becoming, Doc, Given, Had, MARGIN, Node, Plea, Right, Said, TTL};
use crate::attempt::Fate;
use crate::cluster::state::{NOBODY, NodeId, Run, name};
use crate::known::Known;
use crate::record::blank;

/// The present moment, by any clock.
const NOW: Moment = Moment(Duration::from_secs(1_000_000));
/// Between two ticks.
const TICK: Duration = Duration::from_secs(1);
const SEEN_ENDING: Duration = Duration::from_nanos(75);

/// Something done to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Start as a standby.
    StartStandby,
    /// Start as a primary, on the old timeline.
    StartPrimary,
    /// Leave the upstream.
    Detach,
    /// Leave recovery, on this timeline.
    Promote(u8),
}

/// What an agent decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// PostgreSQL is killed.
    pub fence: bool,
    /// Something is done to it.
    pub job: Option<Job>,
    /// A swap is sent.
    pub swap: Option<Doc>,
    /// The deadman is armed with so many ticks.
    pub deadman: Option<u8>,
    /// What it has promised.
    pub given: Option<Given>,
    /// What it says to the other one, if that asks or promises something.
    pub says: Option<Said>,
}

/// How a request to the witness ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// A read shows the document.
    Document(Doc),
    /// The last swap landed.
    Landed,
    /// It did not.
    Conflict,
    /// Nobody knows.
    Nothing,
}

/// How agents think.
#[derive(Debug)]
pub(super) struct Mind {
    policy: Policy,
    names: Vec<NodeName>,
    decided: Known<(NodeId, Node), Decided>,
}

impl Mind {
    pub(super) fn new(rules: Rules) -> Self {
        let names: Vec<_> = (0..2).map(|n| NodeName::new(name(n)).expect("a letter and a digit")).collect();
        let policy = Policy {
            cluster: "model".into(),
            durability: Durability::Async,
            acks: 0,
            strict: false,
            heartbeat: TICK / 2,
            ttl: TICK * u32::from(TTL),
            margin: TICK * u32::from(MARGIN),
            silent_after: TICK / 2,
            suspect_after: TICK / 2,
            lag_bytes_max: 0,
            members: names
                .iter()
                .map(|n| (n.clone(), MemberPolicy { priority: 100, failover: true, address: String::new() }))
                .collect(),
            rejoin_budget: TICK * 1000,
            disk_free_min: 0,
            archive: false,
            failover_ip: false,
            rules,
        };
        Self { policy, names, decided: Known::new() }
    }

    /// What an agent decides.
    pub(super) fn decides(&self, n: NodeId, here: &Node) -> Decided {
        self.decided.get((n, *here), |(n, here)| self.think(*n, here))
    }

    fn think(&self, n: NodeId, here: &Node) -> Decided {
        let mut view = self.view(n, here);
        let d = decide(&view);
        let mut decided = Decided::default();
        view.note_aid(&d);
        decided.given = view.promise.as_ref().map(|given| {
            let left = ticks_until(given.until);
            Given { plea: plea(&given.promise.plea), left }
        });
        let aid = view.aid(&d);
        let said = Said {
            run: here.run,
            timeline: here.timeline,
            plea: aid.plea.as_ref().map(plea),
            promise: aid.promise.as_ref().map(|p| plea(&p.plea)),
        };
        decided.says = (said.plea.is_some() || said.promise.is_some()).then_some(said);
        for action in d.actions {
            match action {
                Action::SwapWitness { next, .. } => decided.swap = Some(self.doc(&next)),
                Action::Fence { .. } => decided.fence = true,
                Action::StartStandby { .. } => decided.job = Some(Job::StartStandby),
                Action::StartPrimary => decided.job = Some(Job::StartPrimary),
                Action::Detach { .. } => decided.job = Some(Job::Detach),
                Action::Promote { timeline, .. } => decided.job = Some(Job::Promote(number(timeline.0))),
                _ => {}
            }
        }
        decided.deadman = d.deadline.map(ticks_until);
        decided
    }

    /// What an agent knows after an answer of the witness. `late`: its right is counted from the answer.
    pub(super) fn hears(&self, n: NodeId, here: &Node, heard: Heard, late: bool) -> Agent {
        let agent = &here.agent;
        let mut view = self.view(n, here);
        view.witness.in_flight = agent.waiting;
        let answer = match heard {
            Heard::Document(doc) => {
                let mut record = self.record(&doc);
                let own = |a: &Attempt| a.fate == Fate::Landed && a.next.version == doc.version;
                if let Some(i) = agent.attempts.iter().position(|a| a.as_ref().is_some_and(own)) {
                    record.nonce = i.to_string();
                }
                Answer::Read(Ok(Some((record, version(doc.version)))))
            }
            Heard::Landed => {
                let last = agent.attempts.iter().flatten().next_back().expect("an answer is to a swap");
                Answer::Committed(version(last.next.version))
            }
            Heard::Conflict => Answer::Conflict,
            Heard::Nothing => Answer::Ambiguous("no answer".into()),
        };
        let before = view.right;
        view.witness_answered(answer);
        let seen = view.witness.seen.as_ref().expect("it was there before");
        let mut after = Agent {
            seen: self.doc(&seen.record),
            since: ticks(seen.since),
            attempts: [None; ATTEMPTS],
            waiting: false,
            right: None,
            ..*agent
        };
        for (slot, a) in view.witness.attempts.iter().enumerate() {
            let old = agent.attempts[a.next.nonce.parse::<usize>().expect("numbered")].expect("not made up");
            after.attempts[slot] = Some(Attempt { read_since: seen.read_at > a.sent_at, ..old });
        }
        after.right = view.right.as_ref().map(|r| {
            let (sent, left) =
                if late && before != Some(*r) { (0, TTL - MARGIN) } else { (ticks(r.sent_at), ticks_until(r.until)) };
            Right { term: number(r.term.0), sent, after_end: r.sent_at > ended_at(here), left }
        });
        after
    }

    /// What an agent knows after a report of the other one.
    pub(super) fn hears_said(&self, n: NodeId, here: &Node, said: &Said) -> Agent {
        let mut view = self.view(n, here);
        view.heard(self.report(1 - n, said));
        let had = view.peers[&self.names[usize::from(1 - n)]].promised;
        Agent {
            had: had.map(|had| Had { term: number(had.term.0), left: ticks_until(had.until) }),
            heard: Some(Said { promise: None, ..*said }),
            ..here.agent
        }
    }

    fn view(&self, n: NodeId, here: &Node) -> View {
        let agent = &here.agent;
        let mut view = View::new(self.names[usize::from(n)].clone(), self.policy.clone());
        view.now = NOW;
        view.witness.answered_at = Some(NOW);
        view.witness.in_flight = agent.waiting;
        let expected = version(agent.seen.version);
        let mut read_at = NOW - TICK * 100;
        for (i, attempt) in agent.attempts.iter().enumerate() {
            let Some(attempt) = attempt else { continue };
            let sent_at = sent_at(attempt.age, attempt.after_end) + Duration::from_nanos(if i == 0 { 0 } else { 10 });
            if attempt.read_since {
                read_at = sent_at + Duration::from_nanos(5);
            }
            let next = Record { nonce: i.to_string(), ..self.record(&attempt.next) };
            view.witness.attempts.push(CoreAttempt { expected: Some(expected.clone()), next, sent_at });
        }
        view.witness.seen = Some(Seen {
            record: self.record(&agent.seen),
            version: expected,
            since: NOW - TICK * u32::from(agent.since),
            read_at,
        });
        view.right = agent.right.map(|r| {
            let sent_at = sent_at(r.sent, r.after_end);
            CoreRight { term: Term(r.term.into()), sent_at, until: (sent_at + TICK * u32::from(r.sent + r.left)) }
        });
        view.witness.moved = true;
        let other = &self.names[usize::from(1 - n)];
        for peer in view.peers.values_mut() {
            // What was not heard just now was not heard for as long as it takes to suspect anybody.
            peer.heard_at = Some(if agent.heard.is_some() { NOW } else { NOW - TICK * 100 });
            peer.report = agent.heard.map(|said| self.report(1 - n, &said));
            peer.promised =
                agent.had.map(|had| CoreHad { term: Term(had.term.into()), until: NOW + TICK * u32::from(had.left) });
        }
        view.promise = agent.given.map(|given| CoreGiven {
            promise: Promise { to: other.clone(), plea: self.plea(&given.plea) },
            until: NOW + TICK * u32::from(given.left),
        });
        view.durable.reign = Term(here.reign.into());
        view.busy = here.becoming.map(|b| match b {
            Becoming::Promoted(_) => (Task::Promote, NOW),
            Becoming::Started => (Task::StartPrimary, NOW),
        });
        view.local = self.local(n, here);
        view
    }

    fn local(&self, n: NodeId, here: &Node) -> Local {
        let (timeline, end) = (TimelineId(here.timeline.into()), Lsn(1));
        let postgres = match here.run {
            Run::Stopped => Postgres::Stopped(Stopped {
                clean: false,
                was_primary: here.was_primary,
                timeline,
                checkpoint: Lsn(0),
                flushed: end,
                ended_at: Some(ended_at(here)),
            }),
            Run::Standby => Postgres::Standby(Standby {
                timeline,
                flushed: end,
                replayed: end,
                end_known: true,
                upstream: (!here.detached).then(|| self.names[1 - usize::from(n)].clone()),
                detached: here.detached,
                receiving: false,
                heard_at: None,
            }),
            Run::Primary => Postgres::Primary(Primary {
                timeline,
                flushed: end,
                history: History::new(timeline),
                names: Names::default(),
                names_settled: true,
                closed: false,
                senders: Default::default(),
                slots: Default::default(),
            }),
        };
        let member = Member { node: self.names[usize::from(n)].clone(), incarnation: Incarnation(n.into()) };
        Local {
            system_identifier: Some(1),
            incarnation: Some(member.incarnation),
            postgres,
            primary_since: (here.run == Run::Primary).then_some(NOW - TICK * 100),
            ..Local::default()
        }
    }

    fn report(&self, from: NodeId, said: &Said) -> Report {
        let (role, state) = match said.run {
            Run::Stopped => (Role::Unknown, Running::Stopped),
            Run::Standby => (Role::Standby, Running::Streaming),
            Run::Primary => (Role::Primary, Running::Running),
        };
        let promise =
            said.promise.map(|p| Promise { to: self.names[usize::from(1 - from)].clone(), plea: self.plea(&p) });
        Report {
            node: self.names[usize::from(from)].clone(),
            cluster: self.policy.cluster.clone(),
            system_identifier: Some(1),
            incarnation: Some(Incarnation(from.into())),
            role,
            state,
            timeline: TimelineId(said.timeline.into()),
            flushed: Lsn(1),
            replayed: Lsn(1),
            upstream: None,
            history: (said.run == Run::Primary).then(|| History::new(TimelineId(said.timeline.into()))),
            standbys: Vec::new(),
            witness: None,
            witness_reachable: true,
            campaign: None,
            pledge: None,
            aid: Aid { plea: said.plea.map(|p| self.plea(&p)), promise, ..Aid::default() },
            disk_low: false,
            bundle: None,
            problems: Vec::new(),
        }
    }

    fn plea(&self, plea: &Plea) -> CorePlea {
        CorePlea {
            term: Term(plea.term.into()),
            session: 0,
            number: NOW - TICK * u32::from(plea.age),
            lasts: self.policy.ttl,
        }
    }

    fn record(&self, doc: &Doc) -> Record {
        let name = |n: NodeId| self.names.get(usize::from(n)).cloned();
        Record {
            term: Term(doc.term.into()),
            leader: name(doc.leader),
            heartbeat: doc.version.into(),
            nonce: "another's".into(),
            ttl: self.policy.ttl,
            durability: Durability::Async,
            handoff_to: name(doc.heir),
            timeline: TimelineId(doc.timeline.into()),
            leader_lsn: Lsn(1),
            members: self.policy.members.iter().map(|(n, m)| (n.clone(), m.address.clone())).collect(),
            history: History::new(TimelineId(doc.history.into())),
            ..blank()
        }
    }

    fn doc(&self, record: &Record) -> Doc {
        let node = |name: Option<&NodeName>| {
            let at = name.and_then(|name| self.names.iter().position(|n| n == name));
            at.map_or(NOBODY, number)
        };
        Doc {
            version: number(record.heartbeat),
            term: number(record.term.0),
            leader: node(record.leader.as_ref()),
            heir: node(record.handoff_to.as_ref()),
            timeline: number(record.timeline.0),
            history: number(record.history.timeline.0),
        }
    }
}

/// What happens within one tick is told apart by nanoseconds: swaps, the end of PostgreSQL, swaps after that.
fn sent_at(age: u8, after_end: bool) -> Moment {
    NOW - TICK * u32::from(age) - Duration::from_nanos(if after_end { 50 } else { 100 })
}

fn ended_at(here: &Node) -> Moment {
    NOW - TICK * u32::from(here.ended) - SEEN_ENDING
}

fn ticks(at: Moment) -> u8 {
    number(NOW.since(at).as_secs())
}

/// Whole ticks until a moment: what has passed within a tick has not passed before the next one.
fn ticks_until(at: Moment) -> u8 {
    number(at.since(NOW).as_nanos().div_ceil(TICK.as_nanos()))
}

fn plea(plea: &CorePlea) -> Plea {
    Plea { term: number(plea.term.0), age: ticks(plea.number).min(TTL - MARGIN) }
}

fn version(version: u8) -> Version {
    Version(version.to_string())
}

fn number<N: TryInto<u8>>(n: N) -> u8 {
    n.try_into().ok().expect("bounded")
}
