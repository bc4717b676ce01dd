//! Which WAL of earlier rewinds is kept here.

use std::sync::Arc;
use std::time::Duration;

use super::Instance;
use crate::clock::Moment;
use crate::postgres::diverged::{DivergedWal, Kept};

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(2);

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    kept: Option<Arc<Vec<Kept>>>,
    asked_at: Option<Moment>,
    /// The file system has not answered yet.
    asking: bool,
}

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
        let now = self.inner.clock.now();
        let known = {
            let known = &mut self.memory().kept;
            if known.asking || known.asked_at.is_some_and(|at| now.since(at) < EVERY) {
                return known.kept.clone();
            }
            (known.asking, known.asked_at) = (true, Some(now));
            known.kept.clone()
        };
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let found = this.diverged().list();
            let known = &mut this.memory().kept;
            known.asking = false;
            if let Ok(found) = found {
                known.kept = Some(Arc::new(found));
            }
        });
        known
    }
}
