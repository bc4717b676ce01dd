//! [`ClusterStatus`]: how the cluster stands, put together from what each agent and the witness say.

use serde::{Deserialize, Serialize};

use crate::agent::api::NodeStatus;
use crate::agent::{BackupRunning, BackupsKept, host_port};
use crate::backup::wal::ArchiveStatus;
use crate::report::{Report, State};
use crate::settings::Settings;
use crate::witness::Record;
use crate::witness::record::Durability;
use crate::{Lsn, NodeName, Result, Role, Term, TimelineId};

#[cfg(test)]
pub(super) mod tests;

/// What an agent's loop said longer ago than this, in seconds, counts for nothing: it hangs.
const AGE_SECONDS_MAX: f64 = 2.0;

/// How the cluster stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The number of the present reign; `None` before the cluster was founded, or where nobody knows.
    pub term: Option<Term>,
    /// The node that the document names.
    pub leader: Option<NodeName>,
    /// What an acknowledged commit means.
    pub durability: Option<Durability>,
    /// The standbys that guard commits.
    pub sync_set: Vec<NodeName>,
    /// How many of them hold each acknowledged commit.
    #[serde(default)]
    pub acks: u32,
    /// The witness.
    pub witness: WitnessView,
    /// How the archiving of WAL stands, as the leader tells; nothing where that is not done, or nobody tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveStatus>,
    /// The base backups that there are, as the leader tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupsKept>,
    /// The base backup that is being made, and of which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<(NodeName, BackupRunning)>,
    /// Every node of the settings, by name.
    pub nodes: Vec<NodeView>,
    /// What a person should know of the cluster as a whole. What concerns one node is with that node.
    pub problems: Vec<String>,
}

/// The witness, as a part of [`ClusterStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessView {
    /// What kind of store it is.
    pub kind: String,
    /// Whether it answered the observer, or an agent lately.
    pub reachable: bool,
}

/// One node, as a part of [`ClusterStatus`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// What it is; unknown where its agent does not answer, which is not the same as down.
    pub role: Role,
    /// What its PostgreSQL is doing.
    pub state: State,
    /// Where clients reach its PostgreSQL, as `host:port`.
    pub address: String,
    /// The node that it streams from, or is set to.
    pub upstream: Option<NodeName>,
    /// The timeline of its WAL.
    pub timeline: Option<TimelineId>,
    /// Up to where its WAL is on disk.
    pub lsn: Option<Lsn>,
    /// How many bytes of the primary's WAL it has not replayed; `None` on a primary, and where nobody knows.
    pub replay_lag_bytes: Option<u64>,
    /// How long its replay is behind, as the primary measures it.
    pub replay_lag_seconds: Option<f64>,
    /// Whether its agent answers.
    pub reachable: bool,
    /// The configuration that runs there.
    pub bundle: Option<String>,
    /// What a person should know of it.
    pub problems: Vec<String>,
}

impl ClusterStatus {
    /// Whether nothing is wrong: a leader that is primary, all others streaming, no problem anywhere.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty() && self.nodes.iter().all(|node| node.problems.is_empty())
    }

    /// One node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The leader, where it answers and is primary.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeView> {
        self.leader.as_ref().and_then(|leader| self.node(leader)).filter(|node| node.role == Role::Primary)
    }
}

/// Puts together what everybody says. Of several documents the newest counts.
pub(super) fn assemble(
    settings: &Settings,
    answers: &[(NodeName, Result<NodeStatus>)],
    document: Result<Option<Record>>,
    witness_kind: &str,
) -> ClusterStatus {
    let heard = || answers.iter().filter_map(|(name, answer)| trusted(settings, name, answer).ok());
    let (read, witness_fault) = match document {
        Ok(read) => (read, None),
        Err(error) => (None, Some(error.chain())),
    };
    let witness = WitnessView {
        kind: witness_kind.to_owned(),
        reachable: witness_fault.is_none() || heard().any(|s| s.report.witness_reachable),
    };
    let record = heard().filter_map(|status| status.record.as_ref()).chain(&read).max_by_key(|record| record.heartbeat);
    let primary = record
        .and_then(|record| record.leader.as_ref())
        .and_then(|leader| heard().find(|status| status.report.node == *leader))
        .map(|status| &status.report)
        .filter(|report| report.role == Role::Primary);

    let archive = heard().find(|s| primary.is_some_and(|p| p.node == s.report.node)).and_then(|s| s.archive.clone());
    let backups = heard().find_map(|s| s.backups.clone());
    let backup = heard().find_map(|s| Some((s.report.node.clone(), s.backup.clone()?.running?)));
    let nodes: Vec<_> = answers.iter().map(|(name, answer)| node(settings, name, answer, primary)).collect();
    let mut problems = cluster_problems(record, &nodes);
    match witness_fault {
        Some(fault) if !witness.reachable => problems.push(fault),
        Some(_) => {}
        None if record.is_none() => {
            problems.push("the cluster was not founded yet: there is no witness document".to_owned())
        }
        None => {}
    }
    ClusterStatus {
        cluster: settings.cluster.name.clone(),
        term: record.map(|record| record.term),
        leader: record.and_then(|record| record.leader.clone()),
        durability: record.map(|record| record.durability),
        sync_set: record.map(|r| r.sync_set.iter().map(|member| member.node.clone()).collect()).unwrap_or_default(),
        acks: record.map(|r| r.acks).unwrap_or_default(),
        witness,
        archive,
        backups,
        backup,
        nodes,
        problems,
    }
}

/// What an agent says, where it is this node's, of this cluster, and recent.
fn trusted<'a>(settings: &Settings, name: &NodeName, answer: &'a Result<NodeStatus>) -> Result<&'a NodeStatus, String> {
    let status = answer.as_ref().map_err(crate::Error::chain)?;
    let report = &status.report;
    if report.cluster != settings.cluster.name {
        return Err(format!("the agent that answers is of another cluster. found={}", report.cluster));
    }
    if report.node != *name {
        return Err(format!("the agent that answers is of another node. found={}", report.node));
    }
    if status.age_seconds > AGE_SECONDS_MAX {
        return Err(format!("the agent hangs: its last word is old. age_seconds={:.1}", status.age_seconds));
    }
    Ok(status)
}

fn node(settings: &Settings, name: &NodeName, answer: &Result<NodeStatus>, primary: Option<&Report>) -> NodeView {
    let address = settings.nodes.get(name).map(|n| host_port(&n.address, n.postgres_port)).unwrap_or_default();
    let status = match trusted(settings, name, answer) {
        Ok(status) => status,
        Err(problem) => {
            return NodeView {
                name: name.clone(),
                role: Role::Unknown,
                state: State::Unknown,
                address,
                upstream: None,
                timeline: None,
                lsn: None,
                replay_lag_bytes: None,
                replay_lag_seconds: None,
                reachable: answer.is_ok(),
                bundle: None,
                problems: vec![problem],
            };
        }
    };
    let report = &status.report;
    let mut problems = report.problems.clone();
    if primary.is_some_and(|p| p.node != *name) && report.state != State::Streaming && report.role != Role::Primary {
        problems.push(format!("it does not stream. state={}", report.state));
    }
    let known = report.flushed != Lsn::default();
    let (replay_lag_bytes, replay_lag_seconds) = lag(report, primary);
    NodeView {
        name: name.clone(),
        role: report.role,
        state: report.state,
        address: status.address.clone(),
        upstream: report.upstream.clone(),
        timeline: known.then_some(report.timeline),
        lsn: known.then_some(report.flushed),
        replay_lag_bytes,
        replay_lag_seconds,
        reachable: true,
        bundle: report.bundle.clone(),
        problems,
    }
}

/// How far behind a standby is, in bytes and seconds. Where the primary tells of it, both positions are of
/// the same moment.
fn lag(report: &Report, primary: Option<&Report>) -> (Option<u64>, Option<f64>) {
    let (Role::Standby, Some(primary)) = (report.role, primary) else { return (None, None) };
    let seen = report.member().and_then(|me| primary.standbys.iter().find(|standby| standby.member == me));
    // Right after a copy the primary does not know the standby's position yet.
    let replayed = seen.map(|standby| standby.replayed).filter(|lsn| *lsn != Lsn::default());
    let bytes = primary.flushed.ahead_of(replayed.unwrap_or(report.replayed));
    #[expect(clippy::cast_precision_loss, reason = "a lag of 2^52 ms is none")]
    let measured = seen.and_then(|standby| standby.replay_lag_ms).map(|ms| ms as f64 / 1000.0);
    // PostgreSQL measures nothing while nothing is written.
    (Some(bytes), measured.or((bytes == 0).then_some(0.0)))
}

fn cluster_problems(record: Option<&Record>, nodes: &[NodeView]) -> Vec<String> {
    let mut problems = Vec::new();
    let primaries: Vec<_> = nodes.iter().filter(|n| n.role == Role::Primary).map(|n| n.name.as_str()).collect();
    if primaries.len() > 1 {
        let leader = record.and_then(|r| r.leader.as_ref()).map_or("none of them", NodeName::as_str);
        problems.push(format!(
            "MORE THAN ONE NODE IS OUT OF RECOVERY: {}. The document names {leader}; stop the others' PostgreSQL now",
            primaries.join(", ")
        ));
    }
    let Some(record) = record else { return problems };
    match &record.leader {
        None => problems.push(match &record.handoff_to {
            Some(heir) => format!("nobody leads: the lead is handed to {heir}"),
            None => "nobody leads".to_owned(),
        }),
        Some(leader) => {
            if !nodes.iter().any(|n| n.name == *leader && n.role == Role::Primary) {
                problems.push(format!("{leader} leads term {}, but is not seen as primary", record.term));
            }
        }
    }
    // The leader tells so itself, where it can.
    let told = nodes.iter().flat_map(|n| &n.problems).any(|p| p.starts_with("no standby guards commits"));
    if record.durability.is_guarded() && record.sync_set.is_empty() && !told {
        problems.push("no standby guards commits: what is acknowledged is on the primary alone".to_owned());
    }
    if record.paused {
        problems.push("automatic decisions are paused: `pgdock resume` ends that".to_owned());
    }
    problems
}
