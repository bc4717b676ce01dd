//! Who has to read from the primary, and until when: Makara's context, with the clock as a parameter.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// What one context (a user, a job) remembers between its requests, and during one.
///
/// A write *stages* a time to live. While the request lasts, the context then reads from the primary however long that
/// is. When it ends, [`commit`](Self::commit) turns what was staged into a deadline that counts **from the end** of the
/// request: what it wrote may have been committed last of all.
///
/// Deadlines are kept for each router by its id, since a context may use several.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use pgdock_makara::Context;
///
/// let began = SystemTime::UNIX_EPOCH;
/// let mut context = Context::new(began);
/// context.stick("app", Duration::from_secs(5));
/// assert!(context.is_stuck("app"));
///
/// let ended = began + Duration::from_secs(60);
/// let stored = context.commit(ended).expect("there is something to remember");
/// assert_eq!(stored["app"], ended + Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    /// Deadlines of earlier requests.
    stored: BTreeMap<String, SystemTime>,
    /// What this request asked for.
    staged: BTreeMap<String, Duration>,
    /// When the request began: what was fresh then stays so until it ends.
    now: SystemTime,
    /// Something was forgotten on request.
    released: bool,
    sticking: bool,
}

impl Context {
    /// A context without a past, in a request that begins now.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self::resumed(BTreeMap::new(), now)
    }

    /// A context that remembers deadlines, as [`commit`](Self::commit) gave them, in a request that begins now.
    #[must_use]
    pub fn resumed(stored: BTreeMap<String, SystemTime>, now: SystemTime) -> Self {
        Self { stored, staged: BTreeMap::new(), now, released: false, sticking: true }
    }

    /// Notes that this request must read from the primary of a router, and must for a while after its end. The longest
    /// of several counts. A time of zero holds for this request only.
    ///
    /// Within [`without_sticking`](Self::without_sticking) it does nothing.
    pub fn stick(&mut self, id: &str, ttl: Duration) {
        if !self.sticking {
            return;
        }
        match self.staged.get_mut(id) {
            Some(staged) => *staged = ttl.max(*staged),
            None => _ = self.staged.insert(id.to_owned(), ttl),
        }
    }

    /// Whether reads have to go to the primary of a router.
    #[must_use]
    pub fn is_stuck(&self, id: &str) -> bool {
        self.sticking && (self.staged.contains_key(id) || self.stored.get(id).is_some_and(|until| *until > self.now))
    }

    /// The deadlines of earlier requests.
    #[must_use]
    pub fn deadlines(&self) -> &BTreeMap<String, SystemTime> {
        &self.stored
    }

    /// Forgets what was noted for one router, in this request and before.
    pub fn release(&mut self, id: &str) {
        self.staged.remove(id);
        self.released |= self.stored.remove(id).is_some();
    }

    /// Forgets everything.
    pub fn release_all(&mut self) {
        self.staged.clear();
        self.released |= !self.stored.is_empty();
        self.stored.clear();
    }

    /// Runs `work` with the context neither stuck nor sticking, whatever was noted before; then all is as it was.
    pub fn without_sticking<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.sticking, false);
        let result = work(self);
        self.sticking = before;
        result
    }

    /// Ends the request, and begins the next at the same moment. Returns the deadlines to remember when they differ
    /// from those of before: `None` says that there is nothing to save.
    pub fn commit(&mut self, now: SystemTime) -> Option<&BTreeMap<String, SystemTime>> {
        self.now = now;
        let before = self.stored.len();
        self.stored.retain(|_, until| *until > now);
        let mut changed = std::mem::take(&mut self.released) || self.stored.len() != before;
        for (id, ttl) in std::mem::take(&mut self.staged) {
            let until = now + ttl;
            if until > now && self.stored.get(&id).is_none_or(|stored| *stored < until) {
                self.stored.insert(id, until);
                changed = true;
            }
        }
        changed.then_some(&self.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_secs_f64(seconds)
    }

    fn stuck_until(seconds: f64) -> Context {
        Context::resumed(BTreeMap::from([("a".to_owned(), at(seconds))]), at(0.0))
    }

    fn seconds(ttl: f64) -> Duration {
        Duration::from_secs_f64(ttl)
    }

    #[test]
    fn the_clock_of_stickiness() {
        // What is staged one after the other; the end of the request; the deadline to remember.
        for (staged, end, until) in [
            (&[10.0, 5.0][..], 0.0, Some(10.0)),
            (&[5.0, 10.0], 0.0, Some(10.0)),
            (&[0.5], 0.0, Some(0.5)),
            (&[0.0], 0.0, None),
            (&[], 0.0, None),
            (&[10.0], 20.0, Some(30.0)),
        ] {
            let mut context = Context::new(at(0.0));
            for ttl in staged {
                context.stick("a", seconds(*ttl));
                assert!(context.is_stuck("a"));
            }
            let stored = context.commit(at(end)).map(|stored| stored["a"]);
            assert_eq!(stored, until.map(at), "{staged:?}");
            assert_eq!(context.is_stuck("a"), until.is_some(), "{staged:?}");
        }
    }

    #[test]
    fn a_shorter_time_never_shortens_a_deadline() {
        for ttl in [0.0, 2.5, 5.0] {
            let mut context = stuck_until(5.0);
            context.stick("a", seconds(ttl));
            assert_eq!(context.commit(at(0.0)), None, "{ttl}");
            assert!(context.is_stuck("a"));
        }
        let mut context = stuck_until(5.0);
        context.stick("a", seconds(5.0));
        assert_eq!(context.commit(at(1.0)).map(|stored| stored["a"]), Some(at(6.0)));
    }

    #[test]
    fn deadlines_pass_between_requests_and_never_within_one() {
        let mut context = stuck_until(5.0);
        assert_eq!(context.commit(at(4.9)), None);
        assert!(context.is_stuck("a"), "fresh when the request began");
        assert_eq!(context.commit(at(5.0)), Some(&BTreeMap::new()), "a deadline that is reached is over");
        assert!(!context.is_stuck("a"));
        assert_eq!(context.commit(at(6.0)), None);
    }

    #[test]
    fn what_is_released_is_forgotten() {
        let mut context = stuck_until(5.0);
        context.release("unknown");
        assert_eq!(context.commit(at(0.0)), None);
        context.stick("a", seconds(9.0));
        context.release("a");
        assert!(!context.is_stuck("a"));
        assert_eq!(context.commit(at(0.0)), Some(&BTreeMap::new()));
        let mut context = stuck_until(5.0);
        context.stick("b", seconds(1.0));
        context.release_all();
        assert!(!context.is_stuck("a") && !context.is_stuck("b"));
        assert_eq!(context.commit(at(0.0)), Some(&BTreeMap::new()));
    }

    #[test]
    fn without_sticking_neither_sticks_nor_is_stuck_and_restores() {
        let mut context = stuck_until(5.0);
        context.without_sticking(|context| {
            assert!(!context.is_stuck("a"));
            context.stick("b", seconds(5.0));
            context.without_sticking(|context| assert!(!context.is_stuck("a")));
            assert!(!context.is_stuck("a"), "an inner block does not end the outer one");
        });
        assert!(context.is_stuck("a") && !context.is_stuck("b"));
        assert_eq!(context.commit(at(0.0)), None);
    }

    #[test]
    fn ids_are_apart() {
        let mut context = Context::new(at(0.0));
        context.stick("a", seconds(5.0));
        assert!(!context.is_stuck("b"));
        context.stick("b", seconds(1.0));
        let stored = context.commit(at(0.0)).cloned().unwrap();
        assert_eq!((stored["a"], stored["b"]), (at(5.0), at(1.0)));
    }
}
