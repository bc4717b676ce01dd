//! [`Rules`]: lets a test drop one rule at a time, to see that a check notices.

/// A rule that a test can drop. Each names what holds while it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// R0: an ambiguous swap is settled only by a newer version.
    Settle,
    /// R1: PostgreSQL starts as a primary only right after a swap that renewed the right.
    StartInRecovery,
    /// R1: a primary that went through recovery while its document names members lets no client in before enough
    /// of them hold what it recovered.
    KeepOut,
    /// R5: with `strict` a reign begins with names that nobody answers, before any client is let in.
    Strict,
    /// R2: a right ends, and the primary with it.
    Expire,
    /// R3: who takes over by patience waits longer than the right can last.
    Patience,
    /// R4: who takes over at once has detached first, and so have those that it counts.
    Detach,
    /// R4: who takes over at once has heard |D| − a + 1 members.
    Pledges,
    /// R4: a pledged standby stays detached until a newer version names the old leader.
    StayDetached,
    /// R4: only a member of the sync set, in the life that was recorded, takes over.
    Membership,
    /// R5: a leader that is promoted within its reign goes on waiting for the set that is recorded.
    KeepNames,
    /// R5: names are loosened only after the document.
    NamesAfterDocument,
    /// R5: the document counts on a member only behind a barrier.
    Barrier,
    /// R6: who hands over has stopped, and its heir holds the shutdown checkpoint.
    HoldShutdown,
    /// R6: in `async` an heir has the last of a crashed primary's WAL before it is named.
    ServeTail,
    /// R7: while the sync set streams, the right does not end for want of a witness.
    OutliveOutage,
    /// R7: the right outlives an outage in `async` only if everybody who could take over has promised not to.
    PromiseOfAll,
    /// R7: a promise counts from the moment at which it was asked for.
    CountFromPlea,
    /// R7: whoever has promised makes no swap that takes over.
    KeepPromise,
    /// R7: a swap is passed on exactly as its author made it.
    RelayExactly,
    /// R7: a document that was told counts only for those who have read one before.
    ReadFirst,
    /// R8: whoever learns that it was deposed fences itself.
    FenceDeposed,
    /// R10: each promotion begins a timeline that none began before.
    OwnTimeline,
    /// R10: a standby follows only a history that it lies on.
    CompareHistory,
}

/// Which rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    #[cfg(feature = "mutation")]
    dropped: Option<Rule>,
}

impl Rules {
    /// All rules but one. Only for tests that show what the rule is for.
    #[cfg(feature = "mutation")]
    #[must_use]
    pub fn without(rule: Rule) -> Self {
        Self { dropped: Some(rule) }
    }

    /// Whether a rule holds. Without the feature `mutation`, always.
    #[must_use]
    pub fn hold(self, rule: Rule) -> bool {
        #[cfg(feature = "mutation")]
        return self.dropped != Some(rule);
        #[cfg(not(feature = "mutation"))]
        {
            let _ = rule;
            true
        }
    }
}
