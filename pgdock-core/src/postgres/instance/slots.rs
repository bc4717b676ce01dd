//! The physical replication slots of the members.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Instance, observe};
use crate::Result;

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

    /// Drops pgdock's slots on a standby: left from when it was a primary, they would hold back WAL for ever.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL does not answer.
    pub async fn drop_slots_on_standby(&self) -> Result<()> {
        for slot in self.slots().await? {
            if !slot.active {
                self.drop_slot(&slot.name).await?;
            }
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
