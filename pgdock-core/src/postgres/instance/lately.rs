//! [`Lately`]: what is looked for beside the work, now and then, so that nobody ever waits for it.

use std::time::Duration;

use super::{Instance, Memory};
use crate::clock::Moment;

/// What was found when it was last looked for.
#[derive(Clone, Debug)]
pub(super) struct Lately<T> {
    found: Option<T>,
    asked_at: Option<Moment>,
    /// There is no answer yet: a file system or a server may hang.
    asking: bool,
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self { found: None, asked_at: None, asking: false }
    }
}

impl Instance {
    /// What was found last, at once. Looks again beside, where the last look is `every` ago and has ended; one that finds
    /// nothing leaves what is known.
    pub(super) fn lately<T, F>(
        &self,
        of: fn(&mut Memory) -> &mut Lately<T>,
        every: Duration,
        look: impl FnOnce(Self) -> F,
    ) -> Option<T>
    where
        T: Clone + Send + 'static,
        F: Future<Output = Option<T>> + Send + 'static,
    {
        let now = self.inner.clock.now();
        let known = {
            let mut memory = self.memory();
            let lately = of(&mut memory);
            if lately.asking || lately.asked_at.is_some_and(|at| now.since(at) < every) {
                return lately.found.clone();
            }
            (lately.asking, lately.asked_at) = (true, Some(now));
            lately.found.clone()
        };
        let asked = Asked { instance: self.clone(), of };
        let look = look(self.clone());
        tokio::spawn(async move {
            if let Some(found) = look.await {
                of(&mut asked.instance.memory()).found = Some(found);
            }
        });
        known
    }

    /// The same, for what the file system tells.
    pub(super) fn lately_on_disk<T>(
        &self,
        of: fn(&mut Memory) -> &mut Lately<T>,
        every: Duration,
        look: impl FnOnce(&Self) -> Option<T> + Send + 'static,
    ) -> Option<T>
    where
        T: Clone + Send + 'static,
    {
        self.lately(
            of,
            every,
            |this| async move { tokio::task::spawn_blocking(move || look(&this)).await.ok().flatten() },
        )
    }
}

/// Ends the asking, also where a look panics.
struct Asked<T> {
    instance: Instance,
    of: fn(&mut Memory) -> &mut Lately<T>,
}

impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        (self.of)(&mut self.instance.memory()).asking = false;
    }
}
