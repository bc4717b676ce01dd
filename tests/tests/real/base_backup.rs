//! Base backups of real PostgreSQL: taken while clients write, restored to points in time, and compared; and what is damaged is found.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgdock_core::backup::base::{self, NeededWal, OnBadPage, Options, Progress, Source, WalReady};
use pgdock_core::backup::restore::{Action, Destination, Reach, Recovery, Target, choose, restore};
use pgdock_core::backup::verify::boot::boot;
use pgdock_core::backup::verify::{Boot, Level, Report, Scratch, read_all};
use pgdock_core::backup::{Catalog, Cipher, Codec, Label, Manifest, Name, Stored, object};
use pgdock_core::backup_sink::{BackupSink, BackupSinkExt, DirSink, MemorySink};
use pgdock_core::clock::{Clock, SystemClock};
use pgdock_core::postgres::Instance;
use pgdock_core::{Error, Lsn, Result, TimelineId};
use pgdock_tests::real::{Bare, Writer, available, folder};
use tokio::sync::watch;

use crate::common::{LONG, SOON};

const LIMIT: Duration = Duration::from_secs(60);

fn io(error: std::io::Error) -> Error {
    Error::internal("the test cannot do something with files").because(error)
}

async fn one(instance: &Instance, sql: &str) -> Result<String> {
    let rows = Bare::session(instance).query(sql, &[], LIMIT).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| Error::internal(format!("no answer to {sql}")))
}

/// An archive in the place of the agent's: segments go to the sink, and to a folder that `cp` fetches them from.
#[derive(Debug)]
struct Segments<'a> {
    primary: &'a Instance,
    sink: Arc<dyn BackupSink>,
    codec: Codec,
    folder: PathBuf,
}

impl Segments<'_> {
    fn restore_command(&self) -> String {
        format!("cp {}/%f %p", self.folder.display())
    }

    /// Archives all that was written so far.
    async fn archive(&self) -> Result<()> {
        let last = one(self.primary, "SELECT pg_walfile_name(pg_switch_wal())").await?;
        let system = one(self.primary, "SELECT system_identifier::text FROM pg_control_system()").await?;
        let system = system.parse::<i64>().expect("a number").cast_unsigned();
        for entry in std::fs::read_dir(self.primary.layout().data.join("pg_wal")).map_err(io)? {
            let entry = entry.map_err(io)?;
            let file = entry.file_name().into_string().expect("text");
            let to = self.folder.join(&file);
            if file.len() != 24 || file > last || to.exists() {
                continue;
            }
            let content = std::fs::read(entry.path()).map_err(io)?;
            let timeline = TimelineId(u32::from_str_radix(&file[..8], 16).expect("a timeline"));
            let key = Name::Wal { system, timeline, file }.key()?;
            let stored =
                object::store(&*self.sink, &self.codec, &key, &object::encode(&self.codec, &key, &content)?).await?;
            assert_ne!(stored, Stored::Different);
            std::fs::write(&to, content).map_err(io)?;
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o644)).map_err(io)?;
        }
        Ok(())
    }
}

#[async_trait]
impl WalReady for Segments<'_> {
    async fn wal_ready(&self, needed: &NeededWal) -> Result<()> {
        assert!(needed.start < needed.stop && needed.segment_bytes == 16 << 20, "{needed:?}");
        self.archive().await
    }
}

fn encrypted() -> Codec {
    Codec { cipher: Some(Arc::new(Cipher::new(&[3; 32]).expect("a key"))), ..Codec::default() }
}

fn options(checksums: OnBadPage) -> Options {
    Options { label: Label::draw(SystemClock.wall()), processes: 2, checksums }
}

async fn take(from: &Instance, wal: &Segments<'_>, options: &Options) -> Result<Manifest> {
    let progress = watch::Sender::new(Progress::default());
    let source = Source::of(from);
    let manifest = base::take(&source, wal.sink.clone(), &wal.codec, options, wal, &SystemClock, &progress).await?;
    let done = *progress.borrow();
    assert!(done.done >= manifest.plain && done.stored == manifest.stored && done.settling, "{done:?}");
    Ok(manifest)
}

/// A restored server that runs.
struct Restored {
    scratch: Scratch,
    _dir: tempfile::TempDir,
    run: PathBuf,
    spaces: BTreeMap<u32, PathBuf>,
}

impl Restored {
    async fn up(like: &Instance, wal: &Segments<'_>, manifest: &Manifest, target: Target) -> Result<Self> {
        let dir = folder("pgdock-restored-")?;
        let (data, run) = (dir.path().join("data"), dir.path().join("run"));
        let user = like.config().os_user.clone();
        std::fs::create_dir(&run).map_err(io)?;
        std::os::unix::fs::chown(&run, Some(user.uid), Some(user.gid)).map_err(io)?;
        let spaces: BTreeMap<u32, PathBuf> =
            manifest.tablespaces.iter().map(|s| (s.oid, dir.path().join(format!("space-{}", s.oid)))).collect();
        let to =
            Destination { data: data.clone(), tablespaces: spaces.clone(), owner: Some(user.clone()), processes: 2 };
        let recovery =
            Recovery { target, timeline: None, action: Action::Promote, restore_command: wal.restore_command() };
        let progress = watch::Sender::new(Progress::default());
        restore(wal.sink.clone(), &wal.codec, manifest, &to, &recovery, &progress).await?;
        assert_eq!(progress.borrow().done, manifest.plain);
        let again = restore(wal.sink.clone(), &wal.codec, manifest, &to, &recovery, &progress).await.unwrap_err();
        assert!(again.to_string().contains("something in the place"), "{again}");
        let scratch = Scratch::start(&data, &run, &like.config().binaries, &user).await?;
        scratch.recovered(LONG, &SystemClock).await?;
        Ok(Self { scratch, _dir: dir, run, spaces })
    }

    async fn one(&self, sql: &str) -> Result<String> {
        let rows = self.scratch.session().query(sql, &[], LIMIT).await?;
        rows.first().map(|row| row.get(0)).ok_or_else(|| Error::internal(format!("no answer to {sql}")))
    }

    /// All rows that the writer was told of are there.
    async fn holds(&self, numbers: impl IntoIterator<Item = i64>) -> Result<()> {
        let session = pgdock_core::postgres::session::Session::new(&self.run, 5432).to_database("app");
        let rows = session.query("SELECT number FROM public.acknowledged", &[], LIMIT).await?;
        let found: std::collections::HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let lost: Vec<i64> = numbers.into_iter().filter(|n| !found.contains(n)).collect();
        assert!(lost.is_empty(), "{} rows are missing: {:?}", lost.len(), &lost[..lost.len().min(10)]);
        Ok(())
    }

    async fn down(self) {
        self.scratch.stop().await;
    }
}

const CONTENT: &str = "SELECT md5(string_agg(t::text, ',' ORDER BY a)) FROM public.t";

#[tokio::test(flavor = "multi_thread")]
async fn from_a_primary_to_points_in_time() {
    if available() {
        from_a_primary().await.unwrap_or_else(|error| panic!("{}", error.chain()));
    }
}

async fn from_a_primary() -> Result<()> {
    let bare = Bare::up(4).await?;
    // Both would have their tablespace in one folder, which no machine with one node has.
    bare.standby().fence().await?;
    let primary = bare.primary();
    let (wal_folder, space) = (folder("pgdock-wal-")?, folder("pgdock-space-")?);
    let user = &primary.config().os_user;
    std::os::unix::fs::chown(space.path(), Some(user.uid), Some(user.gid)).map_err(io)?;
    let session = Bare::session(primary);
    for sql in [
        &format!("CREATE TABLESPACE aside LOCATION '{}'", space.path().display()),
        "CREATE TABLE public.t (a int, b text) TABLESPACE aside",
        "CREATE UNLOGGED TABLE public.u AS SELECT generate_series(1, 1000) AS a",
        "INSERT INTO public.t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 30000) i",
    ] {
        session.batch(sql, LIMIT).await?;
    }
    let sink: Arc<dyn BackupSink> = Arc::new(MemorySink::new());
    let wal = Segments { primary, sink: sink.clone(), codec: encrypted(), folder: wal_folder.path().to_owned() };
    let writer = Writer::start(bare.route()?, 0).await?;
    writer.goes_on(SOON).await?;
    let manifest = take(primary, &wal, &options(OnBadPage::Fail)).await?;
    writer.goes_on(SOON).await?;
    assert!(!manifest.from_standby && manifest.pages.checked > 1000 && manifest.pages.damaged == 0, "{manifest:?}");
    assert_eq!(manifest.tablespaces.len(), 1);
    let stored: String = sink.list_all("").await?.iter().map(|entry| entry.key.to_string() + "\n").collect();
    assert!(!stored.contains("app"), "nothing is told by names: {stored}");

    // Changes after the backup, with a point before the accident.
    session.batch("UPDATE public.t SET b = 'changed' WHERE a % 2 = 0", LIMIT).await?;
    let content = one(primary, CONTENT).await?;
    let before = writer.acks();
    session.batch("SELECT pg_create_restore_point('before')", LIMIT).await?;
    let lsn: Lsn = one(primary, "SELECT pg_current_wal_lsn()::text").await?.parse().expect("a position");
    session.batch("DROP TABLE public.t", LIMIT).await?;
    writer.goes_on(SOON).await?;
    let acks = writer.stop().await;
    wal.archive().await?;

    for target in [Target::Name("before".into()), Target::Lsn(lsn)] {
        let there = Restored::up(primary, &wal, &manifest, target).await?;
        assert_eq!(there.one(CONTENT).await?, content);
        assert_eq!(there.one("SELECT count(*)::text FROM public.u").await?, "0", "unlogged tables begin anew");
        assert_eq!(there.one("SHOW archive_mode").await?, "off");
        there.holds(before.iter().map(|ack| ack.number)).await?;
        let aside = there.one("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'aside'").await?;
        assert_eq!(there.spaces.values().next().expect("one"), Path::new(&aside));
        there.down().await;
    }
    let latest = Restored::up(primary, &wal, &manifest, Target::Latest).await?;
    assert_eq!(latest.one("SELECT count(*)::text FROM pg_class WHERE relname = 't'").await?, "0");
    latest.holds(acks.iter().map(|ack| ack.number)).await?;
    latest.down().await;

    // What is before the backup is not reached by passing it by.
    let all = Catalog::load(&*sink, &wal.codec).await?.manifests();
    assert_eq!(all, std::slice::from_ref(&manifest));
    let error = choose(&all, None, &Target::Lsn(manifest.start), &Reach::default()).unwrap_err();
    assert!(error.to_string().contains("reachable=from"), "{error}");
    assert_eq!(choose(&all, None, &Target::Lsn(lsn), &Reach::default())?.label, manifest.label);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_standby_and_every_damage_is_found() {
    if available() {
        from_a_standby().await.unwrap_or_else(|error| panic!("{}", error.chain()));
    }
}

async fn from_a_standby() -> Result<()> {
    let bare = Bare::up(6).await?;
    let (primary, standby) = (bare.primary(), bare.standby());
    let (dir, wal_folder) = (folder("pgdock-backup-")?, folder("pgdock-wal-")?);
    let sink: Arc<dyn BackupSink> = Arc::new(DirSink::new(dir.path().join("sink")));
    let wal = Segments { primary, sink: sink.clone(), codec: Codec::default(), folder: wal_folder.path().to_owned() };
    let session = Bare::session(primary);
    session.batch("CREATE TABLE public.t (a int, b text)", LIMIT).await?;
    session.batch("INSERT INTO public.t SELECT i, md5(i::text) FROM generate_series(1, 100000) i", LIMIT).await?;
    let writer = Writer::start(bare.route()?, 0).await?;
    writer.goes_on(SOON).await?;
    let manifest = take(standby, &wal, &options(OnBadPage::Fail)).await?;
    assert!(manifest.from_standby && manifest.pages.checked > 1000, "{manifest:?}");
    writer.goes_on(SOON).await?;
    let acks = writer.stop().await;
    wal.archive().await?;
    let content = one(primary, CONTENT).await?;
    let there = Restored::up(primary, &wal, &manifest, Target::Latest).await?;
    assert_eq!(there.one(CONTENT).await?, content);
    there.holds(acks.iter().map(|ack| ack.number)).await?;
    there.down().await;

    proven(&wal, &manifest, dir.path(), primary).await?;
    flips(&wal, &manifest, &dir.path().join("sink"), primary).await?;
    given_up(standby, &wal).await?;
    damaged_page(primary, &wal).await
}

/// Both levels of verification, and that their result is listed.
async fn proven(wal: &Segments<'_>, manifest: &Manifest, dir: &Path, like: &Instance) -> Result<()> {
    let progress = watch::Sender::new(Progress::default());
    let read = read_all(wal.sink.clone(), &wal.codec, manifest, 2, &progress).await?;
    assert!(read.problems.is_empty() && read.objects > u64::from(manifest.packs), "{read:?}");
    let recovery =
        |target| Recovery { target, timeline: None, action: Action::Promote, restore_command: wal.restore_command() };
    let mut how = Boot {
        scratch: dir.join("scratch"),
        binaries: like.config().binaries.clone(),
        os_user: like.config().os_user.clone(),
        recovery: recovery(Target::Latest),
        query: Some(("\\pset format unaligned\nSELECT count(*) AS rows FROM t;".into(), "postgres".into())),
        processes: 2,
        limit: LONG,
    };
    let booted = boot(wal.sink.clone(), &wal.codec, manifest, &how, &SystemClock, &progress).await?;
    assert!(booted.problems.is_empty() && booted.printed.iter().any(|line| line == "100000"), "{booted:?}");
    assert!(booted.reached.as_ref().is_some_and(|reached| reached.lsn > manifest.stop), "{booted:?}");
    assert!(!how.scratch.exists());
    // Recovery that cannot end where it should, and a query that fails, are problems.
    how.recovery = recovery(Target::Name("never".into()));
    let failed = boot(wal.sink.clone(), &wal.codec, manifest, &how, &SystemClock, &progress).await?;
    assert!(failed.problems[0].contains("recovery ended before"), "{failed:?}");
    how.recovery = recovery(Target::Consistent);
    how.query = Some(("SELECT 1/0;".into(), "postgres".into()));
    let failed = boot(wal.sink.clone(), &wal.codec, manifest, &how, &SystemClock, &progress).await?;
    assert!(failed.problems.len() == 1 && failed.problems[0].contains("division by zero"), "{failed:?}");

    let mut report = Report {
        label: manifest.label.clone(),
        at: SystemClock.wall(),
        level: Level::Boot,
        objects: read.objects,
        bytes: read.bytes,
        seconds: 1,
        reached: booted.reached,
        printed: booted.printed,
        problems: booted.problems,
    };
    report.save(&*wal.sink, &wal.codec).await?;
    let catalog = Catalog::load(&*wal.sink, &wal.codec).await?;
    assert_eq!(catalog.find(None)?.verified.as_ref(), Some(&report));
    Ok(())
}

/// One flipped bit in each object of the backup is found, by reading and by restoring, and the object is named.
async fn flips(wal: &Segments<'_>, manifest: &Manifest, root: &Path, like: &Instance) -> Result<()> {
    let progress = watch::Sender::new(Progress::default());
    let objects = wal.sink.list_all(&format!("base/{}/", manifest.label)).await?;
    assert!(objects.len() > 3, "{objects:?}");
    for (number, entry) in objects.iter().enumerate() {
        let path = root.join(entry.key.as_str());
        let content = std::fs::read(&path).map_err(io)?;
        let mut flipped = content.clone();
        let at = number * 7919 % content.len();
        flipped[at] ^= 1 << (number % 8);
        std::fs::write(&path, &flipped).map_err(io)?;
        let label = &manifest.label;
        if entry.key.as_str().ends_with("/manifest") {
            let catalog = Catalog::load(&*wal.sink, &wal.codec).await?;
            assert!(catalog.backups.is_empty() && catalog.unreadable[0].1.chain().contains("manifest"), "{catalog:?}");
        } else if !entry.key.as_str().ends_with("/begun") {
            let read = read_all(wal.sink.clone(), &wal.codec, manifest, 2, &progress).await?;
            assert!(read.problems.iter().any(|p| p.contains(entry.key.as_str())), "{} {at}: {read:?}", entry.key);
            let dir = folder("pgdock-restored-")?;
            let owner = Some(like.config().os_user.clone());
            let to = Destination { data: dir.path().join("data"), tablespaces: BTreeMap::new(), owner, processes: 2 };
            let recovery = Recovery {
                target: Target::Latest,
                timeline: None,
                action: Action::Promote,
                restore_command: "false".into(),
            };
            let error = restore(wal.sink.clone(), &wal.codec, manifest, &to, &recovery, &progress).await.unwrap_err();
            assert!(error.chain().contains(entry.key.as_str()), "{label} {at}: {}", error.chain());
            assert!(!to.data.join("global/pg_control").exists(), "no server starts on what is left");
        }
        std::fs::write(&path, content).map_err(io)?;
    }
    assert_eq!(Catalog::load(&*wal.sink, &wal.codec).await?.backups.len(), 1);
    Ok(())
}

/// A backup that is given up half way, or that the store fails, is never listed, and PostgreSQL forgets it.
async fn given_up(from: &Instance, wal: &Segments<'_>) -> Result<()> {
    let options = options(OnBadPage::Fail);
    let progress = watch::Sender::new(Progress::default());
    let mut seen = progress.subscribe();
    let source = Source::of(from);
    tokio::select! {
        ended = base::take(&source, wal.sink.clone(), &wal.codec, &options, wal, &SystemClock, &progress) => {
            return Err(Error::internal(format!("it ended: {ended:?}")));
        }
        _ = seen.wait_for(|p| p.stored > 0) => {}
    }
    let catalog = Catalog::load(&*wal.sink, &wal.codec).await?;
    assert!(catalog.unfinished == std::slice::from_ref(&options.label) && catalog.backups.len() == 1, "{catalog:?}");

    let lost = Arc::new(MemorySink::new());
    let wal =
        Segments { sink: lost.clone(), folder: wal.folder.clone(), codec: wal.codec.clone(), primary: wal.primary };
    let taken = base::take(&source, wal.sink.clone(), &wal.codec, &options, &wal, &SystemClock, &progress);
    let goes = async {
        let mut seen = progress.subscribe();
        let _ = seen.wait_for(|p| p.stored > 0 && !p.settling).await;
        lost.set_reachable(false);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = taken => assert!(ended.unwrap_err().to_string().contains("unreachable")),
        () = goes => {}
    }
    lost.set_reachable(true);
    assert!(Catalog::load(&*lost, &wal.codec).await?.backups.is_empty());
    Ok(())
}

/// A flipped bit in a page on disk fails the backup, or is told by it.
async fn damaged_page(primary: &Instance, wal: &Segments<'_>) -> Result<()> {
    let session = Bare::session(primary);
    session.batch("CHECKPOINT", LIMIT).await?;
    let relation = one(primary, "SELECT pg_relation_filepath('public.t')").await?;
    let file =
        std::fs::OpenOptions::new().read(true).write(true).open(primary.layout().data.join(&relation)).map_err(io)?;
    let place = 3 * 8192 + 5000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).map_err(io)?;
    byte[0] ^= 0x10;
    file.write_all_at(&byte, place).map_err(io)?;
    let error = take(primary, wal, &options(OnBadPage::Fail)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("{relation} block 3")), "{}", error.chain());
    let manifest = take(primary, wal, &options(OnBadPage::Warn)).await?;
    assert_eq!((manifest.pages.damaged, &manifest.pages.examples[..]), (1, &[format!("{relation} block 3")][..]));
    Ok(())
}
