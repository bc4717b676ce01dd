//! What a router answers instead of rows.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::Reason;

/// Why a statement has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server refused the statement, or an argument does not fit it. It had no effect.
    Postgres(tokio_postgres::Error),
    /// The connection was lost, or the time was over, after the statement was sent to the primary: it may have had
    /// its effect. Look before you repeat it.
    OutcomeUnknown {
        /// The node that it was sent to.
        node: String,
        /// What is known of the failure.
        cause: Option<tokio_postgres::Error>,
    },
    /// The transaction is committed on the primary, but its wait for a standby was cancelled (a warning of SQLSTATE
    /// 01000, which other clients take for success). A failover may lose it. Look before you repeat it.
    NotReplicated {
        /// The primary that holds it.
        node: String,
    },
    /// The transaction had failed before its `COMMIT`, which PostgreSQL answers with a rollback. It had no effect.
    RolledBack,
    /// No node is known to be the primary, and none became it in time. The statement was not sent.
    NoPrimary {
        /// How long the router waited.
        waited: Duration,
        /// What each node is instead, or why it does not answer.
        nodes: String,
    },
    /// No standby may answer the read, and the primary may not either: by [`Reads`](crate::Reads), or since as many
    /// reads as it takes for standbys are under way there. The statement was not sent.
    NoReplica,
    /// No connection could be had in time. The statement was not sent.
    NoConnection {
        /// The node that was tried last.
        node: String,
        /// What the pool or the server said.
        cause: String,
    },
    /// A read took longer than a statement may.
    Timeout {
        /// The node that was tried last.
        node: String,
    },
    /// A query for one row brought another number of them.
    RowCount {
        /// How many came, two meaning two or more.
        found: usize,
    },
    /// The statement leaves something on its connection, which a pool would lend to somebody else next. It was not
    /// sent.
    Pinned(Reason),
    /// The router was built from settings that cannot work.
    Settings(String),
}

impl Error {
    /// Whether the statement certainly had no effect.
    #[must_use]
    pub fn had_no_effect(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. } | Self::NotReplicated { .. } | Self::RowCount { .. })
    }

    /// What the server said, by its code.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) | Self::OutcomeUnknown { cause: Some(error), .. } => error.code(),
            _ => None,
        }
    }

    /// Whether the same may work later, with nothing done in between: no effect, and a reason that passes.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoPrimary { .. } | Self::NoReplica | Self::NoConnection { .. } | Self::Timeout { .. } => true,
            Self::Postgres(error) => error.code().is_some_and(|code| {
                [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
            }),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(error) => f.write_str(&described(error)),
            Self::OutcomeUnknown { node, .. } => {
                write!(f, "the primary did not answer: the statement may have had its effect. node={node}")
            }
            Self::NotReplicated { node } => {
                write!(f, "committed, but the wait for a standby was cancelled: a failover may lose it. node={node}")
            }
            Self::RolledBack => f.write_str("the transaction had failed before, and was rolled back"),
            Self::NoPrimary { waited, nodes } => {
                write!(f, "no node became the primary. waited={waited:?}, nodes=[{nodes}]")
            }
            Self::NoReplica => f.write_str("no standby may answer, and the primary does not in its place"),
            Self::NoConnection { node, cause } => write!(f, "no connection: {cause}. node={node}"),
            Self::Timeout { node } => write!(f, "the statement took too long. node={node}"),
            Self::RowCount { found: 0 } => f.write_str("the query brought no row"),
            Self::RowCount { .. } => f.write_str("the query brought more than one row"),
            Self::Pinned(reason) => {
                write!(f, "the statement belongs on a connection of its own. reason={reason}, hint: ")?;
                f.write_str(match reason {
                    Reason::Transaction => "use `transaction()`",
                    Reason::Setting => "use `SET LOCAL` in a `transaction()`, or `get(…)` and keep the connection",
                    _ => "take a connection with `get(…)` and keep it while its state matters; `listen()` for `LISTEN`",
                })
            }
            Self::Settings(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Postgres(error) | Self::OutcomeUnknown { cause: Some(error), .. } => Some(error),
            _ => None,
        }
    }
}

/// What an error says, with its cause: by itself it says little.
pub(super) fn described(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(refusal), _) => format!("{}. sqlstate={}", refusal.message(), refusal.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// Whether an error of a connection will come again until somebody mends the settings: a wrong password, a database that
/// does not exist, a right that is missing. (28000 is none of these: a server that was just promoted may refuse all clients
/// for a moment, by its `pg_hba.conf`.)
pub(super) fn is_for_good(error: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::INVALID_PASSWORD, SqlState::INVALID_CATALOG_NAME, SqlState::INSUFFICIENT_PRIVILEGE];
    error.code().is_some_and(|code| codes.contains(code))
}

/// What the error of a statement says about its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is gone, or the server is going.
    Lost,
    /// A standby cannot do this. Nothing was done.
    ReadOnly,
    /// A standby cancelled the query, since replay could not wait for it.
    Conflict,
    /// What was prepared on the connection is out of date. Nothing was done.
    Stale,
    /// The statement's own fault.
    Statement,
}

pub(super) fn failure(error: &tokio_postgres::Error) -> Failure {
    let Some(refusal) = error.as_db_error() else {
        let io = std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>());
        return if error.is_closed() || io { Failure::Lost } else { Failure::Statement };
    };
    let (code, message) = (refusal.code(), refusal.message());
    let class = &code.code()[..2];
    if class == "08"
        || [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code)
    {
        Failure::Lost
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || (class == "55" && (message.contains("recovery is in progress") || message.contains("during recovery")))
        || (["XX", "0A"].contains(&class) && (message.contains("during recovery") || message.contains("hot standby")))
    {
        Failure::ReadOnly
    } else if *code == SqlState::T_R_SERIALIZATION_FAILURE && message.contains("conflict with recovery") {
        Failure::Conflict
    } else if *code == SqlState::INVALID_SQL_STATEMENT_NAME
        || (*code == SqlState::FEATURE_NOT_SUPPORTED && refusal.routine() == Some("RevalidateCachedQuery"))
    {
        Failure::Stale
    } else {
        Failure::Statement
    }
}
