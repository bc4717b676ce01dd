//! `pgdock node add`

use std::time::Duration;

use clap::Args;
use pgdock_core::clock::SystemClock;
use pgdock_core::cluster::plan::{Plan, Step};
use pgdock_core::scaffold::Scaffold;
use pgdock_core::settings::{Edit, NewNode};
use pgdock_core::{Error, NodeName, Result};

use crate::cli::{Change, Format};
use crate::commands::config;
use crate::commands::init::NodeAt;
use crate::context::{Context, shares_its_witness};
use crate::exit::Exit;
use crate::output::{self, progress, status};
use crate::{local, membership, reach, wait};

/// Add a node to a running cluster: write it into cluster.toml, tell the agents, start it, and wait until it streams
///
/// It copies the leader. Agents begin anew one after the other, while their PostgreSQL goes on. Run again, it goes on where it was.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The node and its address
    #[arg(value_name = "NAME=ADDRESS")]
    node: NodeAt,
    /// Among equals the highest becomes primary [default: 100]
    #[arg(long)]
    priority: Option<u32>,
    /// It shall never become primary
    #[arg(long)]
    no_failover: bool,
    /// Where its PostgreSQL listens, if not where the others' do
    #[arg(long, value_name = "PORT")]
    postgres_port: Option<u16>,
    /// Where its agent listens, if not where the others do
    #[arg(long, value_name = "PORT")]
    agent_port: Option<u16>,
    /// What its container keeps its things in
    #[arg(long, value_name = "VOLUME")]
    volume: Option<String>,
    /// How long to wait until it streams, in seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: AddArgs) -> Result<Exit> {
    let NodeAt(name, address) = args.node;
    let new = NewNode {
        address,
        priority: args.priority,
        failover: !args.no_failover,
        postgres_port: args.postgres_port,
        agent_port: args.agent_port,
        volume: args.volume,
    };
    let settings = context.settings()?;
    // One that was added by a run that was interrupted is gone on with.
    let edit = match settings.nodes.get(&name) {
        Some(there) if new.is(there) => None,
        _ => Some(Edit::add_node(&settings, &name, &new)?),
    };
    let after = edit.as_ref().map_or(&settings, Edit::settings);
    shares_its_witness(after)?;
    let others: Vec<NodeName> = after.nodes.keys().filter(|node| **node != name).cloned().collect();
    let all: Vec<NodeName> = after.nodes.keys().cloned().collect();
    let format = args.change.output.output;
    if args.change.dry_run {
        let mut steps = vec![Step::ChangeSettings { file: settings.file().display().to_string() }];
        steps.extend(others.iter().map(|node| Step::BeginAnew { node: node.clone() }));
        steps.push(Step::StartAgent { node: name.clone() });
        steps.push(Step::AwaitStreaming { nodes: all });
        output::plan(&Plan { steps }, format)?;
        return Ok(Exit::Done);
    }
    let before = context.cluster().await?;
    if before.document().await?.is_none() {
        return Err(Error::not_ready("there is no cluster yet that a node could be added to")
            .hint("write the node into cluster.toml, then `pgdock up`"));
    }
    let settings = match edit {
        Some(edit) => edit.write()?,
        None => settings,
    };
    Scaffold::add_missing_secrets(&settings, &SystemClock)?;
    let cluster = context.cluster().await?;
    let patience = Duration::from_secs(args.timeout);
    let (silent, now) = progress::during("adding the node", async |progress| {
        // A machine that is not fit keeps nobody else busy.
        let machines = if reach::is_local(&settings) {
            Vec::new()
        } else {
            reach::machines(&settings, std::slice::from_ref(&name))?
        };
        for machine in &machines {
            reach::prepare(machine, progress).await?;
        }
        let silent = membership::tell(&cluster, &others, false, progress).await?;
        progress.say(format!("starting {name}"));
        if machines.is_empty() {
            if local::agent_pid(settings.node(&name)?).is_none() {
                local::launch(context, &cluster, &name).await?;
            }
        } else {
            for machine in &machines {
                machine.start(|line| progress.say(format!("{name}: {line}"))).await?;
                config::bring(&settings, std::slice::from_ref(&name)).await?;
                machine.deliver_secrets().await?;
            }
            reach::answering(&cluster, &machines, std::slice::from_ref(&name)).await?;
        }
        let now = wait::until_well(&cluster, std::slice::from_ref(&name), patience, progress, |_| Ok(())).await?;
        Ok::<_, Error>((silent, now))
    })
    .await?;
    for node in silent {
        output::note(&format!("the agent of {node} does not run: it learns of {name} when it starts"));
    }
    match format {
        Format::Json => output::json(&now)?,
        Format::Table => output::data(&status::render(&now))?,
    }
    Ok(Exit::Done)
}
