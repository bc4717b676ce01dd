//! `/v1/backup` begins a base backup of this node, `/v1/switch-wal` ends the segment that its PostgreSQL writes.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::{Shared, error};
use crate::{Error, ErrorKind};

pub(super) async fn begin(State(shared): State<Shared>) -> Response {
    let Some(backups) = &shared.state.backups else {
        let hint = "add [backup] to cluster.toml, and restart the agent";
        return error(StatusCode::CONFLICT, "this cluster has no backups: the settings have no [backup]", hint);
    };
    match backups.begin() {
        Ok(label) => Json(json!({ "label": label })).into_response(),
        Err(e) => failed(&e),
    }
}

pub(super) async fn switch_wal(State(shared): State<Shared>) -> Response {
    let Some(backups) = &shared.state.backups else {
        return error(StatusCode::CONFLICT, "this cluster archives no WAL", "add [backup] to cluster.toml");
    };
    match backups.end_segment_here().await {
        Ok(()) => Json(json!({ "outcome": "done" })).into_response(),
        Err(e) => failed(&e),
    }
}

fn failed(e: &Error) -> Response {
    let status = match e.kind() {
        ErrorKind::Conflict | ErrorKind::NotReady => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, &e.chain(), e.hints().first().map_or("see the agent's log", |hint| hint))
}
