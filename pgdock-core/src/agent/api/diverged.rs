//! `/v1/diverged`: the WAL that rewinds took off this node.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::{Shared, error};
use crate::{Error, ErrorKind, Result};

pub(super) async fn list(State(shared): State<Shared>) -> Response {
    let diverged = shared.state.diverged.clone();
    answer(tokio::task::spawn_blocking(move || diverged.list()).await.unwrap_or_else(|_| lost()))
}

pub(super) async fn show(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    answer(shared.state.diverged.show(&id).await)
}

pub(super) async fn remove(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let diverged = shared.state.diverged.clone();
    let dropped = tokio::task::spawn_blocking(move || diverged.drop_one(&id)).await.unwrap_or_else(|_| lost());
    answer(dropped.map(|()| json!({ "outcome": "done" })))
}

fn lost<T>() -> Result<T> {
    Err(Error::internal("lost what worked on it"))
}

fn answer(result: Result<impl serde::Serialize>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(e) => {
            let missing = e.kind() == ErrorKind::Invalid;
            let status = if missing { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
            error(status, &e.chain(), e.hints().first().map_or("see the agent's log", |hint| hint))
        }
    }
}
