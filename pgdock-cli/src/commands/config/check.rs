//! `pgdock config check`

use clap::Args;
use pgdock_core::bundle::Bundle;
use pgdock_core::{NodeName, Result};
use serde::Serialize;

use crate::cli::{Format, Output};
use crate::context::{Context, chosen};
use crate::exit::Exit;
use crate::output::{self, table::Table};

/// Check settings and files as a build would, and build nothing
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Only these nodes
    nodes: Vec<NodeName>,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Checked {
    node: NodeName,
    digest: String,
    files: usize,
    bytes: usize,
    settings: usize,
    hba: usize,
}

pub(crate) fn run(context: &Context, args: CheckArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let mut all = Vec::new();
    for node in chosen(&settings, &args.nodes)? {
        let bundle = Bundle::build(&settings, &node)?;
        let of = settings.node(&node)?;
        all.push(Checked {
            digest: bundle.digest().to_string(),
            files: bundle.manifest().files.len(),
            bytes: bundle.archive().len(),
            settings: of.settings.len(),
            hba: of.hba.len(),
            node,
        });
    }
    match args.output.output {
        Format::Json => output::json(&all)?,
        Format::Table => {
            let mut table = Table::new(["Node", "Files", "Bytes", "Settings", "HBA lines", "Bundle"]);
            for checked in all {
                table.row([
                    checked.node.to_string(),
                    checked.files.to_string(),
                    checked.bytes.to_string(),
                    checked.settings.to_string(),
                    checked.hba.to_string(),
                    super::list::short(&checked.digest).to_owned(),
                ]);
            }
            output::data(&table.to_string())?;
        }
    }
    Ok(Exit::Done)
}
