//! A cluster comes back as it was at a moment of its past, whichever side of a failover that lies on.

use std::path::Path;
use std::time::{Duration, Instant};

use pgdock_core::backup::verify::Scratch;
use pgdock_core::clock::SystemClock;
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::{Error, NodeName, Result};
use pgdock_tests::real::{Ack, RealCluster, folder, missing};
use pgdock_tests::stores::TestBucket;

use crate::archive::{archive, archived, into, switch};
use crate::common::{LONG, SOON, nothing_lost, on, rejoined, said, superuser, taken_over, writer};

/// A moment that is come back to.
struct Point {
    /// What `--at` is given.
    target: String,
    /// The marks that were committed until then; the next one was not yet.
    marks: Vec<i32>,
    /// Rows acknowledged before this have to be there.
    seen: Instant,
}

fn failed(error: tokio_postgres::Error) -> Error {
    Error::unavailable("a statement failed").because(error)
}

/// Commits a mark, has `moment` tell where or when that was, and commits what must not come back with it.
async fn point(cluster: &RealCluster, primary: &NodeName, number: i32, moment: &str, prefix: &str) -> Result<Point> {
    let client = superuser(cluster, primary).await?;
    client.execute("INSERT INTO marks VALUES ($1)", &[&number]).await.map_err(failed)?;
    let seen = Instant::now();
    let target: String = client.query_one(moment, &[]).await.map_err(failed)?.get(0);
    let marks = client.query("SELECT n FROM marks ORDER BY n", &[]).await.map_err(failed)?;
    client.execute("INSERT INTO marks VALUES ($1)", &[&(number + 100)]).await.map_err(failed)?;
    Ok(Point { target: format!("{prefix}{target}"), marks: marks.iter().map(|row| row.get(0)).collect(), seen })
}

const LSN: &str = "SELECT pg_current_wal_flush_lsn()::text";
const TIME: &str = r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#;
const NAME: &str = "SELECT 'before-the-failover' FROM pg_create_restore_point('before-the-failover')";

/// Restores to a point, and sees that what was there then is there, and nothing that came later.
async fn comes_back(cluster: &RealCluster, above: &Path, point: &Point, acks: &[Ack]) -> Result<()> {
    let user = OsUser::resolve(&cluster.settings.postgres.user)?;
    let (data, run) = (above.join("data"), above.join("run"));
    let to = data.to_str().expect("UTF-8");
    let restored = cluster.pgdock(&["backup", "restore", "--to", to, "--at", &point.target, "--recover"]).await?;
    assert!(restored.status.success(), "{}: {}", point.target, said(&restored));
    std::fs::create_dir(&run).expect("a folder");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&run, Some(user.uid), Some(user.gid)).expect("it can be given away");
    }
    let binaries = Binaries::find(None, None, std::env::var_os("PATH").as_deref())?;
    let server = Scratch::start(&data, &run, &binaries, &user).await?;
    server.recovered(LONG, &SystemClock).await?;
    let mut config = tokio_postgres::Config::new();
    config.host_path(&run).port(5432).user("postgres").dbname("postgres");
    let (marks, connection) = config.connect(tokio_postgres::NoTls).await.map_err(failed)?;
    tokio::spawn(connection);
    let found: Vec<i32> = marks
        .query("SELECT n FROM marks ORDER BY n", &[])
        .await
        .map_err(failed)?
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(found, point.marks, "restored to {}", point.target);
    let (rows, connection) =
        config.dbname(&cluster.settings.postgres.database).connect(tokio_postgres::NoTls).await.map_err(failed)?;
    tokio::spawn(connection);
    let before: Vec<Ack> = acks.iter().filter(|ack| ack.at < point.seen).copied().collect();
    assert!(!before.is_empty());
    let lost = missing(&rows, &before).await?;
    assert!(lost.is_empty(), "{} of {} rows are missing at {}", lost.len(), before.len(), point.target);
    server.stop().await;
    std::fs::remove_dir_all(&data).expect("it can be removed");
    std::fs::remove_dir_all(&run).expect("it can be removed");
    Ok(())
}

/// A backup of a standby under writes, a failover, and five moments around it.
async fn story(first: u8, stream: bool) {
    let bucket = TestBucket::own().await;
    let mut options = into(&bucket, first, 2);
    if stream {
        options.extra.entry("backup").or_default().push_str("\nwal = \"stream\"\nwal_every = \"200ms\"");
    }
    on(options, async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let client = superuser(cluster, &old).await?;
        client.batch_execute("CREATE TABLE marks (n int PRIMARY KEY)").await.map_err(failed)?;
        let taken = cluster.pgdock(&["backup", "create"]).await?;
        assert!(taken.status.success(), "{}", said(&taken));
        writer.goes_on(SOON).await?;

        let mut points = vec![point(cluster, &old, 1, LSN, "").await?];
        writer.goes_on(SOON).await?;
        points.push(point(cluster, &old, 2, TIME, "").await?);
        writer.goes_on(SOON).await?;
        points.push(point(cluster, &old, 3, NAME, "name:").await?);
        writer.goes_on(SOON).await?;
        cluster.kill_both(&old);
        let new = taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;
        cluster.start_agent(&old);
        rejoined(cluster, &old).await?;
        points.push(point(cluster, &new, 4, LSN, "").await?);
        writer.goes_on(SOON).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await?;

        let store = archive(cluster).await?;
        if stream {
            let streamed = |s: &pgdock_core::cluster::ClusterStatus| {
                s.archive.as_ref().is_some_and(|archive| archive.waiting == 0 && archive.backlog_bytes == Some(0))
            };
            cluster.wait("all is in the archive", LONG, streamed).await?;
        } else {
            let last = switch(cluster, &new).await?;
            archived(&store, last).await?;
        }
        let marks = superuser(cluster, &new).await?.query("SELECT n FROM marks ORDER BY n", &[]).await;
        let marks = marks.map_err(failed)?.iter().map(|row| row.get(0)).collect();
        let seen = Instant::now() + Duration::from_secs(1);
        points.push(Point { target: "latest".to_owned(), marks, seen });
        let above = folder("pgdock-restored-")?;
        for point in &points {
            comes_back(cluster, above.path(), point, &acks).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_moments_around_a_failover_come_back_from_whole_segments() {
    story(166, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_moments_around_a_failover_come_back_from_streamed_wal() {
    story(168, true).await;
}
