use super::*;
use crate::agent::api::ServeConfig;
use crate::agent::api::tests::{Served, TOKEN, name, report};
use crate::agent::tls::tests::TestAuthority;
use crate::clock::Clock;
use crate::postgres::lsn::Lsn;
use crate::{Lsn as Position, Role};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Listening {
    events: mpsc::Receiver<PeerEvent>,
    shutdown: CancellationToken,
    links: JoinSet<()>,
}

impl Listening {
    fn to(served: &Served, change: impl FnOnce(&mut PeersConfig)) -> Self {
        let mut config = PeersConfig {
            cluster: "c".to_owned(),
            peers: [(name("n1"), served.address.clone())].into(),
            beat: Duration::from_millis(20),
            tls: served.authority.client(),
            token: SecretString::from(TOKEN),
        };
        change(&mut config);
        let (sender, events) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let links = spawn(config, &sender, &shutdown).unwrap();
        Self { events, shutdown, links }
    }

    async fn next(&mut self) -> PeerEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event").expect("the link lives")
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&PeerEvent) -> bool) -> PeerEvent {
        let found = async {
            loop {
                let event = self.next().await;
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }

    async fn problem(&mut self) -> String {
        match self.next().await {
            PeerEvent::BadIdentity { node, problem } if node == name("n1") => problem,
            other => panic!("{other:?}"),
        }
    }
}

fn heard(event: &PeerEvent) -> Option<Position> {
    match event {
        PeerEvent::Heard(report) => Some(report.flushed),
        _ => None,
    }
}

#[tokio::test]
async fn reports_come_every_beat_and_on_change() {
    let served = Served::start(Role::Primary).await;
    let mut listening = Listening::to(&served, |_| {});
    for _ in 0..3 {
        assert_eq!(listening.next().await, PeerEvent::Heard(Box::new(report("n1", Role::Primary))));
    }
    served.published.send_modify(|p| p.report.flushed = Lsn(6000));
    listening.until("the change", |event| heard(event) == Some(Lsn(6000))).await;
    listening.shutdown.cancel();
    tokio::time::timeout(PATIENCE, async { while listening.links.join_next().await.is_some() {} }).await.unwrap();
}

#[tokio::test]
async fn a_stream_outlasts_the_time_for_a_request() {
    let config = ServeConfig { idle_timeout: Duration::from_millis(50), ..ServeConfig::default() };
    let at = "127.0.0.1:0".parse().unwrap();
    let served = Served::with(TestAuthority::new(), at, Role::Primary, config).await;
    let mut listening = Listening::to(&served, |config| config.beat *= 50);
    for _ in 0..20 {
        assert!(heard(&listening.next().await).is_some());
    }
}

#[tokio::test]
async fn an_agent_that_ends_is_lost_then_refused_then_heard_again() {
    let served = Served::start(Role::Primary).await;
    let mut listening = Listening::to(&served, |_| {});
    listening.until("the first report", |event| heard(event).is_some()).await;
    let (authority, address) = served.stop().await;
    listening.until("the loss", |event| *event == PeerEvent::Lost(name("n1"))).await;
    assert_eq!(listening.next().await, PeerEvent::Refused(name("n1")));
    let _served = Served::with(authority, address, Role::Standby, ServeConfig::default()).await;
    let back = listening.until("a report of the new one", |event| heard(event).is_some()).await;
    assert_eq!(back, PeerEvent::Heard(Box::new(report("n1", Role::Standby))));
}

#[tokio::test]
async fn an_agent_whose_loop_hangs_is_lost_though_its_server_lives() {
    let served = Served::start(Role::Primary).await;
    let mut listening = Listening::to(&served, |_| {});
    listening.until("the first report", |event| heard(event).is_some()).await;
    served.clock.advance(Duration::from_secs(3));
    listening.until("the loss", |event| *event == PeerEvent::Lost(name("n1"))).await;
    served.published.send_modify(|p| {
        p.at = served.clock.now();
        p.report.flushed = Lsn(7000);
    });
    listening.until("the loop again", |event| heard(event) == Some(Lsn(7000))).await;
}

#[tokio::test]
async fn strangers_are_not_believed() {
    let served = Served::start(Role::Primary).await;
    let problem = Listening::to(&served, |c| c.cluster = "d".to_owned()).problem().await;
    assert!(problem.contains("another cluster") && problem.contains("cluster=c"), "{problem}");
    let problem = Listening::to(&served, |c| c.token = SecretString::from("other")).problem().await;
    assert!(problem.contains("token") && !problem.contains("other"), "{problem}");
    let problem = Listening::to(&served, |c| c.tls = TestAuthority::new().client()).problem().await;
    assert!(problem.contains("certificate"), "{problem}");

    served.published.send_modify(|p| p.report = report("n2", Role::Primary));
    let mut listening = Listening::to(&served, |_| {});
    let problem = listening.problem().await;
    assert!(problem.contains("found=n2"), "{problem}");
    // Told once; and once it is right, it is heard.
    served.published.send_modify(|p| p.report = report("n1", Role::Primary));
    assert!(heard(&listening.next().await).is_some());
}
