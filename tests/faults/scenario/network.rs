//! Networks that come apart, between nodes and on the way to the bucket.

use pgdock_core::{NodeName, Result, Role};

use super::Extent;
use crate::faults::campaign::Campaign;
use crate::faults::client::ROAMING;
use crate::faults::fault::{From, Way};
use crate::faults::lab::{Block, CLIENTS, How, WITNESS};

/// How many rights an outage outlasts that is as long in every run.
const RIGHTS: u32 = 3;

/// **3. Partition between primary and standby, with the bucket in reach of both.** Clients reach both nodes, too. One
/// of the two acknowledges all the while, the other one nothing; and once the network is whole, both are on one
/// timeline.
pub(super) async fn nodes_apart(on: &mut Campaign) -> Result<()> {
    let leader = on.ground.leader().await;
    let span = on.ground.history.hurt(leader.as_str(), "cut off from the other node");
    let cut = on.ground.lab.cut(on.ground.blocks(&leader, From::Peers, Way::Both, How::Drop)).await?;
    on.gets_on("while nodes do not hear each other").await;
    let since = on.now();
    tokio::time::sleep(on.ttl() * 2).await;
    let nodes = on.ground.cluster.nodes();
    let goes_on = |node: &&NodeName| on.ground.history.acknowledged_by(node.as_str(), since) > 0;
    let going_on: Vec<_> = nodes.iter().filter(goes_on).collect();
    let status = on.status().await?;
    let primaries: Vec<_> = status.nodes.iter().filter(|n| n.role == Role::Primary).map(|n| &n.name).collect();
    let exactly_one = going_on.len() == 1 && going_on == primaries;
    on.expect(exactly_one, format!("not exactly one goes on: {going_on:?} acknowledge, {primaries:?} are primary"));
    on.ground.lab.mend(cut).await?;
    on.ground.history.healed(span);
    on.well().await
}

/// **4. The primary is cut off from the bucket alone.** For longer than any right. It goes on, no other node takes the
/// lead, and all the while its right is renewed through the standby.
pub(super) async fn primary_cut_from_bucket(on: &mut Campaign, extent: &Extent) -> Result<()> {
    let before = on.reign().await?;
    let beat = heartbeat(on).await?;
    let blocks = on.ground.blocks(&before.leader, From::Witness, Way::Both, How::Drop);
    let span = on.ground.history.hurt(before.leader.as_str(), "cut off from witness");
    let cut = on.ground.lab.cut(blocks).await?;
    tokio::time::sleep(extent.pause).await;
    on.gets_on("while the primary alone does not reach the bucket").await;
    on.still_reigns(&before, "while the primary alone did not reach the bucket").await?;
    let after = heartbeat(on).await?;
    let leader = &before.leader;
    on.expect(after > beat + 1, format!("nobody renews what {leader} cannot: heartbeat {beat}, then {after}"));
    on.ground.lab.mend(cut).await?;
    on.ground.history.healed(span);
    on.well().await
}

/// **5. The bucket is down, for minutes.** As long as nodes hear each other, that demotes nobody. Then it is down, and the
/// primary does not hear the other node either: it cannot tell that it still leads, and acknowledges nothing, until
/// the bucket is back.
pub(super) async fn bucket_down(on: &mut Campaign, extent: &Extent) -> Result<()> {
    let before = on.reign().await?;
    let span = on.ground.history.hurt(WITNESS, "witness vanishes");
    let cut = on.ground.lab.cut(away(on)).await?;
    tokio::time::sleep(extent.outage).await;
    on.gets_on("while nobody reaches the bucket").await;
    on.ground.lab.mend(cut).await?;
    on.ground.history.healed(span);
    on.still_reigns(&before, "while nobody reached the bucket").await?;
    on.well().await?;

    let leader = on.ground.leader().await;
    let span = on.ground.history.hurt(WITNESS, "witness vanishes");
    let bucket = on.ground.lab.cut(away(on)).await?;
    tokio::time::sleep(on.ttl()).await;
    let apart = on.ground.history.hurt(leader.as_str(), "cut off from the other nodes");
    let peers = on.ground.lab.cut(on.ground.blocks(&leader, From::Peers, Way::Both, How::Drop)).await?;
    let since = on.now();
    tokio::time::sleep(on.ttl() * RIGHTS).await;
    let acknowledged = on.ground.history.acknowledged_since(since, 0..ROAMING);
    on.expect(
        acknowledged == 0,
        format!("{acknowledged} writes were acknowledged by a node that heard neither bucket nor peer"),
    );
    on.ground.lab.mend(bucket).await?;
    on.ground.history.healed(span);
    on.gets_on("once the bucket is back, with nodes that do not hear each other").await;
    on.ground.lab.mend(peers).await?;
    on.ground.history.healed(apart);
    on.well().await
}

/// Nothing gets from anybody to the witness, or back.
fn away(on: &Campaign) -> Vec<Block> {
    let nodes = on.ground.cluster.nodes();
    let hosts = nodes.iter().map(NodeName::as_str).chain([CLIENTS]);
    hosts.flat_map(|host| Block::both_ways(WITNESS, host, How::Drop)).collect()
}

/// How often the right to lead was renewed.
async fn heartbeat(on: &Campaign) -> Result<u64> {
    Ok(on.ground.cluster.cluster.document().await?.map_or(0, |d| d.heartbeat))
}
