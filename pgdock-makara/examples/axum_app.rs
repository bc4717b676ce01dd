//! A web application whose users read what they wrote, from standbys.
//!
//! ```console
//! $ export SESSION_SECRET=$(openssl rand -hex 32)
//! $ cargo run --example axum_app --features tower -- 'host=10.0.0.1 user=app dbname=app' 'host=10.0.0.2 user=app dbname=app'
//! $ curl -c jar -b jar -H 'content-type: application/json' --data '{"text": "a note"}' http://127.0.0.1:8080/notes
//! $ curl -c jar -b jar http://127.0.0.1:8080/notes
//! ```

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router as App};
use pgdock_makara::{Error, Key, Router, SessionLayer, Sticky};
use serde::{Deserialize, Serialize};
use tokio_postgres::NoTls;

/// What a client sends.
#[derive(Debug, Deserialize)]
struct NewNote {
    text: String,
}

/// What it gets.
#[derive(Debug, Serialize)]
struct Notes {
    notes: Vec<String>,
    /// Whether a standby answered.
    standby: bool,
}

/// A client can send a request again when it certainly did nothing.
type Refusal = (StatusCode, String);

fn refusal(error: Error) -> Refusal {
    let status = match error.is_retryable() {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

async fn add(State(router): State<Router>, Json(note): Json<NewNote>) -> Result<StatusCode, Refusal> {
    router.execute("insert into notes (text) values ($1)", &[&note.text]).await.map_err(refusal)?;
    Ok(StatusCode::CREATED)
}

async fn list(State(router): State<Router>) -> Result<Json<Notes>, Refusal> {
    let sql = "select text, current_setting('in_hot_standby') = 'on' from notes order by id";
    let rows = router.query(sql, &[]).await.map_err(refusal)?;
    let standby = rows.first().is_some_and(|row| row.get(1));
    Ok(Json(Notes { notes: rows.iter().map(|row| row.get(0)).collect(), standby }))
}

/// The application. All that it takes is the layer: handlers know nothing of sessions.
pub(crate) fn app(router: Router, key: Key) -> App {
    // Without HTTPS, as here, a secure cookie would not come back.
    let sessions = SessionLayer::new(key).secure(false);
    App::new().route("/notes", get(list).post(add)).layer(sessions).with_state(router)
}

/// For a minute after a write, a user reads from standbys that have it; a read waits for one a little.
pub(crate) fn sticky() -> Sticky {
    Sticky::Lsn { ttl: Duration::from_secs(60), wait: Duration::from_millis(200) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = Key::new(std::env::var("SESSION_SECRET").unwrap_or_default().as_bytes())?;
    let mut builder = Router::builder().sticky(sticky());
    for (index, address) in std::env::args().skip(1).enumerate() {
        builder = builder.node(format!("n{}", index + 1), address.parse()?, 1);
    }
    let router = builder.build(NoTls)?;
    router.execute("create table if not exists notes (id bigserial, text text not null)", &[]).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(listener, app(router, key)).await?;
    Ok(())
}
