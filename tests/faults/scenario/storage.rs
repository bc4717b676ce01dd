//! Disks, and the store that the witness is in.

use std::path::Path;
use std::time::Duration;

use pgdock_core::event::EventKind;
use pgdock_core::{NodeName, Result};
use pgdock_testkit::{Conditions, Faults};

use super::SOON;
use crate::faults::campaign::Campaign;
use crate::faults::hurt::Ballast;
use crate::faults::store::Store;
use crate::real::{RealCluster, until};

/// What is left of a disk that is almost full: less than `disk_free_min`, and enough for PostgreSQL to stop in order.
const ALMOST: u64 = 96 << 20;
/// How often PostgreSQL may crash on a disk that is full at once before its node gives up the lead.
const CRASHES_MAX: usize = 2;

/// **12. A store that ignores `If-Match`.** Before there is a cluster: founding one is refused, with the reason, and there
/// is neither a document nor a data directory after. What must not be comes back.
///
/// # Errors
/// Where the test itself cannot do what it should.
pub(in crate::faults) async fn founds_nothing_on(store: &Store, cluster: &RealCluster) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for conditions in [Conditions::Ignored, Conditions::CheckedThenSet] {
        store.set(&Faults { conditions, ..Faults::default() })?;
        for node in cluster.nodes() {
            cluster.start_agent(&node);
        }
        let first = cluster.nodes().remove(0);
        let deadline = std::time::Instant::now() + SOON;
        let refusal = loop {
            match cluster.cluster.bootstrap(&first).await {
                // The agent does not listen yet.
                Err(e) if e.is_retryable() && std::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                founded => break founded,
            }
        };
        match refusal {
            Ok(()) => wrong.push(format!("{conditions:?}: a cluster was founded")),
            Err(error) if error.chain().contains("racers win") => {}
            Err(error) => wrong.push(format!("{conditions:?}: refused for another reason: {}", error.chain())),
        }
        let probed = cluster.pgdock(&["witness", "probe"]).await?;
        let said = String::from_utf8_lossy(&probed.stderr);
        if probed.status.success() || !said.contains("racers win") {
            wrong.push(format!("{conditions:?}: the store passes its probe: {probed:?}"));
        }
        for node in cluster.nodes() {
            cluster.stop_agent(&node).await?;
            if cluster.data_dir(&node).join("PG_VERSION").exists() {
                wrong.push(format!("{conditions:?}: there is a data directory on {node}"));
            }
        }
        if cluster.cluster.document().await?.is_some() {
            wrong.push(format!("{conditions:?}: there is a document"));
        }
    }
    store.set(&Faults::default())?;
    Ok(wrong)
}

/// **12, the end of it.** The same store has been mended, and a cluster was founded on it: clients get on.
pub(super) async fn store_mended(on: &mut Campaign) -> Result<()> {
    on.gets_on("on a store that was mended").await;
    on.well().await
}

/// **14. The primary's disk is full.** First it is almost full: the primary hands over in order, and its PostgreSQL never
/// panics. Then the disk of the new primary is full at once, to the last block: PostgreSQL panics for want of
/// WAL, and the node gives up the lead instead of having PostgreSQL crash again and again.
pub(super) async fn disk_full(on: &mut Campaign) -> Result<()> {
    let old = on.ground.leader().await;
    let home = on.ground.cluster.settings.nodes[&old].home.clone();
    let handed_over = on.told(&old, EventKind::Handover).await?;
    let span = on.ground.history.hurt(old.as_str(), "disk almost full");
    let ballast = Ballast::leaving(&home, ALMOST)?;
    let new = on.taken_over(&old).await?;
    on.gets_on("after the lead was handed over").await;
    let panics = panicked(&home);
    on.expect(panics == 0, format!("{old} panicked {panics} times before it handed over"));
    drop(ballast);
    on.ground.history.healed(span);
    on.well().await?;
    let in_order = on.told(&old, EventKind::Handover).await? > handed_over;
    on.expect(in_order, format!("{old} did not hand over in order"));

    let home = on.ground.cluster.settings.nodes[&new].home.clone();
    let before = on.told(&new, EventKind::PostgresExited).await?;
    let span = on.ground.history.hurt(new.as_str(), "disk full");
    let ballast = Ballast::full(&home)?;
    write_wal(on, &new).await?;
    on.taken_over(&new).await?;
    on.gets_on("after the lead was given up").await;
    // That is in the memory of its agent. Its PostgreSQL has no room to write down that it panics.
    let crashes = on.told(&new, EventKind::PostgresExited).await? - before;
    on.expect(
        crashes > 0,
        format!("{new} had WAL to write and no room, and did not panic: the scenario does not bite"),
    );
    on.expect(crashes <= CRASHES_MAX, format!("{new} crashed {crashes} times before it gave up the lead"));
    // Were it to go on, it would by now.
    tokio::time::sleep(on.ttl()).await;
    let later = on.told(&new, EventKind::PostgresExited).await? - before;
    on.expect(later == crashes, format!("{new} goes on crashing without the lead: {crashes} times, then {later}"));
    drop(ballast);
    // An agent that was started meanwhile ended for want of room. Service managers start it again.
    on.ground.revive(&new);
    on.ground.history.healed(span);
    on.well().await
}

/// Has a node's PostgreSQL write WAL, and nothing else, for as long as it can: first into segments that it has, and then
/// it needs room for another one.
async fn write_wal(on: &Campaign, node: &NodeName) -> Result<()> {
    let client = on.ground.cluster.route_to(node)?.connect().await?;
    let message = "SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1 << 20))";
    until("PostgreSQL has no room for WAL", SOON, async || client.execute(message, &[]).await.is_err()).await
}

/// How often a node's PostgreSQL has panicked.
fn panicked(home: &Path) -> usize {
    let log = std::fs::read_to_string(home.join("logs/postgresql.log")).unwrap_or_default();
    log.matches("PANIC:").count()
}
