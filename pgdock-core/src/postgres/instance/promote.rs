//! Leaving recovery, without the delays that PostgreSQL has in store.

use std::time::Duration;

use super::{Instance, observe};
use crate::postgres::timeline::TimelineId;
use crate::view::Names;
use crate::{Error, Result};

/// How long leaving recovery may take.
const PROMOTE_LIMIT: Duration = Duration::from_secs(60);
/// How long one question in between may take.
const QUERY_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked whether recovery is over.
const POLL: Duration = Duration::from_millis(5);
/// After so many polls the startup process is woken.
const POLLS_PER_POKE: u32 = 4;
/// How long the checkpoint after it may take: nobody waits for it.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(600);

impl Instance {
    /// Makes the connection that [`promote`](Self::promote) uses, where there is none.
    ///
    /// # Errors
    /// `Unavailable` or `NotReady` when PostgreSQL takes no connections.
    pub async fn warm_up(&self) -> Result<()> {
        Ok(self.inner.control.open().await?)
    }

    /// Leaves recovery, with `names` for `synchronous_standby_names` from the first commit on. Returns when writes are
    /// accepted. A checkpoint follows in the background: before it, `pg_rewind` does not see the new timeline.
    ///
    /// Where the names list members, one of them may take over at any moment, without what was never acknowledged here:
    /// no client is let in then before [`admit_clients`](Self::admit_clients).
    ///
    /// It begins `timeline`, or the next one after it that is free here; without one, the next free one.
    ///
    /// # Errors
    /// `Unavailable` when it is not out of recovery after 60 s, or does not answer: it may still be promoted.
    pub async fn promote(&self, names: &Names, timeline: Option<TimelineId>) -> Result<()> {
        if let Some(timeline) = timeline {
            self.skip_timelines_before(timeline).await?;
        }
        if self.names_in_file().as_ref() != Some(names) || self.memory().settled.as_ref() != Some(names) {
            self.set_names(names).await?;
            if names.count > 0 {
                // The first commit already must wait.
                self.prove_waiting().await?;
            }
        }
        if !names.members.is_empty() {
            self.keep_clients_out().await?;
        }
        let control = &self.inner.control;
        control.query("SELECT pg_promote(false)", &[], QUERY_LIMIT).await?;
        let work = async {
            let mut polls = 0u32;
            loop {
                let rows = control.query("SELECT pg_is_in_recovery()", &[], QUERY_LIMIT).await?;
                if rows.first().map(|r| observe::get::<bool>(r, 0)).transpose()? == Some(false) {
                    return Ok::<(), Error>(());
                }
                polls += 1;
                if polls.is_multiple_of(POLLS_PER_POKE) {
                    // Right after the upstream was lost, the startup process can sleep through the request; a
                    // reload wakes it.
                    control.query("SELECT pg_reload_conf()", &[], QUERY_LIMIT).await?;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(PROMOTE_LIMIT, work).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(
                    Error::unavailable(format!("recovery does not end. limit={PROMOTE_LIMIT:?}")).outcome_unknown()
                );
            }
        }
        let this = self.clone();
        tokio::spawn(async move {
            // What is lost with it is time: the next checkpoint comes by itself.
            let _ = this.inner.upkeep.batch("CHECKPOINT", CHECKPOINT_LIMIT).await;
        });
        Ok(())
    }

    /// PostgreSQL begins the first timeline after its own of which it finds no history file
    /// (`findNewestTimeLine`). Numbers that were given to promotions elsewhere get a file without entries:
    /// so no other promotion here takes them, and standbys, which ask for every file in between, find one.
    async fn skip_timelines_before(&self, timeline: TimelineId) -> Result<()> {
        let wal = self.inner.layout.data.join("pg_wal");
        let observed = self.observe().await?;
        let Some(standby) = observed.postgres.as_standby() else { return Ok(()) };
        for skipped in standby.timeline.0 + 1..timeline.0 {
            let file = wal.join(format!("{skipped:08X}.history"));
            if !file.exists() {
                self.write(&file, "# pgdock: this timeline was given to a promotion on another node\n").await?;
            }
        }
        Ok(())
    }
}
