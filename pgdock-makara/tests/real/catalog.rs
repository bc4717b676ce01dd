//! What a database tells of its own functions, and what the router tells of its decisions.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use pgdock_makara::{Classifier, Reads, Reason, Target};
use tokio_postgres::NoTls;
use tracing_subscriber::fmt::MakeWriter;

use super::cluster::{Cluster, HOSTS};
use super::{both_known, router};

const SCHEMA: &str = "
    create schema app;
    create table t (a int);
    create unlogged table cache (a int);
    create function visible_to(int) returns bool stable language sql as 'select true';
    create function remember(int) returns int language sql as 'insert into t values ($1) returning a';
    create function mixed(int) returns int immutable language sql as 'select 1';
    create function mixed(text) returns int volatile language sql as 'select 1';
    create function app.total() returns bigint stable language sql as 'select count(*) from public.t';
    create function lower(int) returns text immutable language sql as 'select $1::text';
    create function upper(int) returns text volatile language sql as 'select $1::text';
    create function set_config(int) returns int immutable language sql as 'select $1';
    create operator ~~~ (leftarg = int, rightarg = int, function = int4eq);
    create operator ~~~~ (rightarg = int, function = remember);
    create view harmless as select count(*) from t;
    create view writing as select remember(7);
    create view deep as select * from writing;
    create view total as select app.total();";

#[tokio::test]
async fn the_catalog_tells_what_reads() {
    let Some(cluster) = Cluster::start_one() else { return };
    let (client, connection) = cluster.address(0).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(SCHEMA).await.unwrap();
    let classifier =
        Classifier::new().write_function("visible_to").with_catalog(&client).await.unwrap().read_function("remember");
    let other = Classifier::new().with_catalog(&client).await.unwrap();
    for (sql, target, reason) in [
        ("select visible_to(1)", Target::Replica, Reason::Read),
        ("select public.visible_to(1)", Target::Replica, Reason::Read),
        ("select remember(1)", Target::Primary, Reason::WritingFunction),
        ("select public.remember(1)", Target::Primary, Reason::WritingFunction),
        ("select mixed(1)", Target::Primary, Reason::WritingFunction),
        ("select app.total()", Target::Replica, Reason::Read),
        // It is not on the search path.
        ("select total()", Target::Primary, Reason::UnknownFunction),
        ("select lower('A')", Target::Replica, Reason::Read),
        ("select upper('a')", Target::Primary, Reason::WritingFunction),
        ("select set_config('a.b', 'c', false)", Target::All, Reason::Setting),
        ("select 1 ~~~ 2", Target::Replica, Reason::Read),
        ("select ~~~~ 2", Target::Primary, Reason::UnknownOperator),
        ("select * from cache", Target::Primary, Reason::ListedRelation),
        ("select * from harmless", Target::Replica, Reason::Read),
        ("select * from total", Target::Replica, Reason::Read),
        ("select * from writing", Target::Primary, Reason::ListedRelation),
        ("select * from deep", Target::Primary, Reason::ListedRelation),
    ] {
        let decision = other.classify(sql);
        assert_eq!((decision.target, decision.reason), (target, reason), "{sql}");
    }
    assert_eq!(classifier.classify("select visible_to(1)").reason, Reason::WritingFunction, "what a person said first");
    assert_eq!(classifier.classify("select remember(1)").target, Target::Replica, "and what a person said last");
    assert_eq!(Classifier::new().classify("select visible_to(1)").reason, Reason::UnknownFunction);
}

#[tokio::test]
async fn decisions_are_counted_and_an_audit_writes_them_down() {
    let Some(cluster) = Cluster::start() else { return };
    let (log, recorder) = (Log::default(), Counts::default());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let router = router(&cluster, |builder| builder.id("shop").reads(Reads::Audit));
    both_known(&router).await;
    let answered: String = router.query(super::WHERE, &[]).await.unwrap()[0].get(0);
    assert_eq!(answered, HOSTS[0], "nothing leaves the primary");
    router.execute("create table t (a int)", &[]).await.unwrap();
    router.execute("insert into t values ($1)", &[&4711]).await.unwrap();
    router.query("select nowhere.nothing(1)", &[]).await.unwrap_err();
    let long = format!("select 1 -- {}", "x".repeat(5000));
    router.query(&long, &[]).await.unwrap();

    let text = log.text();
    for part in [
        "INFO pgdock_makara::audit: decided router=\"shop\" decision=\"replica\" reason=\"read\"",
        "decision=\"primary\" reason=\"unknown_function\" culprit=\"nothing\" sql=\"select nowhere.nothing(1)\"",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("4711") && !text.contains(&"x".repeat(600)), "{text}");
    let decisions = router.stats().decisions;
    let count = |target, reason| {
        let found = decisions.iter().find(|found| found.target == target && found.reason == reason);
        found.map_or(0, |found| found.count)
    };
    assert_eq!((count("replica", Reason::Read), count("primary", Reason::Write)), (2, 2), "{decisions:?}");
    let counted = recorder.0.lock().unwrap();
    let value = |name: &str| counted.get(name).map(|value| value.load(Ordering::Relaxed));
    assert_eq!(value("pgdock_router_decisions_total router=shop target=replica reason=read"), Some(2), "{counted:?}");
    assert_eq!(value("pgdock_router_reads_total router=shop node=n1"), Some(2), "{counted:?}");
    assert_eq!(value("pgdock_router_writes_total router=shop node=n1"), Some(2), "{counted:?}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Counters by name and labels.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: String = key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
        let counter = Arc::clone(self.0.lock().unwrap().entry(format!("{}{labels}", key.name())).or_default());
        Counter::from_arc(counter)
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
