//! What a node tells of itself: its [`Report`], made from the view.

use crate::agent::api::Published;
use crate::decide::Decision;
use crate::report::{Downstream, Report, State};
use crate::view::{Postgres, Task, View};

/// What a node tells of itself now.
pub(crate) fn publish(view: &View, d: &Decision) -> Published {
    Published {
        at: view.now,
        report: report(view, d),
        record: view.witness.record().cloned(),
        right_until: if view.has_right() { view.right.map(|r| r.until) } else { None },
        peers: view.reports().cloned().collect(),
        members: view.policy.members.keys().cloned().collect(),
        address: view.policy.members.get(&view.me).map(|m| m.address.clone()).unwrap_or_default(),
    }
}

fn report(view: &View, d: &Decision) -> Report {
    let local = &view.local;
    let (timeline, flushed, replayed) = match &local.postgres {
        Postgres::Primary(p) => (p.timeline, p.flushed, p.flushed),
        Postgres::Standby(s) => (s.timeline, s.flushed, s.replayed),
        Postgres::Stopped(s) => (s.timeline, s.flushed.max(s.checkpoint), s.checkpoint),
        _ => Default::default(),
    };
    let primary = local.postgres.as_primary();
    let version = view.witness.version();
    Report {
        node: view.me.clone(),
        cluster: view.policy.cluster.clone(),
        system_identifier: local.system_identifier,
        incarnation: local.incarnation,
        role: local.postgres.role(),
        state: state(view),
        timeline,
        flushed,
        replayed,
        upstream: local.postgres.as_standby().and_then(|s| s.upstream.clone()),
        history: primary.map(|p| p.history.clone()),
        standbys: primary
            .map(|p| {
                p.senders
                    .iter()
                    .map(|(member, s)| Downstream {
                        member: member.clone(),
                        streaming: s.streaming,
                        flushed: s.flushed,
                        replayed: s.replayed,
                        replay_lag_ms: s.replay_lag_ms,
                    })
                    .collect()
            })
            .unwrap_or_default(),
        witness: view.witness.record().map(|r| (r.heartbeat, r.term)),
        witness_reachable: view.witness.reachable(),
        campaign: d.campaign.clone(),
        pledge: view.durable.pledge.clone().filter(|p| {
            Some(&p.version) == version
                && view.member().as_ref() == Some(&p.member)
                && local.postgres.as_standby().is_some_and(|s| s.detached)
        }),
        aid: view.aid(d),
        disk_low: local.disk_low,
        bundle: None,
        problems: d.problems.clone(),
    }
}

fn state(view: &View) -> State {
    match view.busy.map(|(task, _)| task) {
        Some(Task::Clone) => return State::Cloning,
        Some(Task::Rewind) => return State::Rewinding,
        Some(Task::Promote) => return State::Promoting,
        Some(Task::Stop | Task::Fence) if view.local.postgres.runs() => return State::Stopping,
        _ => {}
    }
    match &view.local.postgres {
        Postgres::Unknown => State::Unknown,
        Postgres::Empty => State::Empty,
        Postgres::Unusable { .. } => State::Failed,
        Postgres::Stopped(_) => State::Stopped,
        Postgres::Starting { .. } => State::Starting,
        // Nobody can log in before the roles are there.
        Postgres::Primary(_) if view.durable.bootstrapping => State::Starting,
        Postgres::Primary(p) if p.closed => State::Closed,
        Postgres::Primary(_) => State::Running,
        Postgres::Standby(s) if s.receiving => State::Streaming,
        Postgres::Standby(s) if s.upstream.is_some() => State::Following,
        Postgres::Standby(_) => State::Detached,
    }
}
