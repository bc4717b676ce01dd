//! `pgdock config update`

use clap::Args;
use pgdock_core::bundle::install::Installed;
use pgdock_core::bundle::{Image, Store, store};
use pgdock_core::cluster::RollFirst;
use pgdock_core::{Error, NodeName, Result, Settings};

use super::reach::Reach;
#[cfg(feature = "registry")]
use super::remote::find;
use super::report;
use crate::cli::Output;
use crate::context::{Context, chosen};
use crate::exit::Exit;
use crate::output::{self, progress};

/// Bring a bundle to the nodes, all at once, and have them use it
///
/// Each node tries it on its own PostgreSQL, then switches in one step, and reloads. One that refuses it stays as it was.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Only these nodes
    nodes: Vec<NodeName>,
    /// The tag that was built; v1 stands for n1v1 of node n1
    #[arg(long, value_name = "TAG")]
    tag: String,
    /// Restart PostgreSQL where settings wait for it: standbys one by one, then the primary, after a switchover
    #[arg(long)]
    rolling: bool,
    #[command(flatten)]
    output: Output,
}

#[cfg(not(feature = "registry"))]
async fn find(_: &Settings, store: &Store, tag: &str) -> Result<Image> {
    store.get(tag).await
}

/// A node, and what it is to get.
pub(super) struct Target {
    pub(super) node: NodeName,
    pub(super) reach: Reach,
    pub(super) image: Image,
    pub(super) tag: String,
}

pub(crate) async fn run(context: &Context, args: UpdateArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let all: Vec<_> = settings.nodes.keys().cloned().collect();
    let kept = Store::beside(&settings.dir);
    // All images are there before any node is touched.
    let mut targets = Vec::new();
    for node in chosen(&settings, &args.nodes)? {
        let tag = store::tag_of(&args.tag, &node, &all)?;
        targets.push(Target {
            reach: Reach::to(&settings, &node)?,
            image: find(&settings, &kept, &tag).await?,
            tag,
            node,
        });
    }
    let results = progress::during("bringing the bundles to the nodes", async |_| {
        futures_util::future::join_all(targets.iter().map(|target| update(&settings, target))).await
    })
    .await;
    let exit = report::nodes(&results, args.output.output)?;
    if args.rolling {
        report::none_left(&results)?;
        let waiting: Vec<_> = results
            .iter()
            .filter(|(_, result)| {
                result.as_ref().is_ok_and(|done| done.applied.as_ref().is_some_and(|a| !a.restart.is_empty()))
            })
            .map(|(node, _)| node.clone())
            .collect();
        let order = order(&results)?;
        let cluster = context.cluster().await?;
        progress::during("restarting", async |progress| cluster.roll(&waiting, order, |step| progress.say(step)).await)
            .await?;
        let text = if waiting.is_empty() { "no setting waits for a restart" } else { "no setting waits any more" };
        output::note(text);
    } else {
        report::advise(&results);
    }
    Ok(exit)
}

/// Who is restarted first: a standby must have no less of some settings than its primary at any time.
fn order(results: &[(NodeName, Result<Installed>)]) -> Result<RollFirst> {
    let applied = || results.iter().filter_map(|(_, result)| result.as_ref().ok()?.applied.as_ref());
    let lowered = applied().find_map(|applied| applied.lowered.first());
    let raised = applied().find_map(|applied| applied.raised.first());
    match (lowered, raised) {
        (None, _) => Ok(RollFirst::Standbys),
        (Some(_), None) => Ok(RollFirst::Primary),
        (Some(lowered), Some(raised)) => Err(Error::needs_operator(format!(
            "nothing was restarted: one setting wants the primary first, another the standbys. lowered={lowered}, raised={raised}"
        ))
        .hint("take one of them back, update with --rolling, then change the other")),
    }
}

pub(super) async fn update(settings: &Settings, target: &Target) -> (NodeName, Result<Installed>) {
    let (reach, node) = (&target.reach, &target.node);
    let result = async {
        reach.secrets(settings, node).await?;
        let installed = reach.delivery(settings, node)?.update(&target.image, &target.tag).await;
        reach.own(settings, node).await?;
        installed
    };
    let result = result.await;
    (target.node.clone(), result)
}
