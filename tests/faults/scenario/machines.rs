//! Machines that die, stand still, come back, or are wrong about the time.

use std::path::Path;
use std::time::Duration;

use pgdock_core::{NodeName, Result};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Extent, SOON};
use crate::faults::campaign::Campaign;
use crate::faults::fault::Part;
use crate::faults::history::Seen;
use crate::faults::setup::set_clock;
use crate::real::until;

/// How long a clock is wrong: it is noticed within a second.
const WRONG_FOR: Duration = Duration::from_secs(2);

/// What a machine that lost its power is brought back with.
struct Dead {
    node: NodeName,
    cut: u64,
    span: usize,
}

impl Campaign {
    /// Every process of a node is gone, and nothing answers at its address.
    async fn power_fails(&self, node: &NodeName) -> Result<Dead> {
        let span = self.ground.history.hurt(node.as_str(), "power lost");
        let cut = self.ground.unplug(node).await?;
        self.ground.kill(node, Part::Machine).await;
        Ok(Dead { node: node.clone(), cut, span })
    }

    /// The machine starts again, and with it all that shall run on it.
    async fn power_is_back(&self, dead: Dead) -> Result<()> {
        self.ground.lab.mend(dead.cut).await?;
        self.ground.revive(&dead.node);
        self.ground.history.healed(dead.span);
        Ok(())
    }
}

/// **1. Kill of the primary, in `sync`.** Every process of its node ends at once, and its address is gone, as when a
/// container is killed. The standby takes over, and clients are acknowledged again; how long that took is printed
/// (`longest_gap_ms`). By the verdict, all that was acknowledged before is there.
pub(super) async fn primary_killed(on: &mut Campaign) -> Result<()> {
    let old = on.ground.leader().await;
    let dead = on.power_fails(&old).await?;
    on.taken_over(&old).await?;
    on.gets_on("though the standby took over").await;
    on.power_is_back(dead).await?;
    on.well().await?;
    on.follows(&old).await
}

/// **2. Pause of the primary for a minute, and thaw.** Every process of its node is stopped in the midst of what it
/// does, also the deadman, and goes on when another node has led for long. From the moment at which it stood still
/// it acknowledges nothing, neither to clients that are connected nor to the one on the same machine.
pub(super) async fn primary_paused(on: &mut Campaign, extent: &Extent) -> Result<()> {
    let old = on.ground.leader().await;
    let span = on.ground.history.hurt(old.as_str(), "machine stopped");
    on.ground.lab.freeze(old.as_str()).await;
    let frozen = on.now();
    on.taken_over(&old).await?;
    on.gets_on("though the standby took over").await;
    // The pause is the fault.
    tokio::time::sleep(extent.pause).await;
    on.ground.lab.thaw(old.as_str()).await;
    on.ground.history.healed(span);
    on.well().await?;
    on.acknowledged_nothing(&old, frozen, "after it had been frozen");
    on.follows(&old).await
}

/// **7. Reboot of the primary's host, with `restart: always`.** All of it dies, the standby takes over, and then the
/// agent starts by itself on the data directory of a primary that crashed. The client on that machine sees it come up
/// read-only, and never anything else.
pub(super) async fn host_reboot(on: &mut Campaign) -> Result<()> {
    let old = on.ground.leader().await;
    let dead = on.power_fails(&old).await?;
    on.taken_over(&old).await?;
    on.gets_on("though the standby took over").await;
    let booted = on.now();
    on.power_is_back(dead).await?;
    on.well().await?;
    on.acknowledged_nothing(&old, booted, "after its host had started again");
    let seen = on.ground.history.seen_since(old.as_str(), booted);
    let read_only = seen.contains(&Seen::Standby) && !seen.iter().any(|s| matches!(s, Seen::Primary | Seen::Waiting));
    on.expect(read_only, format!("{old} did not come up read-only: {seen:?}"));
    on.follows(&old).await
}

/// **11. Clock step of an hour, ahead and back.** The calendar clock of one node after the other jumps, for its agent
/// and for its PostgreSQL, and jumps back. The lead stays where it is, and no event tells of anything.
pub(super) async fn clocks_jump(on: &mut Campaign) -> Result<()> {
    let before = (on.reign().await?, on.upheavals().await?);
    let nodes = on.ground.cluster.nodes();
    for hours in [1, -1] {
        for node in &nodes {
            let span = on.ground.history.hurt(node.as_str(), &format!("clock {hours:+} h"));
            set_clock(on.ground.lab.dir(), node.as_str(), hours)?;
            tokio::time::sleep(WRONG_FOR).await;
            on.gets_on(&format!("with the clock of {node} {hours:+} h")).await;
            set_clock(on.ground.lab.dir(), node.as_str(), 0)?;
            on.ground.history.healed(span);
        }
    }
    on.well().await?;
    on.still_reigns(&before.0, "when clocks jumped").await?;
    let after = on.upheavals().await?;
    on.expect(after == before.1, format!("clocks that jump were noticed: {:?}, then {after:?}", before.1));
    Ok(())
}

/// The failover address of that scenario.
const ADDRESS: &str = "10.77.0.100";

impl Campaign {
    /// Whether a node's machine holds the failover address.
    fn holds_address(&self, node: &NodeName) -> bool {
        let shown = self.ground.lab.command(node.as_str(), Path::new("ip")).args(["-o", "addr", "show"]).output();
        shown.is_ok_and(|shown| String::from_utf8_lossy(&shown.stdout).contains(&format!(" {ADDRESS}/")))
    }

    /// Waits until one node's machine holds it, and no other one does.
    async fn address_at(&self, node: &NodeName) -> Result<()> {
        let alone = async || self.ground.cluster.nodes().iter().all(|n| self.holds_address(n) == (n == node));
        until(&format!("{node} alone holds the failover address"), SOON, alone).await
    }

    /// A client that knows only the failover address comes to PostgreSQL there: it waits for it to take connections.
    async fn answers_at_the_address(&self) -> Result<()> {
        let node = &self.ground.cluster.nodes()[0];
        let port = self.ground.cluster.settings.node(node)?.postgres_port;
        until("PostgreSQL answers at the failover address", SOON, async || {
            let talk = async {
                let mut stream = TcpStream::connect((ADDRESS, port)).await?;
                // It asks for TLS, which every server here offers.
                stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
                stream.read_u8().await
            };
            matches!(tokio::time::timeout(Duration::from_secs(1), talk).await, Ok(Ok(b'S')))
        })
        .await
    }
}

/// **16. The leader's machine holds the failover address, and its agent hangs.** It cannot take the address off, so its
/// deadman does, when the right ends. The next leader has it, and clients come to that one; the old one, thawed, has
/// lost it, and comes back as a standby.
pub(super) async fn address_left_behind(on: &mut Campaign) -> Result<()> {
    let old = on.ground.leader().await;
    on.address_at(&old).await?;
    on.answers_at_the_address().await?;
    let span = on.ground.history.hurt(old.as_str(), "agent stopped");
    on.ground.stop(&old, Part::Agent).await;
    let new = on.taken_over(&old).await?;
    on.address_at(&new).await?;
    on.answers_at_the_address().await?;
    on.gets_on("though the standby took over").await;
    on.ground.lab.thaw(old.as_str()).await;
    on.ground.history.healed(span);
    on.well().await?;
    on.address_at(&new).await?;
    on.follows(&old).await
}
