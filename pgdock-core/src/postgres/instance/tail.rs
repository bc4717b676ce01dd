//! Adding WAL to a standby that has nobody to stream it from.

use super::{Instance, durable};
use crate::postgres::timeline::TimelineId;
use crate::postgres::wal_tail::{self, WalTail};
use crate::view::Postgres;
use crate::{Error, Lsn, Result};

/// What a standby holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldWal {
    /// On which timeline.
    pub timeline: TimelineId,
    /// Up to where it is on disk.
    pub flushed: Lsn,
}

impl Instance {
    /// What WAL this standby holds.
    ///
    /// # Errors
    /// `NotReady` when it is no standby, or still receives.
    pub async fn held_wal(&self) -> Result<HeldWal> {
        match self.observe().await?.postgres {
            Postgres::Standby(standby) if standby.receiving => {
                Err(Error::not_ready("this standby still receives WAL from its upstream"))
            }
            Postgres::Standby(standby) => Ok(HeldWal { timeline: standby.timeline, flushed: standby.flushed }),
            _ => Err(Error::not_ready("postgresql is no standby here")),
        }
    }

    /// How large segments of its WAL are.
    ///
    /// # Errors
    /// `Internal` when its folder of WAL cannot be read.
    pub(crate) async fn segment_bytes(&self) -> Result<u64> {
        let data = self.inner.layout.data.clone();
        durable::blocking(move || wal_tail::segment_bytes(&data)).await
    }

    /// Adds WAL behind what this standby holds, durably. It is replayed the next time that PostgreSQL looks for more,
    /// which it does several times a second, and in any case before it leaves recovery.
    ///
    /// # Errors
    /// `Conflict` when it differs from what is here already.
    pub async fn add_wal(&self, held: HeldWal, tail: WalTail) -> Result<()> {
        let (data, owner) = (self.inner.layout.data.clone(), self.inner.config.os_user.clone());
        durable::blocking(move || {
            let segment_bytes = wal_tail::segment_bytes(&data)?;
            wal_tail::add(&data, held.timeline, held.flushed, &tail, segment_bytes, &owner)
        })
        .await
    }
}
