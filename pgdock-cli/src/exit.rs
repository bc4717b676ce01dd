//! [`Exit`]: how the process ends, and which error ends it how.

use std::process::ExitCode;

use pgdock_core::{Error, ErrorKind};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// The command line or the settings are wrong.
    Invalid,
    /// It is done, and shows that something is wrong.
    Unhealthy,
    /// It was refused because it could lose data.
    Refused,
    /// It may have taken effect, or not.
    Unknown,
    /// As a program that it ran did.
    Of(u8),
}

impl Exit {
    /// The number that the system is told.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Unhealthy => 3,
            Self::Refused => 4,
            Self::Unknown => 5,
            Self::Of(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// How an error ends the process.
pub(crate) fn of(error: &Error) -> Exit {
    if !error.outcome_known() {
        return Exit::Unknown;
    }
    match error.kind() {
        ErrorKind::Invalid => Exit::Invalid,
        ErrorKind::NeedsOperator | ErrorKind::Fenced => Exit::Refused,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        for (error, code) in [
            (Error::internal("x"), 1),
            (Error::unavailable("x"), 1),
            (Error::not_ready("x"), 1),
            (Error::conflict("x"), 1),
            (Error::invalid("x"), 2),
            (Error::needs_operator("x"), 4),
            (Error::new(ErrorKind::Fenced, "x"), 4),
            (Error::unavailable("x").outcome_unknown(), 5),
            (Error::needs_operator("x").outcome_unknown(), 5),
        ] {
            assert_eq!(of(&error).code(), code, "{error:?}");
        }
    }
}
