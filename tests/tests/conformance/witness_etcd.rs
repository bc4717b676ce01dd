//! The etcd witness on a real etcd.

use std::sync::Arc;
use std::time::Duration;

use pgdock_core::ErrorKind;
use pgdock_core::clock::SystemClock;
use pgdock_core::witness::etcd::EtcdConfig;
use pgdock_core::witness::http::Tls;
use pgdock_core::witness::probe::scratch_record;
use pgdock_core::witness::{EtcdWitness, FaultyWitness, Swap, Witness, conformance, probe};
use pgdock_tests::stores::TestEtcd;
use pgdock_tests::stores::etcd::EtcdOptions;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use secrecy::SecretString;

#[tokio::test(flavor = "multi_thread")]
async fn etcd_conforms() {
    let Some(etcd) = TestEtcd::start(EtcdOptions::default()).await else { return };
    conformance::run(async || etcd.fresh(1)).await;
    conformance::run(async || etcd.fresh(3)).await;
    assert!(probe(etcd.fresh(1)[0].as_ref(), &SystemClock).await.passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_conforms_behind_a_bad_network() {
    let Some(etcd) = TestEtcd::start(EtcdOptions::default()).await else { return };
    conformance::run(async || {
        let inner = etcd.fresh(1).remove(0);
        let faulty = FaultyWitness::new(inner, 1).lose_requests(0.1).lose_answers(0.15).land_late(0.15, 6);
        vec![Arc::new(faulty.delay(0.1, Duration::from_millis(1))) as Arc<dyn Witness>]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_passed_over_and_a_hanging_one_is_not_taken_for_dead() {
    let Some(etcd) = TestEtcd::start(EtcdOptions::default()).await else { return };
    let open = |endpoints: &[&str]| {
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        EtcdWitness::new(EtcdConfig { endpoints, ..etcd.config("/w") }).unwrap().timeout(Duration::from_millis(900))
    };
    // Nobody listens at the first: that one certainly got nothing.
    let witness = open(&["127.0.0.1:1", etcd.endpoint()]);
    let Swap::Committed(version) = witness.compare_and_swap(&scratch_record(0), None).await else { panic!() };
    assert_eq!(witness.read().await.unwrap().unwrap().1, version);

    // The first hangs: what was sent to it may be carried out yet, and is not sent to the second.
    let Some(second) = TestEtcd::start(EtcdOptions::default()).await else { return };
    let witness = open(&[etcd.endpoint(), second.endpoint()]);
    etcd.freeze();
    let next = scratch_record(1);
    let swap = witness.compare_and_swap(&next, Some(&version)).await;
    etcd.thaw();
    assert!(matches!(&swap, Swap::Ambiguous(e) if !e.outcome_known()), "{swap:?}");
    let other = EtcdWitness::new(EtcdConfig { endpoints: vec![second.endpoint().into()], ..etcd.config("/w") });
    assert!(other.unwrap().read().await.unwrap().is_none(), "the swap was sent on");
    // It lands later, or never: whoever reads is told which of the two it is by now.
    let reader = open(&[etcd.endpoint()]);
    let (record, now) = reader.read().await.unwrap().unwrap();
    assert_eq!(record.nonce == next.nonce, now != version);

    // Members of two clusters are no cluster.
    let mixed = open(&[etcd.endpoint(), second.endpoint()]);
    mixed.read().await.unwrap();
    etcd.freeze();
    let error = mixed.read().await.unwrap_err();
    etcd.thaw();
    assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{}", error.chain());
    assert!(error.to_string().contains("another etcd cluster"), "{error}");

    // One that hangs, and is alone, is unavailable in time.
    etcd.freeze();
    let error = reader.read().await.unwrap_err();
    etcd.thaw();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_asked_for_and_gets_a_new_token_when_the_old_one_is_gone() {
    let Some(etcd) = TestEtcd::start(EtcdOptions::default()).await else { return };
    let user = etcd.ask_for_password("root", "hunter2").await;
    let open = |user| EtcdWitness::new(EtcdConfig { user, ..etcd.config("/w") }).unwrap();
    let witness = open(Some(user));
    let Swap::Committed(version) = witness.compare_and_swap(&scratch_record(0), None).await else { panic!() };
    // Every token is void after this.
    etcd.ctl(&["--user", "root:hunter2", "auth", "disable"]).await;
    etcd.ctl(&["auth", "enable"]).await;
    let swap = witness.compare_and_swap(&scratch_record(1), Some(&version)).await;
    assert!(matches!(swap, Swap::Committed(_)), "{swap:?}");
    assert!(!format!("{witness:?}").contains("hunter2"));

    for (user, says) in [(None, "refuses"), (Some(("root".to_owned(), SecretString::from("wrong"))), "refuses")] {
        let witness = open(user);
        let error = witness.read().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(says), "{}", error.chain());
        let swap = witness.compare_and_swap(&scratch_record(2), Some(&version)).await;
        assert!(matches!(&swap, Swap::Ambiguous(e) if e.outcome_known()), "{swap:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_on_both_sides() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pair = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
    };
    let options = EtcdOptions { certificate: Some(pair("127.0.0.1")), client_ca: Some(ca.pem()) };
    let Some(etcd) = TestEtcd::start(options).await else { return };
    let open = |tls: Tls| EtcdWitness::new(EtcdConfig { tls, ..etcd.config("/w") }).unwrap();
    let (certificate, key) = pair("client");
    let whole = Tls {
        ca: Some(ca.pem().into()),
        certificate: Some(certificate.into()),
        key: Some(key.into()),
        allow_plain: false,
    };
    let witness = open(whole.clone());
    let mut tries = 0;
    // It may not have a leader yet.
    while let Err(error) = witness.read().await {
        tries += 1;
        assert!(tries < 600, "{}", error.chain());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let swap = witness.compare_and_swap(&scratch_record(0), None).await;
    assert!(matches!(swap, Swap::Committed(_)), "{swap:?}");
    assert!(open(Tls { ca: None, ..whole.clone() }).read().await.is_err(), "an unknown authority");
    assert!(open(Tls { certificate: None, key: None, ..whole.clone() }).read().await.is_err(), "no certificate");
    assert!(open(Tls { allow_plain: true, ..Tls::default() }).read().await.is_err(), "no TLS");
}
