//! Which WAL of earlier rewinds is kept here.

use std::sync::Arc;
use std::time::Duration;

use super::Instance;
use crate::postgres::diverged::{DivergedWal, Kept};

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(2);

impl Instance {
    /// The WAL that rewinds took off.
    #[must_use]
    pub fn diverged(&self) -> DivergedWal {
        let layout = &self.inner.layout;
        DivergedWal::new(&layout.diverged, &layout.run, self.inner.config.port)
    }

    /// The same in a few words, as of a moment ago; `None` before it was looked for. Never waits.
    #[must_use]
    pub fn kept(&self) -> Option<Arc<Vec<Kept>>> {
        self.lately_on_disk(|m| &mut m.kept, EVERY, |this| this.diverged().list().ok().map(Arc::new))
    }
}
