//! [`Term`]: the number of a reign.

use serde::{Deserialize, Serialize};

/// The number of a reign. It grows by one with each new leader and never falls; two nodes never lead
/// the same term, because a term begins with a compare-and-swap of the cluster's document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
