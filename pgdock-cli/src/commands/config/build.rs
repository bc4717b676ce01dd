//! `pgdock config build`

use std::path::PathBuf;

use clap::Args;
use pgdock_core::bundle::store::{self, Put};
use pgdock_core::bundle::{Bundle, Image, Store};
use pgdock_core::{Error, NodeName, Result};
use serde::Serialize;

use super::source;
use crate::cli::{Format, Output};
use crate::context::{Context, chosen};
use crate::exit::Exit;
use crate::output::{self, table::Table};

/// Check the folder, and build a bundle for each node
///
/// The same files make the same digest. Whatever looks like a secret refuses the build.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Only these nodes
    nodes: Vec<NodeName>,
    /// The tag; v1 stands for n1v1 of node n1 [default: the next number of each node]
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Have a tag that is there already stand for the new bundle
    #[arg(long)]
    replace: bool,
    /// Write the image to a file as well, for `docker load`; one node only
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Built {
    node: NodeName,
    tag: String,
    digest: String,
    image: String,
    commit: Option<String>,
    state: &'static str,
}

pub(crate) async fn run(context: &Context, args: BuildArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let nodes = chosen(&settings, &args.nodes)?;
    if args.export.is_some() && nodes.len() != 1 {
        return Err(Error::invalid("one image goes into a file").hint("name one node"));
    }
    let all: Vec<_> = settings.nodes.keys().cloned().collect();
    // All are built before any is kept.
    let mut bundles = Vec::new();
    for node in nodes {
        let tag = args.tag.as_deref().map(|tag| store::tag_of(tag, &node, &all)).transpose()?;
        let image = Image::pack(Bundle::build(&settings, &node)?, source::of(&settings.dir, &node).as_ref())?;
        bundles.push((node, tag, image));
    }
    let store = Store::beside(&settings.dir);
    let mut built = Vec::new();
    for (node, tag, image) in bundles {
        let tag = match tag {
            Some(tag) => tag,
            None => next(&store, &node, &image).await?,
        };
        let state = match store.put(&image, &tag, args.replace)? {
            Put::New => "built",
            Put::Same => "unchanged",
            Put::Replaced => "replaced",
        };
        if let Some(file) = &args.export {
            let archive = image.export(&format!("pgdock/{}:{tag}", settings.cluster.name))?;
            std::fs::write(file, archive)
                .map_err(|e| Error::invalid(format!("cannot write. file={}", file.display())).because(e))?;
        }
        built.push(Built {
            node,
            tag,
            digest: image.bundle.digest().to_string(),
            image: image.digest().to_string(),
            commit: image.labels().get("org.opencontainers.image.revision").cloned(),
            state,
        });
    }
    match args.output.output {
        Format::Json => output::json(&built)?,
        Format::Table => {
            let mut table = Table::new(["Node", "Tag", "Bundle", "Commit", "State"]);
            for b in built {
                let commit = b.commit.map(|c| c.chars().take(12).collect()).unwrap_or_default();
                table.row([
                    b.node.to_string(),
                    b.tag,
                    super::list::short(&b.digest).to_owned(),
                    commit,
                    b.state.to_owned(),
                ]);
            }
            output::data(&table.to_string())?;
        }
    }
    Ok(Exit::Done)
}

/// The tag of an image that nobody named: its own where it is the newest already, the next number otherwise.
pub(super) async fn next(store: &Store, node: &NodeName, image: &Image) -> Result<String> {
    let tags = store.tags()?;
    if let Some(newest) = tags.iter().rev().find(|tag| tag.starts_with(&format!("{node}v")))
        && store.get(newest).await.is_ok_and(|kept| kept.digest() == image.digest())
    {
        return Ok(newest.clone());
    }
    Ok(store::next_tag(node, &tags))
}
