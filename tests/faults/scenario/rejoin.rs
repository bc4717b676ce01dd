//! Nodes that come back with too much, or too little.

use std::time::{Duration, Instant};

use pgdock_core::event::EventKind;
use pgdock_core::{Error, NodeName, Result};
use rustix::process::Pid;

use super::SOON;
use crate::faults::campaign::Campaign;
use crate::faults::fault::Part;
use crate::real::until;

/// How often a process is looked for that lives for a moment.
const POLL: Duration = Duration::from_millis(1);

/// **8. A rewind is interrupted.** An old primary holds WAL that nobody else has. Its machine is shot while `pg_rewind`
/// runs, so that the data directory is neither the old one nor the new one. Nobody starts it: it is copied anew.
pub(super) async fn rewind_interrupted(on: &mut Campaign) -> Result<()> {
    let old = on.ground.leader().await;
    let cloned = on.told(&old, EventKind::Cloned).await?;
    let span = on.ground.history.hurt(old.as_str(), "power lost, with WAL that nobody else has");
    on.ground.diverge(&old).await?;
    on.ground.history.healed(span);
    on.expect(caught(on, &old, "pg_rewind").await, format!("nothing was rewound on {old}"));
    let span = on.ground.history.hurt(old.as_str(), "machine shot in rewind");
    on.ground.kill(&old, Part::Machine).await;
    let interrupted = on.ground.cluster.settings.nodes[&old].home.join("rewinding").exists();
    on.ground.revive(&old);
    on.ground.history.healed(span);
    on.expect(interrupted, "the rewind was over before it was shot");
    on.well().await?;
    on.follows(&old).await?;
    let now = on.told(&old, EventKind::Cloned).await?;
    on.expect(now == cloned + 1, format!("{old} was copied {} times after its rewind was interrupted", now - cloned));
    Ok(())
}

/// Waits until a program runs on a node.
async fn caught(on: &Campaign, node: &NodeName, program: &str) -> bool {
    let runs = |pid: Pid| {
        let exe = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
        exe.is_ok_and(|exe| exe.ends_with(program))
    };
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if on.ground.lab.processes(node.as_str()).into_iter().any(runs) {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}

/// **9. A standby is away past `max_slot_wal_keep_size`.** The WAL that it needs next is gone when it is back. It copies
/// the leader by itself, and has a slot again that keeps WAL for it. (There is no archive that it could fetch the
/// WAL from instead.)
pub(super) async fn standby_away_too_long(on: &mut Campaign) -> Result<()> {
    let failed = |e: tokio_postgres::Error| Error::unavailable("a statement failed").because(e);
    let primary = on.ground.leader().await;
    let standby = on.other(&primary);
    let cloned = on.told(&standby, EventKind::Cloned).await?;
    let span = on.ground.history.hurt(standby.as_str(), "away past max_slot_wal_keep_size");
    on.ground.kill(&standby, Part::Machine).await;
    on.gets_on("without the standby").await;
    let client = on.ground.cluster.route_to(&primary)?.connect().await?;
    // What the standby needs next is in here, or before.
    let needed: String =
        client.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await.map_err(failed)?.get(0);
    client.batch_execute("CREATE TABLE ballast (filler text)").await.map_err(failed)?;
    let wal = on.ground.cluster.data_dir(&primary).join("pg_wal");
    until("the WAL that the standby needs is gone", SOON * 2, async || {
        // Enough for a checkpoint, which removes WAL.
        let more =
            "INSERT INTO ballast SELECT repeat(md5(n::text), 100) FROM generate_series(1, 8000) n; TRUNCATE ballast";
        client.batch_execute(more).await.is_ok() && oldest_segment(&wal) > Some(needed.clone())
    })
    .await?;
    on.ground.revive(&standby);
    on.ground.history.healed(span);
    // It is taken for one that streams for a moment, until the leader has told it that the WAL is gone.
    let ground = &on.ground;
    until("the standby is copied", SOON, async || {
        let events = ground.cluster.cluster.events(None).await.map(|seen| seen.events).unwrap_or_default();
        events.iter().filter(|e| e.node == standby && e.kind == EventKind::Cloned).count() > cloned
    })
    .await?;
    on.well().await?;
    let slot = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active AND wal_status <> 'lost'";
    let client = on.ground.cluster.route_to(&primary)?.connect().await?;
    let slots: i64 = client.query_one(slot, &[&standby.slot()]).await.map_err(failed)?.get(0);
    on.expect(slots == 1, format!("{standby} has no slot that keeps WAL for it"));
    on.follows(&standby).await
}

fn oldest_segment(wal: &std::path::Path) -> Option<String> {
    let names = std::fs::read_dir(wal).ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.len() == 24).min()
}
