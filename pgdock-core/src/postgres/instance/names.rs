//! `synchronous_standby_names`: set, seen in force in every process, and the barrier behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Instance, observe};
use crate::postgres::conf_file;
use crate::view::Names;
use crate::{Error, Lsn, NodeName, Result};

/// How long it may take until every process uses new names.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// How long one question in between may take.
const QUERY_LIMIT: Duration = Duration::from_secs(3);
/// How long a checkpoint may take.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);
/// How often processes are looked at.
const POLL: Duration = Duration::from_millis(2);

impl Instance {
    /// Sets the names durably, and returns when every process uses them.
    ///
    /// A WAL sender shows its own place in the names that it uses, and nothing else. "ANY k (…)" gives everybody the
    /// first place, so that a change of k, or a change around a sender that stays in, would not show. So where a listed
    /// sender exists, the same k of the same members is first asked for in order, behind a name that nobody has: then
    /// all of them show a later place, and the first one again after the second step.
    ///
    /// # Errors
    /// `Unavailable` when it is not seen in 10 s. The names are on disk all the same, and may be in force in part: until
    /// a later call succeeds, both the old and the new ones must be reckoned with.
    pub async fn set_names(&self, names: &Names) -> Result<()> {
        self.memory().settled = None;
        let work = async {
            if names.count > 0 && !names.members.is_empty() {
                self.write_names(&names.in_order(), names).await?;
                self.signal_reload().await?;
                self.await_places(&names.in_order(), names, 2).await?;
            }
            self.write_names(&names.to_setting(), names).await?;
            self.signal_reload().await?;
            self.await_places(&names.to_setting(), names, 1).await
        };
        match tokio::time::timeout(SETTLE_LIMIT, work).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(Error::unavailable(format!(
                    "not every process of postgresql uses the new names. limit={SETTLE_LIMIT:?}"
                ))
                .outcome_unknown());
            }
        }
        self.memory().settled = Some(names.clone());
        Ok(())
    }

    /// Waits until the setting is known and every sender shows the place that it should have in it: listed
    /// ones `first` or a later one, the others none.
    ///
    /// In recovery nobody has a place: a cascading sender acknowledges nothing (`SyncRepGetStandbyPriority`). When recovery
    /// ends it ends its stream, and reads the names anew before it sends on the new timeline (`StartReplication`).
    async fn await_places(&self, setting: &str, names: &Names, first: i32) -> Result<()> {
        loop {
            let rows = self
                .inner
                .control
                .query(
                    "SELECT current_setting('synchronous_standby_names'), pg_is_in_recovery(),
                            coalesce((SELECT string_agg(sync_priority || ' ' || application_name, E'\\n')
                                        FROM pg_stat_replication WHERE state <> 'startup'), '')",
                    &[],
                    QUERY_LIMIT,
                )
                .await?;
            let row = rows.first().ok_or_else(|| Error::internal("postgresql answered without a row"))?;
            let shown = observe::get::<String>(row, 0)?;
            let recovers = observe::get::<bool>(row, 1)?;
            let senders = observe::get::<String>(row, 2)?;
            let settled = senders.lines().filter_map(|l| l.split_once(' ')).all(|(place, name)| {
                let listed = !recovers && names.count > 0 && name.parse().is_ok_and(|m| names.members.contains(&m));
                let place = place.parse::<i32>().unwrap_or_default();
                match (listed, first) {
                    (false, _) => place == 0,
                    (true, 1) => place == 1,
                    (true, first) => place >= first,
                }
            });
            if shown == setting && settled {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Takes a position such that every commit acknowledged under earlier names lies before it. To be called after
    /// [`set_names`](Self::set_names). With `from_none`, commits did not wait at all before.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL does not answer, or is in recovery.
    pub async fn take_barrier(&self, from_none: bool) -> Result<Lsn> {
        if from_none {
            self.prove_waiting().await?;
        }
        // The session commits without waiting for a standby, so this is flushed here at once, and what was
        // acknowledged before it lies before it.
        self.inner.control.query("SELECT pg_logical_emit_message(true, 'pgdock', 'barrier')", &[], QUERY_LIMIT).await?;
        let rows = self.inner.control.query("SELECT pg_current_wal_flush_lsn()::text", &[], QUERY_LIMIT).await?;
        rows.first()
            .map(|row| observe::lsn(row, 0))
            .transpose()?
            .flatten()
            .ok_or_else(|| Error::internal("postgresql answered without a position"))
    }

    /// Proves that commits wait. Backends ask a flag in shared memory that only the checkpointer sets, on its own reload.
    ///
    /// A new connection is taken only after the postmaster has told all its children to reload. A checkpoint asked for
    /// after that begins either behind the checkpointer's look at the request, or in the very same turn of its loop; a
    /// second one does so in a later turn for certain.
    pub(super) async fn prove_waiting(&self) -> Result<()> {
        let control = &self.inner.control;
        control.close().await;
        control.open().await?;
        control.batch("CHECKPOINT", CHECKPOINT_LIMIT).await?;
        control.batch("CHECKPOINT", CHECKPOINT_LIMIT).await?;
        Ok(())
    }

    /// Writes down the names, and with them the slots that logical decoding waits for: in one file, so that whoever leaves
    /// the one leaves the other.
    pub(super) async fn write_names(&self, setting: &str, names: &Names) -> Result<()> {
        let mut text = String::from("# Written by pgdock: who must have a commit before it is acknowledged.\n");
        conf_file::line(&mut text, "synchronous_standby_names", setting);
        if self.keeps_failover_slots() {
            conf_file::line(&mut text, "synchronized_standby_slots", &self.slots_of(names));
        }
        self.write(&self.inner.layout.conf_file("names.conf"), text).await
    }

    /// The slots of those who must have what a logical subscriber gets to see: of all who may have to acknowledge a
    /// commit, since a failover can keep any of them. Where no commit is acknowledged, those of all members, which
    /// is no less; where commits wait for nobody, none.
    fn slots_of(&self, names: &Names) -> String {
        let config = &self.inner.config;
        let nodes: BTreeSet<&NodeName> = match names.count {
            0 => BTreeSet::new(),
            _ if names.members.is_empty() => config.members.keys().collect(),
            _ => names.members.iter().map(|member| &member.node).collect(),
        };
        let slots: Vec<_> = nodes.into_iter().filter(|node| **node != config.node).map(NodeName::slot).collect();
        slots.join(", ")
    }

    /// The names on disk; `None` where there are none that pgdock settled on.
    pub(super) fn names_in_file(&self) -> Option<Names> {
        let text = std::fs::read_to_string(self.inner.layout.conf_file("names.conf")).ok()?;
        let value = text.lines().find_map(|l| l.strip_prefix("synchronous_standby_names = '"))?;
        Names::from_setting(value.strip_suffix('\'')?)
    }
}
