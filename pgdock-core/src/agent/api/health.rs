//! Health checks for load balancers and supervisors: 200 for yes, 503 for no.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::feed::STALE_AFTER;
use super::state::{ApiState, Published};

/// A loop that said nothing for so long hangs: the supervisor may restart the agent.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// `/primary`: does this node lead, and accept writes?
    Primary,
    /// `/leader`: the same.
    Leader,
    /// `/replica[?lag=BYTES]`: is it a standby that streams, and lags no more than so?
    Replica,
    /// `/sync`: is it a standby that holds every acknowledged commit?
    Sync,
    /// `/quorum`: is it a standby that guards commits, of which each is held by some of those that do?
    Quorum,
    /// `/read-only`: does it answer queries that only read? A primary does.
    ReadOnly,
    /// `/health`: does PostgreSQL answer?
    Health,
    /// `/liveness`: does the agent live?
    Liveness,
    /// `/readiness`: does it lead, or stream?
    Readiness,
}

pub(super) const CHECKS: [Check; 9] = [
    Check::Primary,
    Check::Leader,
    Check::Replica,
    Check::Sync,
    Check::Quorum,
    Check::ReadOnly,
    Check::Health,
    Check::Liveness,
    Check::Readiness,
];

impl Check {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Primary => "/primary",
            Self::Leader => "/leader",
            Self::Replica => "/replica",
            Self::Sync => "/sync",
            Self::Quorum => "/quorum",
            Self::ReadOnly => "/read-only",
            Self::Health => "/health",
            Self::Liveness => "/liveness",
            Self::Readiness => "/readiness",
        }
    }

    /// Whether the answer is yes, from what the loop said so long ago.
    fn holds(self, said: &Published, age: Duration, lag_max: Option<u64>) -> bool {
        if self == Self::Liveness {
            return age < HANGS_AFTER;
        }
        age < STALE_AFTER
            && match self {
                Self::Primary | Self::Leader => said.leads(),
                Self::Replica => said.follows() && lag_max.is_none_or(|max| said.lag_bytes() <= max),
                Self::Sync => said.follows() && said.in_sync_set() && said.all_hold(),
                Self::Quorum => said.follows() && said.in_sync_set(),
                Self::ReadOnly | Self::Readiness => said.leads() || said.follows(),
                Self::Health | Self::Liveness => said.answers(),
            }
    }
}

pub(super) fn answer(check: Check, state: &ApiState, query: &BTreeMap<String, String>) -> Response {
    let lag_max = match query.get("lag").map(|text| bytes(text).ok_or(text)).transpose() {
        Ok(lag_max) => lag_max,
        Err(text) => {
            let message = format!("parameter `lag`: expected a number of bytes, found `{text}`");
            return super::error(StatusCode::BAD_REQUEST, &message, "as in lag=1048576, or lag=1MB");
        }
    };
    let published = state.published.borrow();
    let age = state.clock.now().since(published.at);
    let status = if check.holds(&published, age, lag_max) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let report = &published.report;
    let body = json!({
        "node": report.node,
        "role": report.role,
        "state": report.state,
        "leader": published.record.as_ref().and_then(|record| record.leader.as_ref()),
        "term": published.term(),
        "timeline": report.timeline,
        "lsn": report.replayed,
        "lag_bytes": published.lag_bytes(),
        "age_seconds": age.as_secs_f64(),
    });
    (status, Json(body)).into_response()
}

/// A number of bytes, with one of PostgreSQL's units or none.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
