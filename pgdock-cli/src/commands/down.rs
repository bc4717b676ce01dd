//! `pgdock down`

use clap::Args;
use pgdock_core::cluster::plan;
use pgdock_core::deploy::Standing;
use pgdock_core::{NodeName, Result};

use crate::cli::Change;
use crate::context::{Context, chosen};
use crate::exit::Exit;
use crate::output::{self, progress};
use crate::{local, reach};

/// Stop the nodes' PostgreSQL and agents in order: standbys first, the leader last
///
/// A leader that leaves others behind hands the lead over first.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Only these nodes
    nodes: Vec<NodeName>,
    /// Kill what does not stop, and do not hand the lead over
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: DownArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let settings = cluster.settings();
    let nodes = chosen(settings, &args.nodes)?;
    let all: Vec<_> = settings.nodes.keys().cloned().collect();
    let machines = if reach::is_local(settings) { Vec::new() } else { reach::machines(settings, &all)? };
    let running: Vec<_> = if reach::is_local(settings) {
        settings.nodes.iter().filter(|(_, node)| local::is_up(node)).map(|(name, _)| name.clone()).collect()
    } else {
        let standings = reach::standings(&machines).await?;
        let up = all.into_iter().zip(standings).filter(|(_, s)| matches!(s, Standing::Running | Standing::Outdated));
        up.map(|(name, _)| name).collect()
    };
    let plan = plan::down(&cluster.status().await?, &nodes, &running, args.force)?;
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&plan, format)?;
        return Ok(Exit::Done);
    }
    progress::during("stopping", async |progress| {
        if machines.is_empty() {
            local::take_down(&cluster, &plan, progress).await
        } else {
            reach::take_down(&cluster, &machines, &plan, progress).await
        }
    })
    .await?;
    let names: Vec<_> = nodes.iter().filter(|node| running.contains(node)).map(NodeName::as_str).collect();
    let text = if names.is_empty() { "nothing ran".to_owned() } else { format!("stopped: {}", names.join(", ")) };
    output::done(&text, format)?;
    Ok(Exit::Done)
}
