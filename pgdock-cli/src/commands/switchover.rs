//! `pgdock switchover`

use clap::Args;
use pgdock_core::cluster::plan;
use pgdock_core::{NodeName, Result};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, progress};

/// Hand the lead over to a standby, without loss
#[derive(Debug, Args)]
pub(crate) struct SwitchoverArgs {
    /// To whom [default: the best standby]
    #[arg(long, value_name = "NODE")]
    to: Option<NodeName>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: SwitchoverArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&plan::switchover(&cluster.status().await?, args.to.as_ref())?, format)?;
        return Ok(Exit::Done);
    }
    let mut switchover = cluster.switchover();
    if let Some(to) = args.to {
        switchover = switchover.to(to);
    }
    let primary = progress::during("handing the lead over", async |_| switchover.await).await?;
    output::done(&format!("{primary} is primary now"), format)?;
    Ok(Exit::Done)
}
