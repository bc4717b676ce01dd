//! The word of agents, told by one that is played here, before servers that are real.
#![cfg(feature = "agents")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use pgdock_makara::{Agents, Error, Limits, Role, Router, Topology};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(30);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// An agent that says what it is told to. It is silent while that is empty.
struct Agent {
    says: watch::Sender<String>,
    place: String,
    task: JoinHandle<()>,
}

impl Agent {
    async fn start(authority: &Authority) -> Self {
        let says = watch::Sender::new(String::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let acceptor = TlsAcceptor::from(authority.server());
        let words = says.clone();
        let watch = move || {
            let lines = tokio_stream(words.subscribe());
            async move { Body::from_stream(lines) }
        };
        let app = axum::Router::new().route("/v1/watch", get(watch));
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, app) = (acceptor.clone(), app.clone());
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        let service = TowerToHyperService::new(app);
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                    }
                });
            }
        });
        Self { says, place, task }
    }

    fn say(&self, node: &str, role: &str, term: u64, timeline: u32) {
        self.says.send_replace(format!(
            "{{\"node\":\"{node}\",\"term\":{term},\"role\":\"{role}\",\"timeline\":{timeline},\
             \"address\":\"127.0.0.1:1\",\"lsn\":\"0/1\"}}\n"
        ));
    }
}

fn tokio_stream(
    words: watch::Receiver<String>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures_util::stream::unfold((words, true), |(mut words, first)| async move {
        if !first {
            words.changed().await.ok()?;
        }
        let line = words.borrow_and_update().clone();
        Some((line, (words, false)))
    })
    .filter(|line| std::future::ready(!line.is_empty()))
    .map(|line| Ok(Bytes::from(line)))
}

async fn until(router: &Router, what: &str, condition: impl Fn(&Topology) -> bool) {
    let mut changes = router.watch();
    let waited = timeout(PATIENCE, changes.wait_for(|topology| condition(topology))).await;
    assert!(waited.is_ok(), "{what}: {:?}", router.topology());
}

fn leader(topology: &Topology) -> Option<&str> {
    topology.primary().map(|node| node.name.as_str())
}

#[tokio::test]
async fn the_word_of_agents_is_taken_at_once_and_only_while_they_speak() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let agents = [Agent::start(&authority).await, Agent::start(&authority).await];
    let fake = Agent::start(&stranger).await;
    fake.say("n3", "primary", 99, 99);
    let places = [&agents[0].place, &agents[1].place, &fake.place];
    let agents_of = |authority: &Authority| {
        Agents::new(places, authority.0.pem().as_bytes(), Config::new()).expect("the authority is right")
    };
    let mut limits = Limits::default();
    limits.failover_wait = Duration::from_millis(300);
    let build = |authority: &Authority| {
        Router::builder().agents(agents_of(authority)).limits(limits.clone()).build(NoTls).unwrap()
    };
    let router = build(&authority);
    agents[0].say("n1", "primary", 1, 1);
    agents[1].say("n2", "standby", 1, 1);
    until(&router, "the first reign", |topology| leader(topology) == Some("n1")).await;
    until(&router, "the other node", |topology| topology.node("n2").is_some()).await;
    assert_eq!(router.topology().primary().and_then(|node| node.term), Some(1));
    assert!(router.topology().node("n3").is_none(), "whose certificate is of another authority says nothing");

    // A failover: while the old leader still believes in itself, the later reign counts.
    agents[1].say("n2", "primary", 2, 2);
    until(&router, "the second reign", |topology| leader(topology) == Some("n2")).await;
    let refused: Vec<_> = router.topology().refused().map(|node| node.name.clone()).collect();
    assert!(refused.iter().all(|name| name == "n1"));
    // It is on its way out, whatever its server says; and then there is nobody.
    agents[1].say("n2", "unknown", 2, 2);
    until(&router, "the end of it", |topology| topology.node("n2").is_some_and(|node| node.role == Role::Unknown))
        .await;
    assert_eq!(leader(&router.topology()), None, "the first reign is over for good");
    assert!(matches!(router.execute("insert into t values (1)", &[]).await, Err(Error::NoPrimary { .. })));

    // An agent that goes away takes its word with it.
    agents[0].say("n1", "primary", 3, 3);
    until(&router, "the third reign", |topology| leader(topology) == Some("n1")).await;
    drop(router);
    let router = build(&authority);
    agents[1].say("n2", "standby", 3, 3);
    until(&router, "the same again", |topology| topology.nodes.len() == 2).await;
    assert!(matches!(
        Router::builder()
            .agents(Agents::new(["nowhere"], authority.0.pem().as_bytes(), Config::new()).unwrap())
            .build(NoTls),
        Err(Error::Settings(_))
    ));
    for agent in &agents {
        agent.task.abort();
    }
}
