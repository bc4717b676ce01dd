//! `pgdock config install`, `pgdock config installed`: what `update`, `rollback` and `history` run on the node.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use pgdock_core::bundle::Digest;
use pgdock_core::bundle::install::{self, Place};
use pgdock_core::clock::SystemClock;
use pgdock_core::{Error, NodeName, Result};

use crate::exit::Exit;
use crate::output;

/// The largest archive that is read, in bytes.
const ARCHIVE_MAX: u64 = 64 << 20;

/// Where the node is.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The node's home
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// The node
    #[arg(long, value_name = "NODE")]
    node: NodeName,
    /// The cluster
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The operator's folder, where that is on this machine
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl At {
    fn place(self) -> Place {
        Place {
            home: self.home,
            folder: self.folder,
            node: self.node,
            cluster: self.cluster,
            search_path: std::env::var_os("PATH"),
        }
    }
}

/// Put a bundle, read from standard input, on this node
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    at: At,
    /// What is to arrive
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    /// The tag that it comes under
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Go back to the bundle before, and read nothing
    #[arg(long, conflicts_with_all = ["digest", "tag"])]
    back: bool,
}

pub(crate) async fn run(args: InstallArgs) -> Result<Exit> {
    let place = args.at.place();
    let installed = if args.back {
        install::rollback(&place, &SystemClock).await?
    } else {
        let archive = tokio::task::spawn_blocking(read)
            .await
            .map_err(|e| Error::internal("reading was cut short").because(e))??;
        install::install(archive, args.digest.as_ref(), args.tag, &place, &SystemClock).await?
    };
    output::json(&installed)?;
    Ok(Exit::Done)
}

fn read() -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let read = std::io::stdin().lock().take(ARCHIVE_MAX + 1).read_to_end(&mut archive);
    read.map_err(|e| Error::unavailable("the bundle did not arrive").because(e).hint("send it anew"))?;
    Ok(archive)
}

/// Show what this node has
#[derive(Debug, Args)]
pub(crate) struct InstalledArgs {
    #[command(flatten)]
    at: At,
    /// Write the archive of the bundle that counts
    #[arg(long)]
    archive: bool,
}

pub(crate) fn show(args: InstalledArgs) -> Result<Exit> {
    let place = args.at.place();
    if args.archive {
        let bundle = install::current(&place)?;
        let mut out = std::io::stdout().lock();
        out.write_all(bundle.archive())
            .and_then(|()| out.flush())
            .map_err(|e| Error::internal("cannot write to stdout").because(e))?;
    } else {
        output::json(&install::list(&place)?)?;
    }
    Ok(Exit::Done)
}
