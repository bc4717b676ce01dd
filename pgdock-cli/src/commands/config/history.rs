//! `pgdock config history`

use clap::Args;
use pgdock_core::{NodeName, Result};

use super::reach::Reach;
use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, table::Table};

/// Show which bundles a node has had, and which one counts
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The node
    node: NodeName,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: &Context, args: HistoryArgs) -> Result<Exit> {
    let settings = context.settings()?;
    settings.node(&args.node)?;
    let reach = Reach::to(&settings, &args.node)?;
    let listing = reach.delivery(&settings, &args.node)?.list().await?;
    match args.output.output {
        Format::Json => output::json(&listing)?,
        Format::Table => {
            let mut table = Table::new(["  Tag", "Bundle", "Since", "By", "PostgreSQL ran", "Note"]);
            let last = listing.entries.len().saturating_sub(1);
            for (i, entry) in listing.entries.iter().enumerate() {
                let mark = if i == last { "* " } else { "  " };
                table.row([
                    format!("{mark}{}", entry.tag.as_deref().unwrap_or_default()),
                    entry.digest.short().to_owned(),
                    entry.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
                    entry.how.to_string(),
                    if entry.proven { "yes" } else { "not yet" }.to_owned(),
                    entry.note.clone().unwrap_or_else(|| if entry.undone { "left".to_owned() } else { String::new() }),
                ]);
            }
            output::data(&table.to_string())?;
        }
    }
    Ok(Exit::Done)
}
