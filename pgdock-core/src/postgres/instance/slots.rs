//! The physical replication slots of the members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Instance, observe};
use crate::{Lsn, Result};

/// The first version of PostgreSQL that keeps logical slots on standbys.
pub(super) const FAILOVER_SLOTS: u32 = 17;
/// A logical slot that outlived its primary's reign: those of a standby are copies of the leader's (`synced`). While it
/// has the name of one of them, that one is not copied, nor any other (`slotsync.c`).
pub(super) const STALE_SLOT: &str = "slot_type = 'logical' AND failover AND NOT synced AND NOT active";

/// How long one step may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A slot of pgdock's.
struct Slot {
    name: String,
    active: bool,
    lost: bool,
}

impl Instance {
    /// Makes the slots that are missing, with WAL reserved from now on, drops those of pgdock's that nobody wants or
    /// uses, and makes anew those that have lost their WAL. Other slots are left alone.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL does not answer, or has no slot left: what was done until then stays.
    pub async fn sync_slots(&self, wanted: &BTreeSet<String>) -> Result<()> {
        let mut there = BTreeSet::new();
        for slot in self.slots().await? {
            let keep = wanted.contains(&slot.name) && !slot.lost;
            if keep || slot.active {
                there.insert(slot.name);
            } else {
                self.drop_slot(&slot.name).await?;
            }
        }
        for name in wanted.difference(&there) {
            self.inner
                .upkeep
                .query("SELECT pg_create_physical_replication_slot($1::text::name, true)", &[(name, Type::TEXT)], LIMIT)
                .await?;
        }
        Ok(())
    }

    /// Makes the same slots on a standby, for the day on which it leads, and moves each on to the position that is named.
    /// Logical slots that are left from when it was primary go: the leader has them.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL does not answer, or has no slot left: what was done until then stays.
    pub async fn follow_slots(&self, wanted: &BTreeMap<String, Lsn>) -> Result<()> {
        self.sync_slots(&wanted.keys().cloned().collect()).await?;
        for (name, to) in wanted {
            self.inner
                .upkeep
                .query(
                    "SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots
                      WHERE slot_name = $1::text::name AND NOT active AND restart_lsn < $2::text::pg_lsn",
                    &[(name, Type::TEXT), (&to.to_string(), Type::TEXT)],
                    LIMIT,
                )
                .await?;
        }
        if self.inner.config.binaries.version() >= FAILOVER_SLOTS {
            let drop =
                format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE {STALE_SLOT}");
            self.inner.upkeep.query(&drop, &[], LIMIT).await?;
        }
        Ok(())
    }

    async fn slots(&self) -> Result<Vec<Slot>> {
        let rows = self
            .inner
            .upkeep
            .query(
                "SELECT slot_name::text, active, coalesce(wal_status = 'lost', false) FROM pg_replication_slots
                  WHERE slot_type = 'physical' AND slot_name LIKE 'pgdock\\_%'",
                &[],
                LIMIT,
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Slot { name: observe::get(row, 0)?, active: observe::get(row, 1)?, lost: observe::get(row, 2)? })
            })
            .collect()
    }

    async fn drop_slot(&self, name: &str) -> Result<()> {
        // Somebody may have taken it since; then it is in use, and stays.
        self.inner
            .upkeep
            .query(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                  WHERE slot_name = $1::text::name AND NOT active",
                &[(&name, Type::TEXT)],
                LIMIT,
            )
            .await?;
        Ok(())
    }
}
