//! `pgdock config list`

use clap::Args;
use pgdock_core::Result;
use pgdock_core::bundle::Store;
use serde::Serialize;

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, table::Table};

/// List the images that were built or pulled here
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Row {
    tag: String,
    node: String,
    digest: String,
    image: String,
    bytes: usize,
    commit: Option<String>,
}

pub(crate) async fn run(context: &Context, args: ListArgs) -> Result<Exit> {
    let store = Store::beside(&context.settings()?.dir);
    let mut rows = Vec::new();
    for tag in store.tags()? {
        let image = store.get(&tag).await?;
        let manifest = image.bundle.manifest();
        rows.push(Row {
            tag,
            node: manifest.node.to_string(),
            digest: image.bundle.digest().to_string(),
            image: image.digest().to_string(),
            bytes: image.bundle.archive().len(),
            commit: image.labels().get("org.opencontainers.image.revision").cloned(),
        });
    }
    match args.output.output {
        Format::Json => output::json(&rows)?,
        Format::Table => {
            let mut table = Table::new(["Tag", "Node", "Bundle", "Bytes", "Commit"]);
            for row in rows {
                let commit = row.commit.map(|c| c.chars().take(12).collect()).unwrap_or_default();
                table.row([row.tag, row.node, short(&row.digest).to_owned(), row.bytes.to_string(), commit]);
            }
            output::data(&table.to_string())?;
        }
    }
    Ok(Exit::Done)
}

/// As much of a digest as a person needs.
pub(super) fn short(digest: &str) -> &str {
    digest.strip_prefix("sha256:").and_then(|hex| hex.get(..12)).unwrap_or(digest)
}
