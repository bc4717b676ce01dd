//! WAL gets into the archive, whatever happens to nodes and store, and comes back from there.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::backup::layout::Name;
use pgdock_core::backup::wal::{Segment, WalStore, gaps};
use pgdock_core::backup::{Codec, object};
use pgdock_core::backup_sink::{BackupSink, DirSink};
use pgdock_core::event::EventKind;
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, Lsn, NodeName, Result, TimelineId};
use pgdock_testkit::{Faults, Outage};
use pgdock_tests::real::{Ack, Options, RealCluster, missing, program, until};
use pgdock_tests::stores::TestBucket;

use crate::common::{LONG, SOON, complains, nothing_lost, on, options, rejoined, superuser, taken_over, writer};
use crate::rejoin::{made_anew, oldest_segment};

const SEGMENT: u64 = 16 << 20;

/// A cluster that archives into a bucket.
pub(crate) fn into(bucket: &TestBucket, first: u8, nodes: usize) -> Options {
    let server = bucket.server();
    server.make_bucket("backups").expect("a bucket");
    let mut options = options(first, nodes, Durability::Sync);
    let backup = format!(
        "url = \"s3://backups/prod\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\ntls = false",
        server.endpoint()
    );
    options.extra.insert("backup", backup);
    let keys = server.keys();
    let env = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", keys.access, keys.secret);
    options.secrets.insert("backup.env", env);
    options
}

/// A cluster that archives into a folder.
fn into_folder(folder: &Path, first: u8, nodes: usize) -> Options {
    let mut options = options(first, nodes, Durability::Sync);
    options.extra.insert("backup", format!("url = \"file:{}\"", folder.display()));
    options
}

/// The archive of a cluster, as its settings name it.
pub(crate) async fn archive(cluster: &RealCluster) -> Result<WalStore> {
    let repository = pgdock_core::backup::Repository::open(&cluster.settings).await?;
    let system = cluster.cluster.document().await?.expect("the cluster was founded").system_identifier;
    Ok(WalStore::new(repository.sink, repository.codec, system))
}

/// Ends the present segment, and tells which one it was.
pub(crate) async fn switch(cluster: &RealCluster, primary: &NodeName) -> Result<Segment> {
    let client = superuser(cluster, primary).await?;
    let failed = |e| Error::unavailable("a statement failed").because(e);
    client.batch_execute("SELECT pg_logical_emit_message(true, 'test', 'x')").await.map_err(failed)?;
    let sql = "SELECT (pg_control_checkpoint()).timeline_id, pg_switch_wal()::text";
    let row = client.query_one(sql, &[]).await.map_err(failed)?;
    let end: Lsn = row.get::<_, String>(1).parse().map_err(|e| Error::internal("no position").because(e))?;
    let timeline = u32::try_from(row.get::<_, i32>(0)).unwrap_or_default();
    Ok(Segment::at(TimelineId(timeline), Lsn(end.0.saturating_sub(1)), SEGMENT))
}

/// Waits until a segment is in the archive.
pub(crate) async fn archived(store: &WalStore, segment: Segment) -> Result<()> {
    until(&format!("{segment} is in the archive"), LONG, async || {
        store.segments().await.is_ok_and(|all| all.contains(&segment))
    })
    .await
}

/// A copy of the primary, as `pg_basebackup` makes it, without WAL.
struct Copy {
    dir: tempfile::TempDir,
    user: OsUser,
    binaries: Binaries,
}

impl Copy {
    fn of(cluster: &RealCluster, primary: &NodeName) -> Result<Self> {
        let user = OsUser::resolve(&cluster.settings.postgres.user)?;
        let binaries = Binaries::find(None, None, std::env::var_os("PATH").as_deref())?;
        let dir = tempfile::Builder::new().prefix("pgdock-restored-").tempdir_in("/tmp").expect("a folder");
        let this = Self { dir, user, binaries };
        this.own(this.dir.path());
        let of = &cluster.settings.nodes[primary];
        let from = format!(
            "host={} port={} user=pgdock_replication sslmode=require passfile={}",
            of.address,
            of.postgres_port,
            of.home.join("secrets/passfile").display()
        );
        let data = this.data();
        let args = ["-D", data.to_str().expect("UTF-8"), "-X", "none", "-c", "fast", "-d", &from];
        let copied = this.run("pg_basebackup", args.iter().map(AsRef::as_ref));
        assert!(copied.status.success(), "{copied:?}");
        Ok(this)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.user.uid), Some(self.user.gid)).expect("it can be given away");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(if path.is_dir() { 0o700 } else { 0o600 }))
            .expect("it can be closed to others");
    }

    fn run<'a>(&self, name: &str, args: impl Iterator<Item = &'a std::ffi::OsStr>) -> std::process::Output {
        let mut command = Command::new(self.binaries.program(name));
        command.args(args).current_dir(self.dir.path()).env("HOME", self.dir.path());
        if rustix::process::geteuid().is_root() {
            command.uid(self.user.uid).gid(self.user.gid);
        }
        command.output().expect("a program of PostgreSQL runs")
    }

    /// Recovers by the archive to its end, and tells which acknowledged rows are missing.
    async fn recover(&self, cluster: &RealCluster, acks: &[Ack]) -> Result<Vec<i64>> {
        // What the database's user may read: it runs the program.
        let conf = self.dir.path().join("conf");
        for folder in [&conf, &conf.join("secrets")] {
            std::fs::create_dir(folder).expect("a folder");
            self.own(folder);
        }
        for file in ["cluster.toml", "secrets/backup.env"] {
            std::fs::copy(cluster.dir().join(file), conf.join(file)).expect("it is copied");
            self.own(&conf.join(file));
        }
        let fetch = format!("{} --config {} wal fetch %f %p", program()?.display(), conf.display());
        let settings = [
            ("restore_command", fetch.as_str()),
            ("recovery_target_timeline", "latest"),
            ("recovery_target_action", "promote"),
            ("archive_mode", "off"),
            ("listen_addresses", ""),
            ("unix_socket_directories", self.dir.path().to_str().expect("UTF-8")),
            ("port", "5499"),
            ("wal_retrieve_retry_interval", "100ms"),
        ];
        let text: String = settings.iter().map(|(key, value)| format!("{key} = '{value}'\n")).collect();
        for (file, text) in
            [("postgresql.conf", text.as_str()), ("pg_hba.conf", "local all all trust\n"), ("recovery.signal", "")]
        {
            std::fs::write(self.data().join(file), text).expect("it is written");
            self.own(&self.data().join(file));
        }
        let _ = std::fs::remove_file(self.data().join("standby.signal"));
        let log = self.dir.path().join("log");
        let args = ["-D", "data", "-w", "-t", "60", "-l", "log", "-o"];
        let hba = format!("-c config_file={0}/postgresql.conf -c hba_file={0}/pg_hba.conf", self.data().display());
        let started =
            self.run("pg_ctl", args.iter().map(|a| std::ffi::OsStr::new(*a)).chain([hba.as_ref(), "start".as_ref()]));
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(started.status.success(), "{started:?}\n{}", said());
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.dir.path()).port(5499).user("postgres").dbname(&cluster.settings.postgres.database);
        let (client, connection) = config
            .connect(tokio_postgres::NoTls)
            .await
            .map_err(|e| Error::unavailable(format!("the restored one takes no connection: {}", said())).because(e))?;
        tokio::spawn(connection);
        until("recovery has ended", LONG, async || {
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
            row.is_ok_and(|row| !row.get::<_, bool>(0))
        })
        .await?;
        missing(&client, acks).await
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let args = ["-D", "data", "-m", "immediate", "stop"];
        self.run("pg_ctl", args.iter().map(std::ffi::OsStr::new));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_while_the_store_is_away_leaves_no_gap() {
    let bucket = TestBucket::own().await;
    on(into(&bucket, 244, 2), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let store = archive(cluster).await?;
        let copy = Copy::of(cluster, &old)?;
        let first = switch(cluster, &old).await?;
        archived(&store, first).await?;
        let status = cluster.cluster.status().await?;
        assert!(status.archive.is_some_and(|archive| archive.last.is_some()));
        let shown = cluster.pgdock(&["status"]).await?;
        assert!(String::from_utf8_lossy(&shown.stdout).contains("WAL archive: last 0000"), "{shown:?}");

        // What the old primary does not get rid of, the new one has.
        bucket.faults(Faults { outage: Outage::Cut, ..Faults::default() });
        for _ in 0..3 {
            switch(cluster, &old).await?;
            writer.goes_on(SOON).await?;
        }
        cluster.kill_both(&old);
        let new = taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;
        cluster.start_agent(&old);
        rejoined(cluster, &old).await?;
        bucket.faults(Faults::default());
        writer.goes_on(SOON).await?;
        let acks = writer.stop().await;
        let last = switch(cluster, &new).await?;
        archived(&store, last).await?;
        nothing_lost(cluster, &acks).await?;

        let history = cluster.cluster.document().await?.expect("the cluster was founded").history;
        assert_eq!(last.timeline, history.timeline);
        let all: BTreeSet<Segment> = store.segments().await?;
        assert_eq!(gaps::covered(&history, &all, SEGMENT).len(), 1, "there is a gap: {all:?}");
        let names = store.names(history.timeline, "0", None).await?;
        assert!(names.contains(&format!("{:08X}.history", history.timeline.0)), "{names:?}");
        // Nobody complains any more, and the standby gives its WAL up, too.
        cluster
            .wait("nothing waits to be archived", LONG, |s| {
                s.archive.as_ref().is_some_and(|archive| archive.waiting == 0 && archive.failing.is_none())
            })
            .await?;
        let lost = copy.recover(cluster, &acks).await?;
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged rows do not come back from the archive",
            lost.len(),
            acks.len()
        );
        Ok(())
    })
    .await;
}

/// PostgreSQL does not stop before its archiver has ended, which waits for a store that does not answer: longer than a
/// switchover may take.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_holds_up_no_switchover() {
    let bucket = TestBucket::own().await;
    let mut options = into(&bucket, 246, 2);
    options.extra.entry("failover").or_default().push_str("\nstop_budget = \"8s\"");
    on(options, async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        bucket.faults(Faults { outage: Outage::Silent, ..Faults::default() });
        for _ in 0..2 {
            switch(cluster, &old).await?;
            writer.goes_on(SOON).await?;
        }
        cluster.wait("WAL waits", SOON, |s| s.archive.as_ref().is_some_and(|archive| archive.waiting > 1)).await?;
        let begin = std::time::Instant::now();
        let done = cluster.pgdock(&["switchover"]).await?;
        assert!(done.status.success(), "{done:?}");
        writer.goes_on(SOON).await?;
        eprintln!("the gap of a switchover with a store that hangs: {:?}", writer.longest_gap(begin));
        let new = cluster.settled(SOON).await?;
        assert_ne!(new, old);
        let events = cluster.cluster.events(None).await?.events;
        assert!(events.iter().all(|e| e.kind != EventKind::Fenced), "PostgreSQL had to be killed: {events:?}");
        // What waited is archived by whoever leads, once the store answers.
        bucket.faults(Faults::default());
        let store = archive(cluster).await?;
        let last = switch(cluster, &new).await?;
        archived(&store, last).await?;
        let acks = writer.stop().await;
        let history = cluster.cluster.document().await?.expect("the cluster was founded").history;
        assert_eq!(gaps::covered(&history, &store.segments().await?, SEGMENT).len(), 1);
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_wal_under_the_same_name_is_not_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    on(into_folder(folder.path(), 248, 2), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let store = archive(cluster).await?;
        let first = switch(cluster, &primary).await?;
        archived(&store, first).await?;
        // Somebody else's, such as that of a cluster that was restored and not told apart.
        let next = first.next(SEGMENT);
        let key = Name::Wal { system: store.system(), timeline: next.timeline, file: next.to_string() }.key()?;
        let sink: Arc<dyn BackupSink> = Arc::new(DirSink::new(folder.path().join("test/v1")));
        let other = object::encode(&Codec::default(), &key, b"other")?;
        let _ = object::store(&*sink, &Codec::default(), &key, &other).await?;
        assert_eq!(switch(cluster, &primary).await?, next);
        complains(cluster, &primary, &["other WAL", "not overwritten", &next.to_string()]).await?;
        let kept = object::fetch(&*sink, &Codec::default(), &key, 100).await?;
        assert_eq!(kept.as_deref(), Some(&b"other"[..]));
        // Once somebody has looked into it, it goes on by itself.
        sink.delete(&key).await?;
        archived(&store, next).await?;
        cluster.wait("nobody complains", Duration::from_secs(90), |s| s.is_healthy()).await.map(drop)
    })
    .await;
}

/// With `wal = "stream"` the present segment is in the archive as well, as far as it is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_never_ended_comes_back_to_its_last_commit() {
    let bucket = TestBucket::own().await;
    let mut options = Options { durability: Durability::Async, ..into(&bucket, 250, 1) };
    options.extra.entry("backup").or_default().push_str("\nwal = \"stream\"\nwal_every = \"200ms\"");
    on(options, async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let copy = Copy::of(cluster, &primary)?;
        let store = archive(cluster).await?;
        let ended = switch(cluster, &primary).await?;
        archived(&store, ended).await?;
        writer.goes_on(SOON).await?;
        let acks = writer.stop().await;
        let client = superuser(cluster, &primary).await?;
        let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await;
        let end: String = row.map_err(|e| Error::unavailable("a statement failed").because(e))?.get(0);
        let end: Lsn = end.parse().map_err(|e| Error::internal("no position").because(e))?;
        let streamed = |s: &pgdock_core::cluster::ClusterStatus| {
            s.archive.as_ref().is_some_and(|archive| archive.stored_to.is_some_and(|stored| stored >= end))
        };
        cluster.wait("all is in the archive", SOON, streamed).await?;
        cluster.kill_both(&primary);
        assert!(!store.segments().await?.contains(&ended.next(SEGMENT)), "the segment is not whole");
        let lost = copy.recover(cluster, &acks).await?;
        assert!(lost.is_empty(), "{} of {} acknowledged rows do not come back", lost.len(), acks.len());
        Ok(())
    })
    .await;
}

/// What its leader no longer has, a standby takes from the archive, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_wal_is_gone_takes_it_from_the_archive() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = Options { durability: Durability::Async, ..into_folder(folder.path(), 251, 2) };
    let little =
        "max_slot_wal_keep_size = \"48MB\"\nwal_keep_size = \"0\"\nmin_wal_size = \"32MB\"\nmax_wal_size = \"48MB\"";
    options.extra.insert("postgres.settings", little.to_owned());
    on(options, async |cluster| {
        let failed = |e: tokio_postgres::Error| Error::unavailable("a statement failed").because(e);
        let primary = cluster.settled(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are two nodes");
        let copied = made_anew(cluster, &standby).await?;
        cluster.kill_both(&standby);
        let client = cluster.route()?.connect().await?;
        client.batch_execute("CREATE TABLE filler (t text)").await.map_err(failed)?;
        let super_client = superuser(cluster, &primary).await?;
        let needed = client.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await.map_err(failed)?;
        let needed: String = needed.get(0);
        until("the WAL that the standby needs is gone", 3 * SOON, async || {
            let more = "INSERT INTO filler SELECT repeat(md5(n::text), 100) FROM generate_series(1, 8000) n";
            let done = client.batch_execute(more).await.is_ok()
                && super_client.batch_execute("SELECT pg_switch_wal(); CHECKPOINT").await.is_ok();
            done && oldest_segment(cluster, &primary) > needed
        })
        .await?;
        cluster.start_agent(&standby);
        let taken = async || -> Result<usize> {
            let events = cluster.cluster.events(None).await?.events;
            Ok(events.iter().filter(|e| e.node == standby && e.kind == EventKind::WalTaken).count())
        };
        until("it takes WAL from the archive", SOON, async || taken().await.is_ok_and(|n| n > 0)).await?;
        assert_eq!(cluster.settled(SOON).await?, primary);
        assert_eq!(made_anew(cluster, &standby).await?, copied, "it was not copied");
        let count = "SELECT count(*) FROM filler";
        let here: i64 = client.query_one(count, &[]).await.map_err(failed)?.get(0);
        let there = cluster.route_to(&standby)?.connect().await?;
        until("it has every row", SOON, async || {
            there.query_one(count, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == here)
        })
        .await
    })
    .await;
}
