//! [`Role`]: what a node is at present.

use serde::{Deserialize, Serialize};

/// What a node is at present, as far as the observer can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its PostgreSQL is out of recovery and accepts writes.
    Primary,
    /// Its PostgreSQL is in recovery.
    Standby,
    /// It holds no data and only arbitrates.
    Witness,
    /// Nobody knows. Unknown is not down.
    #[default]
    Unknown,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Witness => "witness",
            Self::Unknown => "unknown",
        })
    }
}
