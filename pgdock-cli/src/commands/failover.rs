//! `pgdock failover`

use clap::Args;
use pgdock_core::cluster::plan;
use pgdock_core::{NodeName, Result};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, progress};

/// Make a standby the primary though the leader is gone
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// The node that takes over
    #[arg(long, value_name = "NODE")]
    to: NodeName,
    /// Also where acknowledged commits may be missing there: the range that is lost is named
    #[arg(long)]
    allow_data_loss: bool,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: FailoverArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&plan::failover(&cluster.status().await?, &args.to, args.allow_data_loss)?, format)?;
        return Ok(Exit::Done);
    }
    let failover = cluster.failover(&args.to).allow_data_loss(args.allow_data_loss);
    progress::during("taking the lead over", async |_| failover.await).await?;
    output::done(&format!("{} is primary now", args.to), format)?;
    Ok(Exit::Done)
}
