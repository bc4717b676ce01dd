//! The example, over HTTP: what a user posted, his next request reads, from a standby as soon as that has it.
#![cfg(feature = "tower")]

use std::time::Duration;

use pgdock_makara::{Key, Router, Topology};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_postgres::NoTls;

#[path = "../examples/axum_app.rs"]
#[expect(dead_code, reason = "its `main` is for those who run it")]
mod axum_app;
#[path = "real/cluster.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod cluster;

use cluster::Cluster;

const PATIENCE: Duration = Duration::from_secs(30);

/// A client that keeps cookies.
struct Browser {
    server: String,
    cookie: Option<String>,
}

impl Browser {
    fn new(server: &str) -> Self {
        Self { server: server.to_owned(), cookie: None }
    }

    /// Sends a request, and returns the status line and the body.
    async fn send(&mut self, method: &str, body: &str) -> (String, String) {
        let cookie = self.cookie.as_ref().map_or_else(String::new, |cookie| format!("cookie: {cookie}\r\n"));
        let request = format!(
            "{method} /notes HTTP/1.1\r\nhost: app\r\nconnection: close\r\ncontent-type: application/json\r\n\
             {cookie}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(&self.server).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        for line in head.lines() {
            if let Some(cookie) = line.strip_prefix("set-cookie: ") {
                self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
            }
        }
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn a_user_reads_his_own_write_on_a_standby_that_has_it() {
    let Some(cluster) = Cluster::start() else { return };
    let router = Router::builder()
        .node("n1", cluster.address(0), 1)
        .node("n2", cluster.address(1), 1)
        .sticky(axum_app::sticky())
        .build(NoTls)
        .unwrap();
    let known = |topology: &Topology| topology.primary().is_some() && topology.standbys().count() == 1;
    let mut changes = router.watch();
    timeout(PATIENCE, changes.wait_for(|topology| known(topology))).await.unwrap().unwrap();
    router.execute("create table notes (id bigserial, text text not null)", &[]).await.unwrap();
    router.execute("insert into notes (text) values ('first')", &[]).await.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let key = Key::new(&[7; 32]).unwrap();
    let serving = tokio::spawn(axum::serve(listener, axum_app::app(router.clone(), key)).into_future());

    let mut user = Browser::new(&server);
    let mut notes = r#""first""#.to_owned();
    for note in 0..20 {
        let (status, _) = user.send("POST", &format!("{{\"text\": \"note {note}\"}}")).await;
        assert_eq!(status, "HTTP/1.1 201 Created");
        assert!(user.cookie.is_some());
        notes += &format!(",\"note {note}\"");
        let (_, body) = user.send("GET", "").await;
        assert!(body.starts_with(&format!("{{\"notes\":[{notes}],")), "he sees it: {body}");
    }
    // It is a standby that answers, as soon as it has what he wrote.
    let from_standby = async {
        while !user.send("GET", "").await.1.ends_with("\"standby\":true}") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, from_standby).await.expect("a standby answers");

    // While it does not have it, the primary answers him, and the standby others.
    let (replay, connection) = cluster.address(1).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    replay.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    let paused = async {
        let state = "select pg_get_wal_replay_pause_state()";
        while replay.query_one(state, &[]).await.unwrap().get::<_, &str>(0) != "paused" {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, paused).await.unwrap();
    let (status, _) = user.send("POST", "{\"text\": \"unseen\"}").await;
    assert_eq!(status, "HTTP/1.1 201 Created");
    let (_, his) = user.send("GET", "").await;
    assert!(his.contains("unseen") && his.ends_with("\"standby\":false}"), "{his}");
    let mut other = Browser::new(&server);
    let (_, theirs) = other.send("GET", "").await;
    assert!(!theirs.contains("unseen") && theirs.ends_with("\"standby\":true}"), "{theirs}");
    // A cookie that he made up changes nothing.
    other.cookie = Some("_pgdock_stck=1|ZGVmYXVsdA~9999999999999|AAAA".to_owned());
    assert!(other.send("GET", "").await.1.ends_with("\"standby\":true}"));
    serving.abort();
}
