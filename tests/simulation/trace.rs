//! [`Trace`]: what happened, as a hash always, and as text when a run is told again.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::scenario::Micros;

/// What happened.
#[derive(Debug, Default)]
pub struct Trace {
    /// Whether text is kept.
    pub verbose: bool,
    /// The text, one line an event.
    pub lines: Vec<String>,
    hasher: DefaultHasher,
}

impl Trace {
    /// An empty one.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// Notes an event. The text is made only where it is kept.
    pub fn note(&mut self, at: Micros, kind: &str, node: usize, text: impl FnOnce() -> String) {
        (at, kind, node).hash(&mut self.hasher);
        if self.verbose {
            let line = format!("{:>10.3} ms  n{} {kind:<10} {}", at as f64 / 1e3, node + 1, text());
            self.lines.push(line);
        }
    }

    /// A number that two runs share only if the same happened in both.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }
}
