//! `pgdock bootstrap`

use std::time::Duration;

use clap::Args;
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::cluster::plan::{self, Plan, Step};
use pgdock_core::{Cluster, Error, ErrorKind, NodeName, Result};

use crate::cli::{Change, Format};
use crate::context::{Context, shares_its_witness};
use crate::exit::Exit;
use crate::output::progress::Progress;
use crate::output::{self, progress, status};
use crate::{local, wait};

/// How long an agent may take until it answers: one that has just got its configuration is about to.
const AGENTS_START_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(200);

/// Found a cluster whose agents run already, each on a machine of its own
///
/// The first node makes a data directory and the witness's document; the others copy it. Ends once there is a primary and
/// the nodes stream from it. Called again, it only waits for that.
#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// The first node [default: the one with the highest priority]
    node: Option<NodeName>,
    /// How long to wait until all is well, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: BootstrapArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let settings = cluster.settings();
    shares_its_witness(settings)?;
    let nodes: Vec<NodeName> = settings.nodes.keys().cloned().collect();
    let first = match args.node {
        Some(node) => node,
        None => local::first_node(settings, &nodes)?,
    };
    if !settings.node(&first)?.failover {
        return Err(Error::invalid(format!("this node may not lead: a cluster cannot be founded on it. node={first}"))
            .hint("name another one, or take `failover = false` off"));
    }
    let patience = if args.change.dry_run { Duration::ZERO } else { AGENTS_START_WITHIN };
    let plan =
        progress::during("looking at the nodes", async |progress| planned(&cluster, &first, patience, progress).await)
            .await?;
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&plan, format)?;
        return Ok(Exit::Done);
    }
    let now = progress::during("founding the cluster", async |progress| {
        if plan.steps.iter().any(|step| matches!(step, Step::Bootstrap { .. })) {
            progress.say(format!("founding the cluster on {first}"));
            cluster.bootstrap(&first).await?;
        }
        wait::until_well(&cluster, &nodes, Duration::from_secs(args.timeout), progress, |_| Ok(())).await
    })
    .await?;
    match format {
        Format::Json => output::json(&now)?,
        Format::Table => output::data(&status::render(&now))?,
    }
    Ok(Exit::Done)
}

/// What is to be done, once all agents answer.
async fn planned(cluster: &Cluster, first: &NodeName, patience: Duration, progress: &Progress) -> Result<Plan> {
    let deadline = SystemClock.now() + patience;
    loop {
        match plan::bootstrap(&cluster.status().await?, first) {
            Err(error) if error.kind() == ErrorKind::NotReady && SystemClock.now() < deadline => {
                progress.say(format!("waiting: {error}"));
                tokio::time::sleep(POLL).await;
            }
            planned => return planned,
        }
    }
}
