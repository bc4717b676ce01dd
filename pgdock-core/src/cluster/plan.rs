//! [`Plan`]: what an order will do, as data, before anybody does it.
//!
//! Architecture invariant: plans are pure functions of a status. The agents look again before they act.

use serde::{Deserialize, Serialize};

use super::ClusterStatus;
use crate::report::State;
use crate::settings::Settings;
use crate::{Error, NodeName, Result, Role, Term};

#[cfg(test)]
mod tests;

/// What will be done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps. None where all is as it should be already.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Make the node's container.
    MakeContainer {
        /// Whose.
        node: NodeName,
        /// Its name.
        container: String,
        /// What it is made from.
        image: String,
        /// Where.
        engine: String,
    },
    /// Bring the node its secrets.
    DeliverSecrets {
        /// Where.
        node: NodeName,
    },
    /// Start the agent.
    StartAgent {
        /// Where.
        node: NodeName,
    },
    /// Make the first data directory and the document.
    Bootstrap {
        /// Where.
        node: NodeName,
    },
    /// Write `cluster.toml` and secrets.
    WriteFolder {
        /// Where.
        dir: String,
    },
    /// Change `cluster.toml`.
    ChangeSettings {
        /// The file.
        file: String,
    },
    /// Have the agent begin anew with the settings as they are then; PostgreSQL goes on.
    BeginAnew {
        /// Where.
        node: NodeName,
    },
    /// Make pgdock's roles on a primary that another program looks after.
    MakeRoles {
        /// Where.
        node: NodeName,
    },
    /// Stop PostgreSQL in order, and move its data directory into the node's home.
    TakeData {
        /// Where.
        node: NodeName,
        /// From where.
        from: String,
    },
    /// Make the document, and start that data directory as the first primary, on its timeline.
    Adopt {
        /// Where.
        node: NodeName,
    },
    /// Drop the slots that another program made.
    DropSlots {
        /// Their names.
        slots: Vec<String>,
    },
    /// Wait until these follow the leader.
    AwaitStreaming {
        /// Who.
        nodes: Vec<NodeName>,
    },
    /// Write all dirty pages, so that the stop after it is short.
    Checkpoint {
        /// Where.
        node: NodeName,
    },
    /// Stop PostgreSQL in order.
    StopPostgres {
        /// Where.
        node: NodeName,
    },
    /// Stop PostgreSQL and the agent in order.
    StopAgent {
        /// Where.
        node: NodeName,
    },
    /// Kill what is left of the agent and of PostgreSQL.
    Kill {
        /// Where.
        node: NodeName,
    },
    /// Wait until the old leader's right has ended.
    AwaitExpiry {
        /// Whose.
        node: NodeName,
    },
    /// Change the document: the node leads the next term.
    TakeLead {
        /// Who; the best of those that can where nobody is named.
        node: Option<NodeName>,
        /// The term that begins.
        term: Term,
    },
    /// Leave recovery.
    Promote {
        /// Who; the best of those that can where nobody is named.
        node: Option<NodeName>,
    },
    /// Follow the leader; by rewind or copy if it must be.
    Follow {
        /// Who.
        node: NodeName,
        /// Whom; the new primary where nobody is named.
        upstream: Option<NodeName>,
    },
    /// Start PostgreSQL.
    StartPostgres {
        /// Where.
        node: NodeName,
        /// As what.
        role: Role,
    },
    /// Read the configuration again.
    Reload {
        /// Where.
        node: NodeName,
    },
    /// Move the data directory aside; it is kept.
    MoveAside {
        /// Where.
        node: NodeName,
    },
    /// Copy the leader's data.
    Copy {
        /// To where.
        node: NodeName,
        /// From where.
        from: NodeName,
    },
    /// Change the document: automatic decisions are stopped, or go on.
    SetPaused {
        /// Whether they are stopped.
        paused: bool,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let best = |node: &Option<NodeName>| node.as_ref().map_or("the best standby".to_owned(), ToString::to_string);
        match self {
            Self::MakeContainer { node, container, image, engine } => {
                write!(f, "make the container of {node}: {container} from {image} on {engine}")
            }
            Self::DeliverSecrets { node } => write!(f, "bring {node} its secrets"),
            Self::StartAgent { node } => write!(f, "start the agent of {node}"),
            Self::Bootstrap { node } => {
                write!(f, "found the cluster on {node}: first data directory, witness document")
            }
            Self::WriteFolder { dir } => write!(f, "write cluster.toml and secrets into {dir}"),
            Self::ChangeSettings { file } => write!(f, "change {file}"),
            Self::BeginAnew { node } => write!(f, "the agent of {node} begins anew; PostgreSQL goes on"),
            Self::MakeRoles { node } => write!(f, "make pgdock's roles on {node}"),
            Self::TakeData { node, from } => {
                write!(f, "stop PostgreSQL on {node} in order, and move {from} into the node's home")
            }
            Self::Adopt { node } => {
                write!(f, "make the witness document, and start {node} again as primary, on its timeline")
            }
            Self::DropSlots { slots } => write!(f, "drop the slots {}", slots.join(", ")),
            Self::AwaitStreaming { nodes } => {
                let names: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
                write!(f, "wait until there is a primary, and all others of {} stream", names.join(", "))
            }
            Self::Checkpoint { node } => write!(f, "checkpoint on {node}"),
            Self::StopPostgres { node } => write!(f, "stop PostgreSQL on {node} in order"),
            Self::StopAgent { node } => write!(f, "stop PostgreSQL and the agent on {node} in order"),
            Self::Kill { node } => write!(f, "kill what is left of the agent and PostgreSQL on {node}"),
            Self::AwaitExpiry { node } => write!(f, "wait until the right of {node} has ended"),
            Self::TakeLead { node, term } => write!(f, "{} takes the lead of term {term}", best(node)),
            Self::Promote { node } => write!(f, "promote {}", best(node)),
            Self::Follow { node, upstream: Some(upstream) } => write!(f, "{node} follows {upstream}"),
            Self::Follow { node, upstream: None } => write!(f, "{node} follows the new primary"),
            Self::StartPostgres { node, role } => write!(f, "start PostgreSQL on {node} as {role}"),
            Self::Reload { node } => write!(f, "PostgreSQL on {node} reads its configuration again"),
            Self::MoveAside { node } => write!(f, "move the data directory of {node} aside; it is kept"),
            Self::Copy { node, from } => write!(f, "copy {from} to {node}"),
            Self::SetPaused { paused: true } => f.write_str("stop automatic decisions in the whole cluster"),
            Self::SetPaused { paused: false } => f.write_str("let automatic decisions go on"),
        }
    }
}

/// Hand the lead over.
///
/// # Errors
/// `NotReady` when nobody leads; `NeedsOperator` when the heir cannot take over.
pub fn switchover(status: &ClusterStatus, to: Option<&NodeName>) -> Result<Plan> {
    let leader = leader(status)?;
    match to {
        Some(heir) if *heir == leader => {
            return Err(Error::needs_operator(format!("the node is the primary already. node={heir}")));
        }
        Some(heir) => streams(status, heir)?,
        None if !status.nodes.iter().any(|n| n.name != leader && streams(status, &n.name).is_ok()) => {
            return Err(Error::needs_operator("no standby streams that could take over")
                .hint("`pgdock status` shows the standbys"));
        }
        None => {}
    }
    let heir = to.cloned();
    let mut steps = vec![
        Step::Checkpoint { node: leader.clone() },
        Step::StopPostgres { node: leader.clone() },
        Step::TakeLead { node: heir.clone(), term: next_term(status) },
        Step::Promote { node: heir.clone() },
    ];
    // Where the leader chooses, it alone is sure to follow.
    let follow = followers(status, to).filter(|node| to.is_some() || *node == leader);
    steps.extend(follow.map(|node| Step::Follow { node, upstream: heir.clone() }));
    Ok(Plan { steps })
}

/// Make a node the primary, though the leader does not hand over.
///
/// # Errors
/// `NotReady` when the cluster was not founded; `NeedsOperator` when the leader is alive, or the node cannot.
pub fn failover(status: &ClusterStatus, to: &NodeName, allow_data_loss: bool) -> Result<Plan> {
    if let Some(primary) = status.primary() {
        return Err(Error::needs_operator(format!("the leader is alive and primary. leader={}", primary.name))
            .hint(format!("use `pgdock switchover --to {to}`")));
    }
    if status.term.is_none() {
        return Err(
            Error::not_ready("the cluster was not founded yet").hint("`pgdock up`, or `pgdock bootstrap`, founds it")
        );
    }
    let node = known(status, to)?;
    if node.role != Role::Standby {
        return Err(Error::needs_operator(format!("only a standby can take over. node={to}, role={}", node.role)));
    }
    let mut steps = Vec::new();
    if let (true, Some(leader)) = (allow_data_loss, &status.leader) {
        steps.push(Step::AwaitExpiry { node: leader.clone() });
    }
    steps.push(Step::TakeLead { node: Some(to.clone()), term: next_term(status) });
    steps.push(Step::Promote { node: Some(to.clone()) });
    steps.extend(followers(status, Some(to)).map(|node| Step::Follow { node, upstream: Some(to.clone()) }));
    Ok(Plan { steps })
}

/// Copy a standby anew.
///
/// # Errors
/// `NeedsOperator` for the leader; `NotReady` when nobody leads.
pub fn reclone(status: &ClusterStatus, node: &NodeName) -> Result<Plan> {
    let from = leader(status)?;
    known(status, node)?;
    if *node == from {
        return Err(Error::needs_operator(format!("the node leads: it holds the only history there is. node={node}")));
    }
    Ok(Plan {
        steps: vec![
            Step::StopPostgres { node: node.clone() },
            Step::Copy { node: node.clone(), from: from.clone() },
            Step::MoveAside { node: node.clone() },
            Step::StartPostgres { node: node.clone(), role: Role::Standby },
            Step::Follow { node: node.clone(), upstream: Some(from) },
        ],
    })
}

/// Have a node follow the leader.
///
/// # Errors
/// As [`reclone`].
pub fn rejoin(status: &ClusterStatus, node: &NodeName) -> Result<Plan> {
    let upstream = leader(status)?;
    known(status, node)?;
    if *node == upstream {
        return Err(Error::needs_operator(format!("the node leads: there is nobody to follow. node={node}")));
    }
    if status.node(node).is_some_and(|n| n.state == State::Streaming && n.upstream.as_ref() == Some(&upstream)) {
        return Ok(Plan::default());
    }
    Ok(Plan { steps: vec![Step::Follow { node: node.clone(), upstream: Some(upstream) }] })
}

/// Restart PostgreSQL in its present role.
///
/// # Errors
/// `Invalid` when there is no such node.
pub fn restart(status: &ClusterStatus, node: &NodeName) -> Result<Plan> {
    let role = known(status, node)?.role;
    let mut steps = vec![Step::Checkpoint { node: node.clone() }, Step::StopPostgres { node: node.clone() }];
    steps.push(Step::StartPostgres { node: node.clone(), role });
    Ok(Plan { steps })
}

/// Start these nodes' agents, of which `running` run already, and found the cluster where it is new.
#[must_use]
pub fn up(founded: bool, first: &NodeName, nodes: &[NodeName], running: &[NodeName]) -> Plan {
    let start = nodes.iter().filter(|node| !running.contains(node));
    let mut steps: Vec<_> = start.map(|node| Step::StartAgent { node: node.clone() }).collect();
    if !founded {
        steps.push(Step::Bootstrap { node: first.clone() });
    }
    if !steps.is_empty() {
        steps.push(Step::AwaitStreaming { nodes: nodes.to_vec() });
    }
    Plan { steps }
}

/// Found the cluster on `first`, where that was not done yet. All agents run already, each on its own machine.
///
/// # Errors
/// `NotReady` when an agent does not answer.
pub fn bootstrap(status: &ClusterStatus, first: &NodeName) -> Result<Plan> {
    known(status, first)?;
    let nodes: Vec<NodeName> = status.nodes.iter().map(|n| n.name.clone()).collect();
    if status.term.is_some() {
        return Ok(Plan { steps: vec![Step::AwaitStreaming { nodes }] });
    }
    let silent: Vec<_> = status.nodes.iter().filter(|n| !n.reachable).map(|n| n.name.as_str()).collect();
    if !silent.is_empty() {
        return Err(Error::not_ready(format!("the agents of these nodes do not answer. nodes={}", silent.join(",")))
            .hint("start `pgdock agent --node NODE` on each node's machine first: docs/several-machines.md")
            .hint(
                "their ports must be open to this machine, and `secrets/` here and there from the same `pgdock init`",
            ));
    }
    Ok(Plan { steps: vec![Step::Bootstrap { node: first.clone() }, Step::AwaitStreaming { nodes }] })
}

/// Stop these nodes: standbys first, the leader last. A leader that leaves others behind hands over first,
/// unless `force` is set. `running` are the nodes that run at all.
///
/// # Errors
/// `NeedsOperator` when the leader would leave and nobody can take over.
pub fn down(status: &ClusterStatus, nodes: &[NodeName], running: &[NodeName], force: bool) -> Result<Plan> {
    let leader = status.leader.clone().filter(|leader| running.contains(leader));
    let going = |node: &NodeName| nodes.contains(node) && running.contains(node);
    let stays = |node: &&NodeName| !nodes.contains(node);
    let mut steps = Vec::new();
    if let Some(leader) = leader.as_ref().filter(|leader| going(leader) && !force)
        && running.iter().any(|node| stays(&node))
    {
        let heir = running.iter().filter(stays).find(|node| streams(status, node).is_ok());
        let Some(heir) = heir else {
            return Err(Error::needs_operator(format!(
                "the leader would leave, and none of those that stay can take over. leader={leader}"
            ))
            .hint("`--force` takes it down all the same: the cluster then has no primary"));
        };
        steps.extend(switchover(status, Some(heir))?.steps);
    }
    let standbys = running.iter().filter(|node| going(node) && Some(*node) != leader.as_ref());
    let last = leader.iter().filter(|node| going(node));
    steps.extend(standbys.chain(last).map(|node| Step::StopAgent { node: node.clone() }));
    if force {
        steps.extend(running.iter().filter(|node| going(node)).map(|node| Step::Kill { node: node.clone() }));
    }
    Ok(Plan { steps })
}

/// Whether a node can be taken out of the cluster.
///
/// # Errors
/// `NotReady` when nobody leads; `NeedsOperator` when the node leads, or is the last one that can guard commits where
/// `strict` wants one.
pub fn removable(status: &ClusterStatus, settings: &Settings, node: &NodeName) -> Result<()> {
    known(status, node)?;
    if *node == leader(status)? {
        return Err(Error::needs_operator(format!("the node leads. node={node}"))
            .hint("hand the lead over first: `pgdock switchover`"));
    }
    let guards = |other: &NodeName| {
        other != node && streams(status, other).is_ok() && settings.nodes.get(other).is_some_and(|n| n.failover)
    };
    let strict = settings.failover.strict && settings.failover.durability.is_guarded();
    if strict && !settings.nodes.keys().any(guards) {
        return Err(Error::needs_operator(format!(
            "without the node no standby would guard commits, and writes would wait (strict). node={node}"
        ))
        .hint("add another node first: `pgdock node add`; or take `strict` off"));
    }
    Ok(())
}

fn leader(status: &ClusterStatus) -> Result<NodeName> {
    super::orders::leader_of(status)
}

fn next_term(status: &ClusterStatus) -> Term {
    status.term.unwrap_or_default().next()
}

fn known<'a>(status: &'a ClusterStatus, name: &NodeName) -> Result<&'a super::NodeView> {
    status.node(name).ok_or_else(|| {
        let known: Vec<_> = status.nodes.iter().map(|n| n.name.as_str()).collect();
        Error::invalid(format!("there is no such node. node={name}, known={}", known.join(",")))
    })
}

fn streams(status: &ClusterStatus, name: &NodeName) -> Result<()> {
    let node = known(status, name)?;
    if node.role == Role::Standby && node.state == State::Streaming {
        return Ok(());
    }
    Err(Error::needs_operator(format!(
        "the node cannot take over: it does not stream. node={name}, role={}, state={}",
        node.role, node.state
    ))
    .hint("`pgdock status` shows what is in the way"))
}

/// The nodes that follow whoever leads next.
fn followers<'a>(status: &'a ClusterStatus, heir: Option<&'a NodeName>) -> impl Iterator<Item = NodeName> + 'a {
    status.nodes.iter().filter(move |n| n.reachable && Some(&n.name) != heir).map(|n| n.name.clone())
}
