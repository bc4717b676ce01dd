//! The agent's API: health checks, status, events, metrics, orders, and the stream of reports to peers.
//!
//! ```text
//!   agent's loop ── watch<Published> ──▶ API ──▶ load balancers, people, Prometheus, peers
//!        ▲                                │
//!        └────── mpsc<PendingOrder> ──────┘ ◀── operators
//! ```
//!
//! Architecture invariant: the server decides nothing and never waits for the loop, but in an order.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

mod auth;
mod backup;
mod diverged;
mod feed;
mod health;
mod metrics;
mod order;
mod page;
mod serve;
mod state;
pub(in crate::agent) mod wal;

pub use feed::RoleChange;
pub use order::OrderRequest;
pub(in crate::agent) use order::{OrderAnswer, Outcome};
pub use serve::{ServeConfig, serve};
pub use state::{ApiState, NodeStatus, PendingOrder, Published};

use feed::Feed;

/// The longest body of a request, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// How many callers without a token may watch at the same time.
const WATCHERS_MAX: usize = 128;

/// What all requests share.
#[derive(Clone, Debug)]
struct Shared {
    state: ApiState,
    reports: Feed,
    roles: Feed,
    watchers: Arc<Semaphore>,
    /// Held while an order is under way.
    order: Arc<Mutex<()>>,
    shutdown: CancellationToken,
}

/// The API as a service, to be served by [`serve`]. Streams end with `shutdown`.
///
/// Must be called within a Tokio runtime: it starts the tasks that feed the streams.
pub fn router(state: ApiState, shutdown: CancellationToken) -> Router {
    let shared = Shared {
        reports: feed::reports(&state, shutdown.clone()),
        roles: feed::roles(&state, shutdown.clone()),
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        order: Arc::default(),
        state,
        shutdown,
    };
    let mut guarded = Router::new()
        .route("/v1/reports", get(reports))
        .route("/v1/wal", get(wal::wal))
        .route("/v1/backup", post(backup::begin))
        .route("/v1/switch-wal", post(backup::switch_wal))
        .route("/v1/diverged", get(diverged::list))
        .route("/v1/diverged/{id}", get(diverged::show))
        .route("/v1/diverged/{id}/drop", post(diverged::remove));
    for name in OrderRequest::NAMES {
        let handler = move |State(shared): State<Shared>, body: Bytes| async move { order(name, shared, body).await };
        guarded = guarded.route(&format!("/v1/{name}"), post(handler));
    }
    let guarded = guarded.layer(middleware::from_fn_with_state(shared.state.token.clone(), auth::require_token));
    let mut open = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/watch", get(watch))
        .route("/metrics", get(metrics))
        .route("/", get(page));
    for check in health::CHECKS {
        let handler = move |State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>| async move {
            health::answer(check, &shared.state, &query)
        };
        open = open.route(check.path(), get(handler).options(handler));
    }
    open.merge(guarded)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(shared)
}

async fn status(State(shared): State<Shared>) -> Json<NodeStatus> {
    Json(NodeStatus::of(&shared.state))
}

async fn events(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let since = match query.get("since").map(|text| text.parse::<Timestamp>()).transpose() {
        Ok(since) => since,
        Err(e) => {
            let message = format!("parameter `since`: {e}");
            return error(StatusCode::BAD_REQUEST, &message, "expected a time such as 2026-01-31T12:00:00Z");
        }
    };
    let log = shared.state.events.clone();
    match tokio::task::spawn_blocking(move || log.since(since)).await {
        Ok(events) => Json(events).into_response(),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the events could not be read", "see the agent's log"),
    }
}

async fn watch(State(shared): State<Shared>) -> Response {
    let Ok(permit) = shared.watchers.clone().try_acquire_owned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many callers watch this agent", "watch another one");
    };
    stream(&shared.roles, &shared.shutdown, Some(permit))
}

async fn reports(State(shared): State<Shared>) -> Response {
    stream(&shared.reports, &shared.shutdown, None)
}

/// A response that ends with the agent. Whoever reads slowly misses lines, but never gets old ones.
fn stream(feed: &Feed, shutdown: &CancellationToken, permit: Option<tokio::sync::OwnedSemaphorePermit>) -> Response {
    let lines = WatchStream::new(feed.subscribe())
        .filter(|line| std::future::ready(!line.is_empty()))
        .map(move |line| {
            let _held_as_long_as_the_stream = &permit;
            Ok::<_, Infallible>(line)
        })
        .take_until(shutdown.clone().cancelled_owned());
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let text = metrics::render(&shared.state);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn page(State(shared): State<Shared>) -> Response {
    let status = NodeStatus::of(&shared.state);
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page::render(&status))).into_response()
}

async fn order(name: &str, shared: Shared, body: Bytes) -> Response {
    let (request, wait) = match OrderRequest::parse(name, &body) {
        Ok(parsed) => parsed,
        Err(e) => return error(StatusCode::BAD_REQUEST, &e.chain(), "correct the body; nothing was done"),
    };
    let answer = |status, outcome, message: &str| {
        (status, Json(OrderAnswer { outcome, message: message.to_owned() })).into_response()
    };
    let Ok(turn) = shared.order.clone().try_lock_owned() else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, Outcome::Busy, "another order is under way");
    };
    let (verdict, ends) = oneshot::channel();
    let pending = PendingOrder { request, deadline: shared.state.clock.now() + wait, answer: verdict };
    if shared.state.orders.try_send(pending).is_err() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, Outcome::Busy, "the agent takes no orders at present");
    }
    // In a task of its own: the order stays under way when its caller goes away or waits no longer.
    let ends = tokio::spawn(async move {
        let verdict = ends.await;
        drop(turn);
        verdict
    });
    match tokio::time::timeout(wait, ends).await {
        Ok(Ok(Ok(verdict))) => {
            let body = OrderAnswer::from(verdict);
            let status = match body.outcome {
                Outcome::Done => StatusCode::OK,
                Outcome::Refused => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, Json(body)).into_response()
        }
        Ok(_) => answer(StatusCode::GATEWAY_TIMEOUT, Outcome::Unknown, "the agent ended before the order did"),
        Err(_) => answer(StatusCode::GATEWAY_TIMEOUT, Outcome::Unknown, "the order has not ended yet, and goes on"),
    }
}

async fn no_such_path() -> Response {
    error(StatusCode::NOT_FOUND, "there is no such path", "`/` is the status page, `/v1/status` the same as JSON")
}

async fn no_such_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "the path has no such method", "orders are POST, all else is GET")
}

fn error(status: StatusCode, message: &str, hint: &str) -> Response {
    (status, Json(json!({ "error": message, "hint": hint }))).into_response()
}

#[cfg(test)]
pub(in crate::agent) mod tests;
