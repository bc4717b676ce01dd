//! `pgdock node prepare`

use std::path::PathBuf;

use clap::Args;
use futures_util::future::join_all;
use pgdock_core::clock::SystemClock;
use pgdock_core::deploy::{Check, Verdict};
use pgdock_core::{Error, NodeName, Result};

use crate::cli::{Change, Format};
use crate::context::{Context, chosen};
use crate::exit::Exit;
use crate::output::table::Table;
use crate::output::{self, progress};
use crate::reach;

/// See to it that a node can run on its machine: look at clock, disk, ports, users and PostgreSQL, then make what is missing
///
/// Over SSH: the user, the folder, this program, and a service of systemd. With containers: the image is looked at, and the volume
/// given to its user. Run again, it changes nothing.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// The nodes [default: all]
    nodes: Vec<NodeName>,
    /// The pgdock that is brought there [default: this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: PrepareArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let nodes = chosen(&settings, &args.nodes)?;
    let machines = reach::machines(&settings, &nodes)?;
    let program = args.program.map_or_else(std::env::current_exe, Ok).and_then(std::fs::read);
    let program = program.map_err(|e| Error::invalid("the program cannot be read").because(e))?;
    let dry_run = args.change.dry_run;
    let prepared = progress::during("looking at the machines", async |progress| {
        let each = join_all(machines.iter().map(async |machine| {
            let node = machine.node();
            let checks = if dry_run {
                machine.inspect(&program, &SystemClock).await
            } else {
                machine.prepare(&program, &SystemClock, |step| progress.say(format!("{node}: {step}"))).await
            };
            checks.map(|checks| (node.clone(), checks))
        }));
        reach::gather(each.await)
    })
    .await?;
    match args.change.output.output {
        Format::Json => {
            let all: Vec<_> =
                prepared.iter().map(|(node, checks)| serde_json::json!({ "node": node, "checks": checks })).collect();
            output::json(&all)?;
        }
        Format::Table => output::data(&table(&prepared).to_string())?,
    }
    let bad = prepared.iter().flat_map(|(_, checks)| checks).any(|check| matches!(check.verdict, Verdict::Bad(_)));
    Ok(if bad { Exit::Unhealthy } else { Exit::Done })
}

fn table(prepared: &[(NodeName, Vec<Check>)]) -> Table {
    let mut table = Table::new(["Node", "What", "Found", "To do"]);
    for (node, checks) in prepared {
        for check in checks {
            let todo = match &check.verdict {
                Verdict::Todo(what) => what.clone(),
                Verdict::Bad(remedy) => format!("you: {remedy}"),
                _ => String::new(),
            };
            table.row([node.to_string(), check.what.clone(), check.found.clone(), todo]);
        }
    }
    table
}
