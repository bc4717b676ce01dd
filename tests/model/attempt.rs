//! [`Attempt`]: a swap that was sent, as its author and the witness know it.

/// What became of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It may land yet.
    Open,
    /// It has landed.
    Landed,
    /// It can never land.
    Dead,
}

/// A swap that its author does not know the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt<Doc> {
    /// What it makes of the document.
    pub next: Doc,
    /// What became of it, which nobody sees but the witness.
    pub fate: Fate,
    /// The document was read since.
    pub read_since: bool,
    /// It was sent after PostgreSQL was seen to end.
    pub after_end: bool,
    /// How many ticks ago it was sent; where no clock ticks, none.
    pub age: u8,
}

impl<Doc> Attempt<Doc> {
    /// One that is sent now.
    #[must_use]
    pub fn new(next: Doc, fate: Fate) -> Self {
        Self { next, fate, read_since: false, after_end: true, age: 0 }
    }
}
