use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::agent::client::AgentClient;
use crate::agent::dial::{Connection, Target, dial, request};
use crate::agent::tls::tests::TestAuthority;
use crate::clock::Moment;
use crate::clock::{Clock, ManualClock};
use crate::decide::action::Verdict;
use crate::event::{EventKind, EventLog};
use crate::node::{Incarnation, Member};
use crate::postgres::diverged::DivergedWal;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{History, TimelineId};
use crate::report::{Crash, Report, State as PgState, Tail};
use crate::witness::Record;
use crate::witness::record::{Durability, FORMAT};
use crate::{ErrorKind, NodeName, Role, Term};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
pub(in crate::agent) const TOKEN: &str = "s3cr3t";

pub(in crate::agent) fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(in crate::agent) fn report(node: &str, role: Role) -> Report {
    Report {
        node: name(node),
        cluster: "c".to_owned(),
        system_identifier: Some(7),
        incarnation: Some(Incarnation(1)),
        role,
        state: if role == Role::Primary { PgState::Running } else { PgState::Streaming },
        timeline: TimelineId(3),
        flushed: Lsn(5000),
        replayed: Lsn(5000),
        upstream: None,
        history: None,
        standbys: Vec::new(),
        witness: None,
        witness_reachable: true,
        campaign: None,
        pledge: None,
        disk_low: false,
        bundle: None,
        aid: Default::default(),
        problems: Vec::new(),
    }
}

fn record(leader: &str) -> Record {
    Record {
        format: FORMAT,
        cluster: "c".to_owned(),
        system_identifier: 7,
        term: Term(4),
        leader: Some(name(leader)),
        heartbeat: 9,
        nonce: "x".to_owned(),
        ttl: Duration::from_secs(10),
        durability: Durability::Sync,
        sync_set: [Member { node: name("n2"), incarnation: Incarnation(1) }].into(),
        acks: 1,
        handoff_to: None,
        timeline: TimelineId(3),
        leader_lsn: Lsn(5000),
        members: [(name("n1"), "127.0.0.1:1".to_owned()), (name("n2"), "127.0.0.2:1".to_owned())].into(),
        barred: Default::default(),
        paused: false,
        bundle: BTreeMap::default(),
        history: History::new(TimelineId(3)),
        backup: None,
    }
}

/// An agent's API, without an agent.
pub(in crate::agent) struct Served {
    pub(in crate::agent) address: String,
    pub(in crate::agent) authority: TestAuthority,
    pub(in crate::agent) published: watch::Sender<Published>,
    pub(in crate::agent) clock: Arc<ManualClock>,
    orders: mpsc::Receiver<PendingOrder>,
    events: Arc<EventLog>,
    state: ApiState,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    dir: TempDir,
}

impl Served {
    pub(in crate::agent) async fn start(role: Role) -> Self {
        Self::with(TestAuthority::new(), "127.0.0.1:0".parse().unwrap(), role, ServeConfig::default()).await
    }

    pub(in crate::agent) async fn with(
        authority: TestAuthority,
        at: SocketAddr,
        role: Role,
        config: ServeConfig,
    ) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (dir, clock, shutdown) =
            (TempDir::new().unwrap(), Arc::new(ManualClock::default()), CancellationToken::new());
        let events = Arc::new(EventLog::open(&dir.path().join("events.ndjson"), name("n1"), clock.clone()).unwrap());
        let (orders, taken) = mpsc::channel(1);
        let (published, seen) = watch::channel(Published {
            at: clock.now(),
            report: report("n1", role),
            record: Some(record("n1")),
            right_until: Some(clock.now() + Duration::from_secs(7)),
            address: "10.0.0.1:5432".to_owned(),
            members: Vec::new(),
            peers: Vec::new(),
        });
        let state = ApiState {
            published: seen,
            orders,
            events: events.clone(),
            token: SecretString::from(TOKEN),
            clock: clock.clone(),
            beat: Duration::from_millis(20),
            home: dir.path().to_owned(),
            diverged: DivergedWal::new(&dir.path().join("diverged"), dir.path(), 1),
            archiver: None,
            backups: None,
            clerk: None,
        };
        let router = router(state.clone(), shutdown.clone());
        let server = tokio::spawn(serve(listener, authority.server(&["127.0.0.1"]), router, config, shutdown.clone()));
        Self { address, authority, published, clock, orders: taken, events, state, shutdown, server, dir }
    }

    /// Ends the server, and yields what a new one at the same place needs.
    pub(in crate::agent) async fn stop(self) -> (TestAuthority, SocketAddr) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.server).await.expect("the server ends").unwrap();
        (self.authority, self.address.parse().unwrap())
    }

    fn client(&self) -> AgentClient {
        AgentClient::new(&self.address, self.authority.client()).unwrap().with_token(SecretString::from(TOKEN))
    }

    async fn connect(&self) -> Connection {
        let target = Target::new(&self.address).unwrap();
        dial(&target, &self.authority.client()).await.map_err(|e| format!("{e:?}")).unwrap()
    }

    async fn response(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (Connection, http::Response<hyper::body::Incoming>) {
        let mut connection = self.connect().await;
        let token = token.map(SecretString::from);
        let target = Target::new(&self.address).unwrap();
        let request = request(method, &target, path, token.as_ref(), Bytes::from(body.to_owned())).unwrap();
        let response = tokio::time::timeout(PATIENCE, connection.sender.send_request(request)).await.unwrap().unwrap();
        (connection, response)
    }

    async fn send(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let (_connection, response) = self.response(method, path, token, body).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(Method::GET, path, None, "").await
    }

    fn publish(&self, change: impl FnOnce(&mut Published)) {
        self.published.send_modify(|published| {
            published.at = self.clock.now();
            change(published);
        });
    }
}

async fn checks(served: &Served, paths: &[&str]) -> Vec<u16> {
    let mut codes = Vec::new();
    for path in paths {
        codes.push(served.get(path).await.0);
    }
    codes
}

const ALL: [&str; 8] = ["/primary", "/leader", "/replica", "/sync", "/read-only", "/readiness", "/health", "/liveness"];

#[tokio::test]
async fn health_checks_follow_role_and_state() {
    let served = Served::start(Role::Primary).await;
    assert_eq!(checks(&served, &ALL).await, [200, 200, 503, 503, 200, 200, 200, 200]);
    // Out of recovery, but another node leads: nobody is to send writes here.
    served.publish(|p| p.record = Some(record("n2")));
    assert_eq!(checks(&served, &ALL).await, [503, 503, 503, 503, 503, 503, 200, 200]);

    served.publish(|p| p.report = report("n2", Role::Standby));
    assert_eq!(checks(&served, &ALL).await, [503, 503, 200, 200, 200, 200, 200, 200]);
    // Another life of n2 than the one in the sync set.
    served.publish(|p| p.report.incarnation = Some(Incarnation(2)));
    assert_eq!(checks(&served, &["/replica", "/sync", "/quorum"]).await, [200, 503, 503]);
    // Of two members one holds each commit, be it the other one.
    served.publish(|p| {
        p.report.incarnation = Some(Incarnation(1));
        let other = Member { node: name("n3"), incarnation: Incarnation(1) };
        p.record.as_mut().unwrap().sync_set.insert(other);
    });
    assert_eq!(checks(&served, &["/replica", "/sync", "/quorum"]).await, [200, 503, 200]);
    served.publish(|p| p.report.state = PgState::Starting);
    assert_eq!(checks(&served, &ALL).await, [503, 503, 503, 503, 503, 503, 503, 200]);
}

#[tokio::test]
async fn a_replica_is_measured_against_the_leader() {
    let served = Served::start(Role::Standby).await;
    served.publish(|p| {
        p.peers = vec![Report { flushed: Lsn(5000 + 3000), ..report("n2", Role::Primary) }];
    });
    let codes =
        checks(&served, &["/replica?lag=3000", "/replica?lag=2999", "/replica?lag=2kB", "/replica?lag=1MB"]).await;
    assert_eq!(codes, [200, 503, 503, 200]);
    let (code, body) = served.get("/replica?lag=much").await;
    assert!(code == 400 && body.contains("`lag`"), "{code} {body}");
}

#[tokio::test]
async fn what_a_hanging_loop_said_counts_for_nothing() {
    let served = Served::start(Role::Primary).await;
    served.clock.advance(Duration::from_secs(3));
    assert_eq!(checks(&served, &ALL).await, [503, 503, 503, 503, 503, 503, 503, 200]);
    served.clock.advance(Duration::from_secs(60));
    assert_eq!(checks(&served, &["/liveness"]).await, [503]);
}

#[tokio::test]
async fn head_and_options_answer_like_get() {
    let served = Served::start(Role::Primary).await;
    assert_eq!(served.send(Method::HEAD, "/primary", None, "").await, (200, String::new()));
    assert_eq!(served.send(Method::HEAD, "/replica", None, "").await, (503, String::new()));
    assert_eq!(served.send(Method::OPTIONS, "/replica", None, "").await.0, 503);
}

#[tokio::test]
async fn only_the_token_opens_what_changes_anything() {
    let mut served = Served::start(Role::Primary).await;
    for token in [None, Some("wrong"), Some("s3cr3"), Some("")] {
        for (method, path) in [(Method::POST, "/v1/pause"), (Method::POST, "/v1/stop"), (Method::GET, "/v1/reports")] {
            let (code, body) = served.send(method, path, token, "").await;
            assert_eq!(code, 401, "{path} {token:?}");
            assert!(body.contains("hint") && !body.contains(TOKEN), "{body}");
        }
    }
    assert!(served.orders.try_recv().is_err());
    assert_eq!(served.get("/v1/dance").await.0, 404);
    assert_eq!(served.send(Method::POST, "/v1/dance", None, "").await.0, 404);
    assert_eq!(served.send(Method::POST, "/v1/status", None, "").await.0, 405);
    let (code, body) = served.send(Method::POST, "/v1/switchover", Some(TOKEN), r#"{"to": 7}"#).await;
    assert!(code == 400 && body.contains("`to`"), "{code} {body}");
    assert!(served.orders.try_recv().is_err());
}

#[tokio::test]
async fn orders_end_as_the_loop_says() {
    let mut served = Served::start(Role::Primary).await;
    let client = served.client();
    let wanted = OrderRequest::Switchover { to: Some(name("n2")) };
    for verdict in
        [Verdict::Done("it leads".into()), Verdict::Refused("it lags".into()), Verdict::Failed("it broke".into())]
    {
        let ordered = tokio::spawn({
            let (client, wanted) = (client.clone(), wanted.clone());
            async move { client.order(&wanted, PATIENCE).await }
        });
        let pending = served.orders.recv().await.unwrap();
        assert_eq!((pending.request, pending.deadline), (wanted.clone(), served.clock.now() + PATIENCE));
        pending.answer.send(verdict.clone()).unwrap();
        assert_eq!(ordered.await.unwrap().unwrap(), verdict);
    }
}

#[tokio::test]
async fn an_order_stays_under_way_when_nobody_waits_for_it() {
    let mut served = Served::start(Role::Primary).await;
    let client = served.client();
    let error = client.order(&OrderRequest::Reclone, Duration::from_millis(1)).await.unwrap_err();
    assert!(!error.outcome_known(), "{}", error.chain());
    let pending = served.orders.recv().await.unwrap();
    let error = client.order(&OrderRequest::Pause, PATIENCE).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Conflict, true));
    assert_eq!(served.send(Method::POST, "/v1/pause", Some(TOKEN), "").await.0, 503);

    // The loop gives it up without a verdict: from then on the next one is taken.
    drop(pending);
    let (client, order) = (client.clone(), OrderRequest::Pause);
    let retried = tokio::spawn(async move {
        loop {
            match client.order(&order, PATIENCE).await {
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                ended => break ended,
            }
        }
    });
    let pending = tokio::time::timeout(PATIENCE, served.orders.recv()).await.unwrap().unwrap();
    drop(pending);
    let error = retried.await.unwrap().unwrap_err();
    assert!(!error.outcome_known() && error.to_string().contains("ended before"), "{}", error.chain());
}

#[tokio::test]
async fn status_and_events_reach_the_client() {
    let served = Served::start(Role::Primary).await;
    served.events.record(EventKind::Started, None, "hello", serde_json::Value::Null);
    let status = served.client().status().await.unwrap();
    assert_eq!(status.report, report("n1", Role::Primary));
    assert_eq!((status.record, status.right_seconds), (Some(record("n1")), Some(7.0)));
    let events = served.client().events(None).await.unwrap();
    assert_eq!(events[0].message, "hello");
    assert_eq!(served.client().events(Some(events[0].at)).await.unwrap(), events);
    let later = events[0].at + jiff::SignedDuration::from_secs(1);
    assert_eq!(served.client().events(Some(later)).await.unwrap(), []);
    let (code, body) = served.get("/v1/events?since=noon").await;
    assert!(code == 400 && body.contains("`since`"), "{code} {body}");
}

#[tokio::test]
async fn faults_of_a_connection_say_what_to_do() {
    let served = Served::start(Role::Primary).await;
    let of_another_cluster = AgentClient::new(&served.address, TestAuthority::new().client()).unwrap();
    let error = of_another_cluster.status().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("not of this cluster"), "{error}");
    let elsewhere = served.client().verified_as("n9.example").unwrap();
    assert!(elsewhere.status().await.unwrap_err().to_string().contains("not for this address"));
    let stranger = AgentClient::new(&served.address, served.authority.client()).unwrap();
    let error = stranger.order(&OrderRequest::Pause, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("401") && error.hints()[0].contains("Bearer"), "{error}");

    let client = served.client();
    served.stop().await;
    let error = client.order(&OrderRequest::Pause, PATIENCE).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Unavailable, true), "{}", error.chain());
    assert!(AgentClient::new("nowhere", TestAuthority::new().client()).is_err());
}

/// The next line of a stream.
async fn line(body: &mut hyper::body::Incoming) -> Option<serde_json::Value> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a line or the end")?;
    Some(serde_json::from_slice(&frame.unwrap().into_data().unwrap()).unwrap())
}

#[tokio::test]
async fn those_who_watch_hear_of_changes_and_of_the_end() {
    let served = Served::start(Role::Primary).await;
    let (_connection, response) = served.response(Method::GET, "/v1/watch", None, "").await;
    let mut body = response.into_body();
    let first = line(&mut body).await.unwrap();
    assert_eq!(
        (&first["role"], &first["term"], &first["address"]),
        (&json!("primary"), &json!(4), &json!("10.0.0.1:5432"))
    );
    served.publish(|p| p.report.flushed = Lsn(6000));
    served.publish(|p| p.record = Some(record("n2")));
    assert_eq!(line(&mut body).await.unwrap()["role"], json!("unknown"), "it no longer leads");
    served.publish(|p| p.report = report("n1", Role::Standby));
    assert_eq!(line(&mut body).await.unwrap()["role"], json!("standby"));
    served.stop().await;
    assert_eq!(line(&mut body).await, None);
}

#[tokio::test]
async fn what_a_hanging_loop_said_last_is_no_news_to_who_connects() {
    let served = Served::start(Role::Primary).await;
    let feed = feed::reports(&served.state, served.shutdown.clone());
    assert!(!feed.subscribe().borrow().is_empty());
    served.clock.advance(Duration::from_secs(3));
    let mut line = feed.subscribe();
    tokio::time::timeout(PATIENCE, line.wait_for(Bytes::is_empty)).await.unwrap().unwrap();
    served.publish(|_| {});
    tokio::time::timeout(PATIENCE, line.wait_for(|line| !line.is_empty())).await.unwrap().unwrap();
}

#[tokio::test]
async fn metrics_are_well_formed() {
    let served = Served::start(Role::Standby).await;
    served.publish(|p| {
        p.report.bundle = Some("a\"b\\c\nd".to_owned());
        p.report.replayed = Lsn(4000);
    });
    let (code, text) = served.get("/metrics").await;
    assert_eq!(code, 200);
    for line in [
        r#"pgdock_info{cluster="c",node="n1",bundle="a\"b\\c\nd"} 1"#,
        r#"pgdock_role{role="standby"} 1"#,
        r#"pgdock_role{role="primary"} 0"#,
        "pgdock_term 4",
        "pgdock_timeline 3",
        "pgdock_wal_flushed_bytes 5000",
        "pgdock_replay_lag_bytes 1000",
        "pgdock_witness_reachable 1",
        "pgdock_right_seconds 7",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap()), "{line} comes twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(typed.contains(name), "{line} has no type");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
}

#[tokio::test]
async fn the_page_shows_text_as_text() {
    let served = Served::start(Role::Primary).await;
    served.publish(|p| p.report.problems = vec!["<script>alert('x')</script>".to_owned()]);
    let (code, page) = served.get("/").await;
    assert_eq!(code, 200);
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && !page.contains("<script"), "{page}");
    assert!(page.contains("Term 4, leader n1") && page.contains("n2 is not heard"), "{page}");
}

#[tokio::test]
async fn those_who_only_connect_stop_nobody() {
    let config = ServeConfig { connections_max: 2, ..ServeConfig::default() };
    let served = Served::with(TestAuthority::new(), "127.0.0.1:0".parse().unwrap(), Role::Primary, config).await;
    // Says nothing, in the middle of its handshake.
    let mute = TcpStream::connect(&served.address).await.unwrap();
    let held = served.connect().await;
    // Both places are taken now: the next one is closed.
    let mut third = TcpStream::connect(&served.address).await.unwrap();
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut third, &mut byte);
    assert_eq!(tokio::time::timeout(PATIENCE, read).await.expect("it is closed").unwrap_or(0), 0);
    drop((mute, held));
    let freed = async {
        while served.client().status().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the places are free again");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let config = ServeConfig { idle_timeout: Duration::from_millis(50), ..ServeConfig::default() };
    let served = Served::with(TestAuthority::new(), "127.0.0.1:0".parse().unwrap(), Role::Primary, config).await;
    let connection = served.connect().await;
    let closed = async {
        while !connection.sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is closed");
}

#[tokio::test]
async fn wal_is_served_to_an_heir_alone_and_only_after_a_crash() {
    let served = Served::start(Role::Unknown).await;
    let wal = served.dir.path().join("data/pg_wal");
    std::fs::create_dir_all(&wal).unwrap();
    // One segment with one page, on timeline 3.
    let mut page = vec![7u8; 8192];
    page[..40].fill(0);
    page[4..8].copy_from_slice(&3u32.to_ne_bytes());
    page[8..16].copy_from_slice(&(1u64 << 20).to_ne_bytes());
    page[32..36].copy_from_slice(&(1u32 << 20).to_ne_bytes());
    page[36..40].copy_from_slice(&8192u32.to_ne_bytes());
    let mut segment = page.clone();
    segment.resize(1 << 20, 0);
    std::fs::write(wal.join("000000030000000000000001"), segment).unwrap();

    let from = Lsn((1 << 20) + 100);
    let path = super::wal::path(TimelineId(3), from, 1 << 20);
    assert_eq!(served.get(&path).await.0, 401);
    let (code, body) = served.send(Method::GET, &path, Some(TOKEN), "").await;
    assert!(code == 409 && body.contains("serves no WAL"), "{code} {body}");

    served.publish(|p| {
        let crash = Crash { node: name("n1"), session: 1, at: Moment::default() };
        p.report.aid.tail = Some(Box::new(Tail { heir: name("n2"), crash, timeline: TimelineId(3) }));
    });
    let tail = served.client().wal_tail(TimelineId(3), from, 1 << 20, PATIENCE).await.unwrap();
    assert_eq!((tail.start, tail.bytes), (Lsn(1 << 20), page));
    let error = served.client().wal_tail(TimelineId(3), from, 100, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("more WAL than"), "{error}");
    let error = served.client().wal_tail(TimelineId(3), Lsn(9 << 20), 1 << 20, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("no WAL at this position"), "{error}");
    let (code, body) = served.send(Method::GET, "/v1/wal?timeline=3&from=here", Some(TOKEN), "").await;
    assert!(code == 400 && body.contains("`from`"), "{code} {body}");
}

#[tokio::test]
async fn lost_wal_is_shown_to_whoever_has_the_token() {
    let served = Served::start(Role::Standby).await;
    let folder = served.dir.path().join("diverged/tl1-0-8");
    std::fs::create_dir_all(&folder).unwrap();
    let report = r#"{"node": "n1", "incarnation": null, "system_identifier": 1, "timeline": 1, "fork": "0/8", "end": "0/10",
        "found_at": "2026-01-31T12:00:00Z", "files": []}"#;
    std::fs::write(folder.join("report.json"), report).unwrap();
    for (method, path) in [
        (Method::GET, "/v1/diverged"),
        (Method::GET, "/v1/diverged/tl1-0-8"),
        (Method::POST, "/v1/diverged/tl1-0-8/drop"),
    ] {
        assert_eq!(served.send(method, path, None, "").await.0, 401, "{path}");
    }
    let client = served.client();
    let kept = client.diverged().await.unwrap();
    assert_eq!((kept.len(), kept[0].bytes, kept[0].seen), (1, 8, false));
    assert!(client.diverged_changes("tl1-0-8").await.unwrap().kept.seen);
    assert_eq!(client.diverged_changes("tl7").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(client.drop_diverged("../x").await.unwrap_err().kind(), ErrorKind::Invalid);
    client.drop_diverged("tl1-0-8").await.unwrap();
    assert!(!folder.exists() && client.diverged().await.unwrap().is_empty());
}
