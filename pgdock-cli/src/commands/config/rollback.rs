//! `pgdock config rollback`

use clap::Args;
use pgdock_core::{NodeName, Result};

use super::reach::Reach;
use super::report;
use crate::cli::Output;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::progress;

/// Have nodes go back to the bundle before
///
/// The node still has it: nothing is sent. The one that is left is not gone back to again.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The nodes
    #[arg(required = true)]
    nodes: Vec<NodeName>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: &Context, args: RollbackArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let mut targets = Vec::new();
    for node in crate::context::chosen(&settings, &args.nodes)? {
        targets.push((Reach::to(&settings, &node)?, node));
    }
    let one = async |(reach, node): &(Reach, NodeName)| {
        let result = match reach.delivery(&settings, node) {
            Ok(delivery) => delivery.rollback().await,
            Err(error) => Err(error),
        };
        (node.clone(), result)
    };
    let results =
        progress::during("going back", async |_| futures_util::future::join_all(targets.iter().map(one)).await).await;
    let exit = report::nodes(&results, args.output.output)?;
    report::advise(&results);
    Ok(exit)
}
