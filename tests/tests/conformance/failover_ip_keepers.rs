//! The failover addresses that a provider keeps, against servers that behave as the providers document it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use pgdock_core::failover_ip::aws::{Attachment, AwsKeys};
use pgdock_core::failover_ip::{
    AwsFailoverIp, FailoverIp, HetznerCloudIp, HetznerRobotIp, Holder, Target, conformance,
};
use pgdock_core::{Error, ErrorKind, NodeName, Term};
use pgdock_testkit::keeper::{Ec2, HetznerCloud, HetznerRobot, Keeper, Reply, Trouble};

const SECRET: &str = "hunter2-secret";
const PAUSE: Duration = Duration::from_millis(1);

fn name(i: u8) -> NodeName {
    NodeName::new(format!("n{i}")).unwrap()
}

fn target(i: u8) -> Target {
    Target { cluster: "shop".into(), node: name(i), address: format!("10.0.0.{i}"), term: Term(7) }
}

/// Fails with this; nothing secret is said.
async fn fails(ip: &dyn FailoverIp, i: u8, words: &str) -> Error {
    let error = ip.assign(&target(i)).await.expect_err("it must fail");
    let shown = format!("{} {error:?} {ip:?} {ip} {:?}", error.chain(), error.hints());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(error.to_string().contains(words), "expected {words:?}: {shown}");
    error
}

fn server(i: u8) -> IpAddr {
    IpAddr::from([5, 6, 7, i])
}

async fn robot() -> (Keeper<HetznerRobot>, HetznerRobotIp) {
    let keeper = Keeper::start(HetznerRobot {
        address: IpAddr::from([1, 2, 3, 4]),
        login: format!("robot:{SECRET}"),
        servers: vec![server(1), server(2), server(3)],
        active: None,
        switching: None,
        lag: 2,
        requests_left: None,
    })
    .await
    .unwrap();
    let ip = HetznerRobotIp::new(IpAddr::from([1, 2, 3, 4]), "robot", SECRET).unwrap();
    let ip = ip.server(name(1), server(1)).server(name(2), server(2)).endpoint(&keeper.url()).unwrap();
    (keeper, ip.settle(8, PAUSE).timeout(Duration::from_secs(20)))
}

#[tokio::test]
async fn hetzner_robot_conforms() {
    let (keeper, ip) = robot().await;
    assert_eq!(ip.current().await.unwrap(), None);
    conformance::run(&ip, &target(1), &target(2)).await;
    // Another server of the user's than any node.
    keeper.with(|robot| robot.active = Some(server(3)));
    assert_eq!(ip.current().await.unwrap(), Some(Holder::Address("5.6.7.3".into())));
}

#[tokio::test]
async fn hetzner_robot_conforms_when_answers_are_lost_and_requests_refused() {
    let closed = Trouble::Refuse(Reply::new(503, "<html>maintenance</html>"));
    for trouble in [Trouble::LoseAnswer, closed] {
        let (keeper, ip) = robot().await;
        keeper.every(7, trouble);
        conformance::run(&ip, &target(1), &target(2)).await;
    }
}

#[tokio::test]
async fn hetzner_robot_says_what_its_errors_mean() {
    let (keeper, ip) = robot().await;
    // Accepted, and never done.
    keeper.with(|robot| robot.lag = 1_000);
    let error = fails(&ip, 1, "still points at nobody").await;
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Unavailable, false));
    // The one before is under way.
    let error = fails(&ip, 2, "another switch of the failover IP is under way").await;
    assert_eq!((error.is_retryable(), error.retry_after()), (true, Some(Duration::from_secs(15))));
    keeper.with(|robot| robot.switching = None);

    let unknown = Target { node: name(3), address: "192.0.2.99".into(), ..target(3) };
    let error = ip.assign(&unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("knows no such server") && error.hints()[0].contains("server_ip"), "{error}");

    keeper.with(|robot| robot.requests_left = Some(0));
    let error = fails(&ip, 1, "no more requests for a while").await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3_600)), "the interval that it names");
    assert!(error.outcome_known() && error.is_retryable());
    keeper.with(|robot| robot.requests_left = None);

    let broken = r#"{"error":{"status":500,"code":"FAILOVER_FAILED","message":"Switch failed"}}"#;
    keeper.next(Method::POST, Trouble::Refuse(Reply::new(500, broken)));
    let error = fails(&ip, 1, "could not be switched").await;
    assert!(!error.outcome_known(), "it may have been done half way");

    keeper.with(|robot| robot.login = "robot:other".into());
    let error = fails(&ip, 1, "refuses these credentials").await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // Three wrong logins lock the machine out for ten minutes.
    assert!(error.retry_after().is_some_and(|pause| pause * 3 >= Duration::from_secs(600)), "{error:?}");

    let pace = ip.pace();
    assert!(pace.look_every * 100 >= Duration::from_secs(3_600), "100 looks an hour are answered");
    assert!(pace.retry_every * 50 >= Duration::from_secs(3_600), "50 switches an hour are answered");
}

#[tokio::test]
async fn a_keeper_that_does_not_answer_is_waited_for_in_vain_and_not_for_ever() {
    let (keeper, ip) = robot().await;
    let ip = ip.timeout(Duration::from_millis(200));
    keeper.next(Method::POST, Trouble::Hang);
    let error = fails(&ip, 1, "does not answer").await;
    assert!(!error.outcome_known(), "the request was sent");
    drop(keeper);
    let error = fails(&ip, 1, "does not answer").await;
    assert!(error.outcome_known(), "no connection, no request: {}", error.chain());
}

fn cloud_ways() -> HetznerCloud {
    HetznerCloud {
        token: SECRET.to_owned(),
        addresses: BTreeMap::from([
            (4, "203.0.113.9".into()),
            (7, "203.0.113.10".into()),
            (8, "2001:db8:1:2::/64".into()),
        ]),
        servers: vec![11, 12, 13],
        assigned: BTreeMap::new(),
        actions: BTreeMap::new(),
        lag: 2,
        fail_next: false,
    }
}

async fn cloud(address: &str) -> (Keeper<HetznerCloud>, HetznerCloudIp) {
    let keeper = Keeper::start(cloud_ways()).await.unwrap();
    let ip = HetznerCloudIp::new(address.parse().unwrap(), SECRET).unwrap();
    let ip = ip.server(name(1), 11).server(name(2), 12).server(name(3), 99).endpoint(&keeper.url()).unwrap();
    (keeper, ip.settle(8, PAUSE).timeout(Duration::from_secs(20)))
}

#[tokio::test]
async fn hetzner_cloud_conforms() {
    for address in ["203.0.113.10", "2001:db8:1:2::1"] {
        let (keeper, ip) = cloud(address).await;
        assert_eq!(ip.current().await.unwrap(), None);
        conformance::run(&ip, &target(1), &target(2)).await;
        let id = if address.contains(':') { 8 } else { 7 };
        assert_eq!(keeper.with(|cloud| cloud.assigned.clone()), BTreeMap::from([(id, 12)]), "no other was touched");
        assert_eq!(keeper.asked(&Method::POST).len(), 4, "only true moves are requested");
        keeper.with(|cloud| cloud.assigned.insert(id, 13));
        assert_eq!(ip.current().await.unwrap(), Some(Holder::Address("server 13".into())));
    }
}

#[tokio::test]
async fn hetzner_cloud_conforms_when_answers_are_lost_and_requests_refused() {
    let limited = Trouble::Refuse(Reply::new(429, r#"{"error":{"code":"rate_limit_exceeded","message":"limit"}}"#));
    for trouble in [Trouble::LoseAnswer, limited] {
        let (keeper, ip) = cloud("203.0.113.10").await;
        keeper.every(7, trouble);
        conformance::run(&ip, &target(1), &target(2)).await;
    }
}

#[tokio::test]
async fn hetzner_cloud_says_what_its_errors_mean() {
    let (keeper, ip) = cloud("203.0.113.10").await;
    keeper.with(|cloud| cloud.fail_next = true);
    let error = fails(&ip, 1, "could not be assigned").await;
    assert!(error.chain().contains("Action failed") && !error.outcome_known(), "{}", error.chain());

    let refuse = |status, body: &str| Trouble::Refuse(Reply::new(status, body));
    for (status, code) in [(423, "locked"), (409, "conflict")] {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
        keeper.next(Method::POST, refuse(status, &body));
        let error = fails(&ip, 1, "something else is being done").await;
        assert!(error.is_retryable() && error.retry_after().is_some() && error.outcome_known());
    }
    let limited = Reply::new(429, r#"{"error":{"code":"rate_limit_exceeded","message":"m"}}"#);
    keeper.next(Method::POST, Trouble::Refuse(limited.header("retry-after", "37")));
    let error = fails(&ip, 1, "wants fewer requests").await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(37)));

    let error = fails(&ip, 3, "no such floating IP or server").await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let stranger = Target { node: NodeName::new("n9").unwrap(), ..target(9) };
    let error = ip.assign(&stranger).await.unwrap_err();
    assert!(error.hints()[0].contains("server_id"), "{error}");

    let (_keeper, other) = cloud("203.0.113.77").await;
    fails(&other, 1, "no such floating IP in the project").await;
    keeper.with(|cloud| cloud.token = "another".into());
    let error = fails(&ip, 1, "refuses these credentials").await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

async fn ec2(token: Option<&str>) -> Keeper<Ec2> {
    Keeper::start(Ec2 {
        address: "203.0.113.10".into(),
        allocation: "eipalloc-1".into(),
        region: "eu-central-1".into(),
        key: ("AKIDEXAMPLE".into(), SECRET.into()),
        token: token.map(str::to_owned),
        instances: (1..=3).map(|i| (format!("i-{i}"), format!("eni-{i}"))).collect(),
        holder: None,
        moving: None,
        lag: 2,
    })
    .await
    .unwrap()
}

fn keys(token: Option<&str>) -> AwsKeys {
    AwsKeys::Static { id: "AKIDEXAMPLE".into(), secret: SECRET.into(), token: token.map(Into::into) }
}

fn aws(keeper: &Keeper<Ec2>, keys: AwsKeys) -> AwsFailoverIp {
    let ip = AwsFailoverIp::new([203, 0, 113, 10].into(), "eu-central-1", keys).unwrap();
    ip.node(name(1), Attachment::Instance("i-1".into()))
        .node(name(2), Attachment::Interface("eni-2".into()))
        .node(name(4), Attachment::Instance("i-99".into()))
        .endpoint(&keeper.url())
        .unwrap()
        .settle(8, PAUSE)
        .timeout(Duration::from_secs(20))
}

#[tokio::test]
async fn aws_conforms_with_keys_and_with_the_role_of_the_instance() {
    for token in [None, Some("session-hunter2")] {
        let keeper = ec2(token).await;
        let ip = aws(&keeper, keys(token));
        assert_eq!(ip.current().await.unwrap(), None);
        conformance::run(&ip, &target(1), &target(2)).await;
        keeper.with(|ec2| ec2.holder = Some(2));
        assert_eq!(ip.current().await.unwrap(), Some(Holder::Address("i-3".into())));
    }
    let keeper = ec2(Some("session-hunter2")).await;
    let ip = aws(&keeper, AwsKeys::Instance { metadata: Some(keeper.url()) });
    conformance::run(&ip, &target(1), &target(2)).await;
    assert_eq!(keeper.asked(&Method::PUT).len(), 1, "credentials are kept until they expire");
}

#[tokio::test]
async fn aws_conforms_when_answers_are_lost_and_requests_refused() {
    let xml =
        "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>m</Message></Error></Errors></Response>";
    for trouble in [Trouble::LoseAnswer, Trouble::Refuse(Reply::new(503, xml))] {
        let keeper = ec2(None).await;
        keeper.every(7, trouble);
        conformance::run(&aws(&keeper, keys(None)), &target(1), &target(2)).await;
    }
}

#[tokio::test]
async fn aws_says_what_its_errors_mean() {
    let keeper = ec2(None).await;
    let ip = aws(&keeper, keys(None));
    let error = fails(&ip, 4, "no such instance or network interface").await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    fails(&ip, 3, "the instance is not known").await;
    keeper.with(|ec2| ec2.lag = 1_000);
    let error = fails(&ip, 1, "still points at nobody").await;
    assert!(!error.outcome_known());
    let xml =
        "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>m</Message></Error></Errors></Response>";
    keeper.next(Method::POST, Trouble::Refuse(Reply::new(503, xml)));
    let error = fails(&ip, 1, "wants fewer requests").await;
    assert!(error.is_retryable() && error.retry_after().is_some() && error.outcome_known());
    keeper.with(|ec2| ec2.key.1 = "rotated".into());
    let error = fails(&ip, 1, "refuses these credentials").await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    keeper.with(|ec2| {
        ec2.key.1 = SECRET.into();
        ec2.address = "203.0.113.11".into();
    });
    fails(&ip, 1, "no such Elastic IP").await;
    let nobody = aws(&keeper, AwsKeys::Instance { metadata: Some("http://127.0.0.1:1".into()) });
    let error = fails(&nobody, 1, "has no credentials").await;
    assert!(error.outcome_known() && error.hints()[0].contains("role"));
}
