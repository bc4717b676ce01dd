//! `pgdock config diff`

use clap::Args;
use pgdock_core::bundle::diff::{Difference, FileChange};
use pgdock_core::bundle::{Bundle, Store};
use pgdock_core::{NodeName, Result, Settings};

use super::reach::Reach;
use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Show what differs between two bundles: settings, lines of pg_hba.conf, files
///
/// A tag means an image that is kept here, a node the bundle that it runs with, and NODE@folder what a build would make now.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A tag, a node, or NODE@folder
    old: String,
    /// The same
    new: String,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: &Context, args: DiffArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let (old, new) = (find(&settings, &args.old).await?, find(&settings, &args.new).await?);
    let difference = Difference::between(&old, &new)?;
    match args.output.output {
        Format::Json => output::json(&difference)?,
        Format::Table if difference.is_empty() => output::note("nothing differs"),
        Format::Table => output::data(&render(&difference))?,
    }
    Ok(Exit::Done)
}

async fn find(settings: &Settings, what: &str) -> Result<Bundle> {
    if let Some(node) = what.strip_suffix("@folder").and_then(|node| NodeName::new(node).ok()) {
        return Bundle::build(settings, &node);
    }
    match NodeName::new(what) {
        Ok(node) if settings.nodes.contains_key(&node) => {
            Reach::to(settings, &node)?.delivery(settings, &node)?.current().await
        }
        _ => Ok(Store::beside(&settings.dir).get(what).await?.bundle),
    }
}

fn render(difference: &Difference) -> String {
    let mut lines = Vec::new();
    let heading = |lines: &mut Vec<String>, text: &str| {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(text.to_owned());
    };
    if !difference.settings.is_empty() {
        heading(&mut lines, "Settings:");
        for (name, (old, new)) in &difference.settings {
            lines.extend(old.iter().map(|value| format!("  - {name} = {value}")));
            lines.extend(new.iter().map(|value| format!("  + {name} = {value}")));
        }
    }
    if !difference.hba_removed.is_empty() || !difference.hba_added.is_empty() || difference.hba_moved {
        heading(&mut lines, "pg_hba.conf:");
        lines.extend(difference.hba_removed.iter().map(|line| format!("  - {line}")));
        lines.extend(difference.hba_added.iter().map(|line| format!("  + {line}")));
        if difference.hba_moved {
            lines.push("  the same lines, in another order".to_owned());
        }
    }
    if !difference.files.is_empty() {
        heading(&mut lines, "Files:");
        for (path, change) in &difference.files {
            match change {
                FileChange::Added => lines.push(format!("  + {path}")),
                FileChange::Removed => lines.push(format!("  - {path}")),
                FileChange::Changed { lines: changed } => {
                    lines.push(format!("  * {path}"));
                    lines.extend(changed.iter().map(|line| format!("      {line}")));
                }
            }
        }
    }
    lines.join("\n")
}
