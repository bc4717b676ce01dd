//! Which node a statement may run on: the types, and the table of decisions.

use std::fmt;

mod catalog;
mod classifier;
mod finding;
mod lexer;
mod names;
mod query;
mod verb;

pub use classifier::Classifier;

/// Says where a text of one or more statements may run, by the lists of `pg_catalog` alone.
///
/// It allocates nothing, never panics, and sends to a replica only what it recognises as a read from end to end:
///
/// ```
/// use pgdock_makara::{PinTo, Reason, Target, classify};
///
/// assert_eq!(classify("SELECT count(*) FROM users").target, Target::Replica);
/// assert_eq!(classify("SELECT * FROM jobs LIMIT 1 FOR UPDATE SKIP LOCKED").reason, Reason::Lock);
/// assert_eq!(classify("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d").target, Target::Primary);
/// assert_eq!(classify("SET search_path = app").target, Target::All);
/// assert_eq!(classify("BEGIN").target, Target::Pin(PinTo::Primary));
///
/// let sql = "SELECT refresh_totals()";
/// let decision = classify(sql);
/// assert_eq!((decision.target, decision.reason), (Target::Primary, Reason::UnknownFunction));
/// assert_eq!(decision.culprit(sql), Some("refresh_totals"));
/// ```
///
/// Use a [`Classifier`] to add functions, operators and relations of your own.
#[must_use]
pub fn classify(sql: &str) -> Decision {
    verb::analyse(sql, None)
}

/// Where a text may run, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where it may run.
    pub target: Target,
    /// What decided it. Of several findings, the one that binds most.
    pub reason: Reason,
    sticks: bool,
    culprit: (usize, usize),
}

impl Decision {
    /// Whether it may have changed something that the same context expects to see in its next read.
    #[must_use]
    pub fn sticks(&self) -> bool {
        self.sticks
    }

    /// The name or keyword that decided, as it stands in the text that was classified; `None` where it was the whole.
    #[must_use]
    pub fn culprit<'s>(&self, sql: &'s str) -> Option<&'s str> {
        let (start, length) = self.culprit;
        if length == 0 { None } else { sql.get(start..start + length) }
    }
}

/// Where a text may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any node that is fresh enough, the primary included.
    Replica,
    /// The primary, on any connection.
    Primary,
    /// Every connection of the session: a setting to record, and to repeat on each connection that it uses.
    All,
    /// One connection that the caller keeps, since the effect lives there.
    Pin(PinTo),
}

impl Target {
    /// A short name in snake case, as for a label of a metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Primary => "primary",
            Self::All => "all",
            Self::Pin(_) => "pin",
        }
    }
}

/// Which connection a pinned text needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinTo {
    /// A connection of any node.
    Any,
    /// A connection of the primary.
    Primary,
    /// The connection that the caller already holds: its transaction, cursor, prepared statement or temporary table.
    Current,
}

/// What decided a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// There is no statement in the text.
    Empty,
    /// Nothing but reads.
    Read,
    /// `EXPLAIN` without `ANALYZE`: the plan is made, not run.
    Plan,
    /// A comment `pgdock: primary` or `pgdock: replica`.
    Hint,
    /// It writes, or it is a command that only a primary runs.
    Write,
    /// It locks rows: `FOR UPDATE`, `FOR SHARE` and their kin.
    Lock,
    /// It calls a function that writes.
    WritingFunction,
    /// It calls a function of which nothing is known.
    UnknownFunction,
    /// It uses an operator of which nothing is known.
    UnknownOperator,
    /// It reads a relation that was listed as the primary's.
    ListedRelation,
    /// The answer, or the effect, belongs to one server: statistics, locks, files, backends.
    NodeLocal,
    /// It begins with a word that begins no statement known to this crate.
    UnknownStatement,
    /// Its quotes, comments or parentheses do not close, or hold a byte that SQL does not know.
    Unreadable,
    /// Its parentheses are nested more deeply than the classifier follows.
    TooDeep,
    /// A session setting: `SET`, `RESET`, `set_config()`.
    Setting,
    /// A transaction that the text opens, continues or ends.
    Transaction,
    /// A temporary object.
    Temporary,
    /// Other state of one connection: prepared statements, cursors, `LISTEN`, advisory locks, `currval()`.
    SessionState,
}

impl Reason {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 18] = [
        Self::Empty,
        Self::Read,
        Self::Plan,
        Self::Hint,
        Self::Write,
        Self::Lock,
        Self::WritingFunction,
        Self::UnknownFunction,
        Self::UnknownOperator,
        Self::ListedRelation,
        Self::NodeLocal,
        Self::UnknownStatement,
        Self::Unreadable,
        Self::TooDeep,
        Self::Setting,
        Self::Transaction,
        Self::Temporary,
        Self::SessionState,
    ];

    /// A short name in snake case, as for a label of a metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Read => "read",
            Self::Plan => "plan",
            Self::Hint => "hint",
            Self::Write => "write",
            Self::Lock => "lock",
            Self::WritingFunction => "writing_function",
            Self::UnknownFunction => "unknown_function",
            Self::UnknownOperator => "unknown_operator",
            Self::ListedRelation => "listed_relation",
            Self::NodeLocal => "node_local",
            Self::UnknownStatement => "unknown_statement",
            Self::Unreadable => "unreadable",
            Self::TooDeep => "too_deep",
            Self::Setting => "setting",
            Self::Transaction => "transaction",
            Self::Temporary => "temporary",
            Self::SessionState => "session_state",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
