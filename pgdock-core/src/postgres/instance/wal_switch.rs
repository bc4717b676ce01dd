//! Ending the segment that is being written, so that it can be archived.

use std::time::Duration;

use super::Instance;
use crate::Result;

const LIMIT: Duration = Duration::from_secs(10);

impl Instance {
    /// Has a primary go on with the next segment, if it has written anything into the present one.
    ///
    /// # Errors
    /// `Unavailable` or `NotReady` when PostgreSQL does not answer, or is in recovery.
    pub(crate) async fn switch_wal(&self) -> Result<()> {
        self.inner.upkeep.query("SELECT pg_switch_wal()", &[], LIMIT).await?;
        Ok(())
    }
}
