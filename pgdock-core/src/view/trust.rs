//! [`Trust`]: what is known of the store's word, as proven by a probe.

/// Whether the store of the witness honours the conditions that everything rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// It was not put to the proof, and need not be: the application gave the witness itself, or it is a file,
    /// which the kernel guards.
    #[default]
    Assumed,
    /// The first proof is not done yet.
    Untried,
    /// The last proof succeeded.
    Proven,
    /// The last proof could not be done, and why. What was proven before still holds.
    Unknown {
        /// Why.
        why: String,
        /// An earlier one succeeded.
        before: bool,
    },
    /// The store broke its word, and how.
    Broken(String),
}

impl Trust {
    /// Whether the store was seen to break its word. Then no node may take the lead by itself: two could.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}
