//! Nodes that are no processes of this machine: how they are reached, brought up and taken down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::cluster::plan::{Plan, Step};
use pgdock_core::deploy::{Machine, Standing, Verdict};
use pgdock_core::executor::docker::LogOptions;
use pgdock_core::executor::{Command, ExecutorExt as _, Opener};
use pgdock_core::settings::ExecutorKind;
use pgdock_core::{Cluster, Error, NodeName, Result, Settings};

use crate::output::progress::Progress;
use crate::{local, wait};

/// How long an agent may take to answer once it has all that it needs.
const ANSWER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// What this program knows of the person who runs it.
pub(crate) fn opener() -> Opener {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Opener::new().home(path("HOME")).ssh_agent(path("SSH_AUTH_SOCK"))
}

/// Whether nodes are processes of this machine.
pub(crate) fn is_local(settings: &Settings) -> bool {
    settings.cluster.executor == ExecutorKind::Local
}

/// The machines of nodes.
pub(crate) fn machines(settings: &Settings, nodes: &[NodeName]) -> Result<Vec<Machine>> {
    let (opener, settings) = (opener(), Arc::new(settings.clone()));
    nodes.iter().map(|node| Machine::open(&opener, &settings, node)).collect()
}

/// How each of them stands, or why that is not known; all at once.
pub(crate) async fn standings(machines: &[Machine]) -> Result<Vec<Standing>> {
    gather(join_all(machines.iter().map(Machine::standing)).await)
}

/// All results, or all errors in one.
pub(crate) fn gather<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => all.push(value),
            Err(error) => errors.push(error),
        }
    }
    if errors.len() <= 1 {
        return errors.pop().map_or(Ok(all), Err);
    }
    let text = errors.iter().map(Error::chain).collect::<Vec<_>>().join("; ");
    let known = errors.iter().all(Error::outcome_known);
    let mut seen = Vec::new();
    let mut error = Error::new(errors[0].kind(), text);
    for hint in errors.iter().flat_map(Error::hints) {
        if !seen.contains(&hint) {
            seen.push(hint);
            error = error.hint(hint);
        }
    }
    Err(if known { error } else { error.outcome_unknown() })
}

/// Does a plan that [`pgdock_core::cluster::plan::up`] made: containers or services, secrets, and, where the nodes have their
/// configuration, the founding of the cluster.
pub(crate) async fn bring_up(
    cluster: &Cluster,
    machines: &[Machine],
    plan: &Plan,
    nodes: &[NodeName],
    patience: Duration,
    progress: &Progress,
) -> Result<Brought> {
    let starts =
        |node: &NodeName| plan.steps.iter().any(|step| matches!(step, Step::StartAgent { node: n } if n == node));
    progress.say("starting the nodes");
    let started = join_all(machines.iter().map(async |machine| {
        if starts(machine.node()) {
            machine.start(|line| progress.say(format!("{}: {line}", machine.node()))).await?;
        }
        // Also where it runs already: what was added since gets there.
        machine.deliver_secrets().await
    }));
    gather(started.await)?;
    let configured = join_all(machines.iter().map(has_bundle)).await;
    let lacking: Vec<NodeName> =
        gather(configured)?.into_iter().zip(machines).filter(|(has, _)| !has).map(|(_, m)| m.node().clone()).collect();
    if !lacking.is_empty() {
        return Ok(Brought::Waiting(lacking));
    }
    progress.say("waiting for the agents");
    answering(cluster, machines, nodes).await?;
    let first = plan.steps.iter().find_map(|step| match step {
        Step::Bootstrap { node } => Some(node),
        _ => None,
    });
    if let Some(node) = first {
        progress.say(format!("founding the cluster on {node}"));
        cluster.bootstrap(node).await?;
    }
    wait::until_well(cluster, nodes, patience, progress, |_| Ok(())).await?;
    Ok(Brought::Up)
}

/// How far nodes were brought.
#[derive(Debug)]
pub(crate) enum Brought {
    /// There is a primary, and the others follow.
    Up,
    /// These run, and wait for their configuration.
    Waiting(Vec<NodeName>),
}

/// Whether a node has its configuration.
async fn has_bundle(machine: &Machine) -> Result<bool> {
    let home = machine.home().join("bundles/current/bundle.json").display().to_string();
    let test = Command::new("test").args(["-e", &home]);
    Ok(machine.executor().output(&test).await?.exit.success())
}

/// Sees to it that a node can run on its machine.
pub(crate) async fn prepare(machine: &Machine, progress: &Progress) -> Result<()> {
    let node = machine.node();
    let program = std::env::current_exe().and_then(std::fs::read);
    let program = program.map_err(|e| Error::invalid("the program cannot be read").because(e))?;
    progress.say(format!("preparing {node}"));
    let checks = machine.prepare(&program, &SystemClock, |step| progress.say(format!("{node}: {step}"))).await?;
    let bad = checks.iter().filter_map(|check| match &check.verdict {
        Verdict::Bad(remedy) => Some(format!("{}: {}: {remedy}", check.what, check.found)),
        _ => None,
    });
    let bad: Vec<_> = bad.collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(Error::not_ready(format!("the node cannot run on its machine: {}. node={node}", bad.join("; "))))
}

/// Waits until agents answer. What one wrote last goes into the error.
pub(crate) async fn answering(cluster: &Cluster, machines: &[Machine], nodes: &[NodeName]) -> Result<()> {
    let deadline = SystemClock.now() + ANSWER;
    let answered = join_all(nodes.iter().map(async |node| {
        let agent = cluster.agent(node)?;
        loop {
            let Err(error) = agent.status().await else { return Ok(()) };
            if SystemClock.now() < deadline {
                tokio::time::sleep(POLL).await;
                continue;
            }
            let error = Error::unavailable(format!("the agent does not answer. node={node}")).because(error.chain());
            let Some(machine) = machines.iter().find(|machine| machine.node() == node) else { return Err(error) };
            let mut said = Vec::new();
            let options = LogOptions { lines: Some(5), follow: false };
            let _ = machine.logs(options, |bytes| said.extend_from_slice(bytes)).await;
            return Err(error
                .hint(format!("it wrote last: {}", String::from_utf8_lossy(said.trim_ascii())))
                .hint(format!("`pgdock node logs {node}` shows more"))
                .hint("its port must be open to this machine"));
        }
    }));
    gather(answered.await).map(drop)
}

/// Does a plan that [`pgdock_core::cluster::plan::down`] made.
pub(crate) async fn take_down(cluster: &Cluster, machines: &[Machine], plan: &Plan, progress: &Progress) -> Result<()> {
    let leader = cluster.document().await.ok().flatten().and_then(|record| record.leader);
    let force = plan.steps.iter().any(|step| matches!(step, Step::Kill { .. }));
    local::hand_over(cluster, plan, progress).await?;
    let stops =
        |node: &NodeName| plan.steps.iter().any(|step| matches!(step, Step::StopAgent { node: n } if n == node));
    let stopping = machines.iter().filter(|machine| stops(machine.node()));
    let (last, first): (Vec<_>, Vec<_>) = stopping.partition(|machine| leader.as_ref() == Some(machine.node()));
    for batch in [first, last] {
        if batch.is_empty() {
            continue;
        }
        let names: Vec<_> = batch.iter().map(|machine| machine.node().as_str()).collect();
        progress.say(format!("stopping {}", names.join(", ")));
        gather(join_all(batch.iter().map(|machine| machine.stop(force))).await)?;
    }
    Ok(())
}
