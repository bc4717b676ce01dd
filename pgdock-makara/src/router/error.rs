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
    /// No node is known to be the primary, and none became it in time. The statement was not sent.
    NoPrimary {
        /// How long the router waited.
        waited: Duration,
    },
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
    /// The statement leaves something on its connection, which a pool would lend to somebody else next.
    Pinned(Reason),
    /// The router was built from settings that cannot work.
    Settings(String),
}

impl Error {
    /// Whether the statement certainly had no effect.
    #[must_use]
    pub fn had_no_effect(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(error) => match error.as_db_error() {
                Some(refusal) => write!(f, "{}. sqlstate={}", refusal.message(), refusal.code().code()),
                None => write!(f, "{error}"),
            },
            Self::OutcomeUnknown { node, .. } => {
                write!(f, "the primary did not answer: the statement may have had its effect. node={node}")
            }
            Self::NoPrimary { waited } => write!(f, "no node became the primary. waited={waited:?}"),
            Self::NoConnection { node, cause } => write!(f, "no connection: {cause}. node={node}"),
            Self::Timeout { node } => write!(f, "the statement took too long. node={node}"),
            Self::Pinned(reason) => {
                write!(f, "the statement belongs on a connection of its own. reason={reason}, hint: ")?;
                f.write_str(match reason {
                    Reason::Transaction => "take `get(Target::Primary)` and open a transaction on it",
                    _ => "take a connection with `get` and keep it while its state matters",
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

/// What the error of a statement says about its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is gone, or the server is going.
    Lost,
    /// A standby cannot do this. Nothing was done.
    ReadOnly,
    /// A standby cancelled the query, since replay could not wait for it.
    Conflict,
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
    } else {
        Failure::Statement
    }
}
