//! What an agent sees of its PostgreSQL, and what it tells the others.

use std::collections::BTreeMap;
use std::time::Duration;

use pgdock_core::clock::Moment;
use pgdock_core::report::{Downstream, Report, State};
use pgdock_core::view::{Local, Postgres, Primary, Sender, Standby, Stopped};
use pgdock_core::witness::Version;

use super::postgres::Run;
use super::world::World;

impl World {
    /// What the agent sees.
    pub(super) fn observe(&mut self, node: usize) -> Local {
        let n = &mut self.nodes[node];
        let Some(data) = &n.pg.data else {
            return Local { postgres: Postgres::Empty, ..Local::default() };
        };
        let Some(agent) = &mut n.agent else { return Local::default() };
        if n.pg.runs() {
            agent.watched = Some((n.pg.number, data.end()));
        }
        let at = |clock| Moment(Duration::from_micros(clock));
        let end = data.end();
        let postgres = match &n.pg.run {
            Run::Stopped => {
                // The end of a server has the number after the server's own.
                let watched = agent.watched.filter(|(number, _)| *number + 1 == n.pg.number);
                Postgres::Stopped(Stopped {
                    clean: data.clean,
                    was_primary: data.was_primary,
                    timeline: data.history.timeline,
                    checkpoint: data.checkpoint,
                    flushed: watched.map_or(data.checkpoint, |(_, flushed)| flushed.max(data.checkpoint)),
                    ended_at: watched.map(|_| at(n.pg.ended_at)),
                })
            }
            Run::Starting { primary } => Postgres::Starting { primary: *primary },
            Run::Standby(s) => Postgres::Standby(Standby {
                timeline: data.history.timeline,
                flushed: end,
                replayed: end,
                end_known: s.end_known,
                upstream: data.upstream.map(super::Scenario::name),
                detached: data.upstream.is_none() && s.receiver.is_none(),
                receiving: s.receiver.is_some(),
                heard_at: s.heard_at.map(at),
            }),
            Run::Primary(p) => {
                let mut settled = p.names == data.names;
                let mut senders = BTreeMap::new();
                for s in p.senders.iter().map(|i| &self.streams[*i]) {
                    settled &= s.names == data.names;
                    let sender =
                        Sender { streaming: s.streaming, flushed: s.flushed, replayed: s.flushed, replay_lag_ms: None };
                    senders.insert(s.member.clone(), sender);
                }
                Postgres::Primary(Primary {
                    timeline: data.history.timeline,
                    flushed: end,
                    history: data.history.clone(),
                    names: data.names.clone(),
                    names_settled: settled,
                    closed: p.closed,
                    senders,
                    slots: data.slots.clone(),
                })
            }
        };
        Local {
            system_identifier: Some(1),
            incarnation: Some(data.incarnation),
            postgres,
            start_failures: agent.start_failures,
            // All WAL is kept: what counts is that they are there.
            slots: data.slots.iter().map(|slot| (slot.clone(), end)).collect(),
            ..Local::default()
        }
    }

    /// What the agent tells.
    pub(super) fn report(&self, node: usize, campaign: Option<Version>) -> Report {
        let n = &self.nodes[node];
        let view = &n.agent.as_ref().expect("only an agent tells").view;
        let seen = view.witness.seen.as_ref();
        let mut report = Report {
            node: n.name.clone(),
            cluster: view.policy.cluster.clone(),
            system_identifier: view.local.system_identifier,
            incarnation: view.local.incarnation,
            role: view.local.postgres.role(),
            state: State::Unknown,
            timeline: n.pg.data.as_ref().map_or_else(Default::default, |d| d.history.timeline),
            flushed: n.pg.data.as_ref().map_or_else(Default::default, super::postgres::Data::end),
            replayed: pgdock_core::Lsn(0),
            upstream: None,
            history: None,
            standbys: Vec::new(),
            witness: seen.map(|s| (s.record.heartbeat, s.record.term)),
            witness_reachable: view.witness.reachable(),
            campaign,
            pledge: n.durable.pledge.clone().filter(|p| seen.is_some_and(|s| s.version == p.version)),
            disk_low: false,
            bundle: None,
            aid: Default::default(),
            problems: Vec::new(),
        };
        match &view.local.postgres {
            Postgres::Standby(s) => {
                report.flushed = s.flushed;
                report.replayed = s.replayed;
                report.timeline = s.timeline;
                report.upstream = s.upstream.clone();
                report.state = match (s.receiving, s.detached) {
                    (true, _) => State::Streaming,
                    (_, true) => State::Detached,
                    _ => State::Following,
                };
            }
            Postgres::Primary(p) => {
                report.state = State::Running;
                report.flushed = p.flushed;
                report.replayed = p.flushed;
                report.timeline = p.timeline;
                report.history = Some(p.history.clone());
                report.standbys = p
                    .senders
                    .iter()
                    .map(|(member, s)| Downstream {
                        member: member.clone(),
                        streaming: s.streaming,
                        flushed: s.flushed,
                        replayed: s.replayed,
                        replay_lag_ms: None,
                    })
                    .collect();
            }
            Postgres::Stopped(_) => report.state = State::Stopped,
            Postgres::Starting { .. } => report.state = State::Starting,
            Postgres::Empty => report.state = State::Empty,
            _ => {}
        }
        report
    }
}
