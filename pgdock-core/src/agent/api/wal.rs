//! `/v1/wal`: the end of a crashed primary's WAL, for the heir that its agent has named.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{Shared, error};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::postgres::wal_tail::{self, WalTail};
use crate::{Error, ErrorKind, Result};

/// Where the WAL begins that an answer holds.
pub(in crate::agent) const START: &str = "pgdock-wal-start";
/// The most WAL that is sent at once, in bytes.
pub(in crate::agent) const BYTES_MAX: usize = 256 << 20;

/// What is asked for.
struct Wanted {
    timeline: TimelineId,
    from: Lsn,
    limit: usize,
}

impl Wanted {
    fn read(query: &BTreeMap<String, String>) -> Result<Self> {
        fn take<T: std::str::FromStr>(query: &BTreeMap<String, String>, name: &str, expected: &str) -> Result<T> {
            let found = query.get(name).map(String::as_str).unwrap_or_default();
            found
                .parse()
                .map_err(|_| Error::invalid(format!("parameter `{name}`: expected {expected}, found `{found}`")))
        }
        Ok(Self {
            timeline: TimelineId(take(query, "timeline", "the number of a timeline")?),
            from: take(query, "from", "a WAL position such as 0/3000148")?,
            limit: take(query, "limit", "a number of bytes")?,
        })
    }
}

/// The path that asks for WAL.
pub(in crate::agent) fn path(timeline: TimelineId, from: Lsn, limit: usize) -> String {
    format!("/v1/wal?timeline={timeline}&from={from}&limit={limit}")
}

pub(super) async fn wal(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let wanted = match Wanted::read(&query) {
        Ok(wanted) => wanted,
        Err(e) => return error(StatusCode::BAD_REQUEST, &e.chain(), "nothing was sent"),
    };
    // While a server may run, its files are not what it will have written.
    if shared.state.published.borrow().report.aid.tail.is_none() {
        let hint = "it is served by the agent of a primary that crashed, before that hands over";
        return error(StatusCode::CONFLICT, "this agent serves no WAL", hint);
    }
    let data = shared.state.home.join("data");
    let read = tokio::task::spawn_blocking(move || {
        let segment_bytes = wal_tail::segment_bytes(&data)?;
        wal_tail::read(&data, wanted.timeline, wanted.from, segment_bytes, wanted.limit.min(BYTES_MAX))
    });
    match read.await {
        Ok(Ok(WalTail { start, bytes })) => {
            ([("content-type", "application/octet-stream".to_owned()), (START, start.to_string())], bytes)
                .into_response()
        }
        Ok(Err(e)) => {
            let status = match e.kind() {
                ErrorKind::NotReady => StatusCode::NOT_FOUND,
                ErrorKind::Conflict => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            error(status, &e.chain(), "see the agent's log")
        }
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the WAL could not be read", "see the agent's log"),
    }
}
