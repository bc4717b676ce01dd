//! Brings nodes the configuration of the folder as it is now, for commands that change `cluster.toml` themselves.

use futures_util::future::join_all;
use pgdock_core::bundle::ledger::Bundles;
use pgdock_core::bundle::{Bundle, Image, Store};
use pgdock_core::settings::ExecutorKind;
use pgdock_core::{NodeName, Result, Settings};

use super::reach::Reach;
use super::update::{Target, update};
use super::{build, source};
use crate::reach::gather;

/// Builds the bundles of these nodes, each under its next tag, and has the nodes use them. On this machine only a node that
/// has used one before needs one: the others read the folder.
pub(crate) async fn bring(settings: &Settings, nodes: &[NodeName]) -> Result<()> {
    let store = Store::beside(&settings.dir);
    let mut targets = Vec::new();
    for node in nodes {
        let home = &settings.node(node)?.home;
        let local = settings.cluster.executor == ExecutorKind::Local;
        if local && !Bundles::of(home).current_dir().join("bundle.json").is_file() {
            continue;
        }
        let image = Image::pack(Bundle::build(settings, node)?, source::of(&settings.dir, node).as_ref())?;
        let tag = build::next(&store, node, &image).await?;
        store.put(&image, &tag, false)?;
        targets.push(Target { reach: Reach::to(settings, node)?, image, tag, node: node.clone() });
    }
    let brought = join_all(targets.iter().map(|target| update(settings, target))).await;
    gather(brought.into_iter().map(|(_, result)| result.map(drop)).collect()).map(drop)
}
