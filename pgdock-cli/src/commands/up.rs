//! `pgdock up`

use std::time::Duration;

use clap::Args;
use pgdock_core::clock::SystemClock;
use pgdock_core::cluster::plan;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::{NodeName, Result, witness};

use crate::cli::{Change, Format};
use crate::context::{Context, chosen, shares_its_witness};
use crate::exit::Exit;
use crate::output::{self, progress};
use crate::{local, output::status};

/// Start the nodes' agents in the background, and found the cluster where it is new
///
/// Agents that run already are left alone. Ends once there is a primary and the nodes stream from it.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Only these nodes
    nodes: Vec<NodeName>,
    /// How long to wait until all is well, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: UpArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let nodes = chosen(&settings, &args.nodes)?;
    shares_its_witness(&settings)?;
    let witness = witness::open(&settings.witness, &settings.cluster.name)?;
    let founded = witness.read().await?.is_some();
    let running: Vec<_> =
        nodes.iter().filter(|name| local::agent_pid(&settings.nodes[*name]).is_some()).cloned().collect();
    let plan = plan::up(founded, &local::first_node(&settings, &nodes)?, &nodes, &running);
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&plan, format)?;
        return Ok(Exit::Done);
    }
    Scaffold::add_missing_secrets(&settings, &SystemClock)?;
    let cluster = context.cluster().await?;
    let patience = Duration::from_secs(args.timeout);
    progress::during("starting", async |progress| {
        local::bring_up(context, &cluster, &plan, &nodes, patience, progress).await
    })
    .await?;
    let now = cluster.status().await?;
    match format {
        Format::Json => output::json(&now)?,
        Format::Table => output::data(&status::render(&now))?,
    }
    Ok(Exit::Done)
}
