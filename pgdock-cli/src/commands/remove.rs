//! `pgdock remove`

use std::time::Duration;

use clap::Args;
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::cluster::plan::{self, Plan, Step};
use pgdock_core::settings::{Edit, ExecutorKind, Settings};
use pgdock_core::{Cluster, Error, NodeName, Result};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::progress::Progress;
use crate::output::{self, progress};
use crate::{local, membership, reach};

/// How long the leader may take to count on the node no more.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Take a node out of a running cluster; its data stays where it is
///
/// The leader counts on it no more, then its agent and PostgreSQL are stopped, and its slots go. Refused for the leader, and with
/// `strict` for the last standby that can guard commits. Its section is taken out of cluster.toml. Run again, it goes on.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The node
    node: NodeName,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: RemoveArgs) -> Result<Exit> {
    let name = args.node;
    let settings = context.settings()?;
    let format = args.change.output.output;
    let member = settings.nodes.contains_key(&name);
    let others: Vec<NodeName> = settings.nodes.keys().filter(|node| **node != name).cloned().collect();
    let old = context.cluster().await?;
    let mut steps = Vec::new();
    if member {
        plan::removable(&old.status().await?, &settings, &name)?;
        steps.push(Step::ChangeSettings { file: settings.file().display().to_string() });
    }
    steps.extend(others.iter().map(|node| Step::BeginAnew { node: node.clone() }));
    if member {
        steps.push(Step::StopAgent { node: name.clone() });
    }
    let edit = if member { Some(Edit::remove_node(&settings, &name)?) } else { None };
    if args.change.dry_run {
        output::plan(&Plan { steps }, format)?;
        return Ok(Exit::Done);
    }
    if let Some(edit) = edit {
        edit.write()?;
    }
    let cluster = context.cluster().await?;
    let silent = progress::during("removing the node", async |progress| {
        // The leader first: it lets go of the node while that one still answers.
        let silent = membership::tell(&cluster, &others, true, progress).await?;
        progress.say(format!("waiting until the cluster counts on {name} no more"));
        left(&cluster, &name).await?;
        progress.say(format!("stopping {name}"));
        stop(&old, &name, member, progress).await?;
        Ok::<_, Error>(silent)
    })
    .await?;
    for node in silent {
        output::note(&format!("the agent of {node} does not run: it learns that {name} is gone when it starts"));
    }
    let home = home(&settings, &name);
    let done = if member { format!("{name} is removed") } else { format!("{name} is no member") };
    output::done(&format!("{done}; what it kept is in {home} on its machine"), format)?;
    Ok(Exit::Done)
}

/// Waits until the document names the node no more, neither among the members nor among those that guard commits.
async fn left(cluster: &Cluster, name: &NodeName) -> Result<()> {
    let deadline = SystemClock.now() + LIMIT;
    loop {
        let counts = cluster.document().await?.is_some_and(|record| {
            record.members.contains_key(name) || record.sync_set.iter().any(|member| member.node == *name)
        });
        if !counts {
            return Ok(());
        }
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!(
                "the leader still counts on the node. node={name}, limit={LIMIT:?}"
            ))
            .hint("`pgdock status` shows what is in the way; run this again, it goes on"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Stops the node, where it still runs. A machine that is gone for good is no hindrance.
async fn stop(old: &Cluster, name: &NodeName, member: bool, progress: &Progress) -> Result<()> {
    let settings = old.settings();
    if settings.cluster.executor == ExecutorKind::Local {
        // Also where an earlier run came no further than to the settings.
        return local::stop_at(&settings.cluster.root.join(name.as_str()), settings.failover.stop_budget).await;
    }
    if !member {
        output::note(&format!(
            "if {name} still runs, stop it on its machine: it was no member any more when this began"
        ));
        return Ok(());
    }
    for machine in reach::machines(settings, std::slice::from_ref(name))? {
        if let Err(error) = machine.retire().await {
            progress.say(format!("{name} does not answer"));
            output::note(&format!("{name} was not stopped: {}; see that it does not run", error.chain()));
        }
    }
    Ok(())
}

fn home(settings: &Settings, name: &NodeName) -> String {
    let of_name = settings.nodes.get(name).map(|node| node.home.clone());
    let local = settings.cluster.executor == ExecutorKind::Local;
    let usual = if local { settings.cluster.root.join(name.as_str()) } else { settings.cluster.root.clone() };
    of_name.unwrap_or(usual).display().to_string()
}
