//! An old primary comes back with commits that nobody else has.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pgdock_core::event::{Event, EventKind};
use pgdock_core::postgres::version::Binaries;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result};
use pgdock_tests::real::{Ack, RealCluster, missing, until};
use pgdock_tests::signals::stop;
use rustix::process::{Pid, Signal};

use crate::common::{SOON, complains, on, options, problems, rejoined, said, superuser, taken_over};

/// How many commits the old primary alone has.
const ALONE: i64 = 100;

/// Has the primary acknowledge commits that reach no standby, and die. Another node takes over.
async fn diverge(cluster: &mut RealCluster) -> Result<NodeName> {
    let failed = |e: tokio_postgres::Error| Error::unavailable("a statement failed").because(e);
    let old = cluster.settled(SOON).await?;
    let client = cluster.route()?.connect().await?;
    client.batch_execute("CREATE TABLE acknowledged (number bigint PRIMARY KEY)").await.map_err(failed)?;
    client.batch_execute("INSERT INTO acknowledged VALUES (-1)").await.map_err(failed)?;
    let standby = cluster.nodes().into_iter().find(|node| *node != old).expect("there are two nodes");
    let there = cluster.route_to(&standby)?.connect().await?;
    let first = [Ack { number: -1, at: std::time::Instant::now() }];
    until("the first row is on the standby", SOON, async || {
        missing(&there, &first).await.is_ok_and(|missing| missing.is_empty())
    })
    .await?;

    // The process that sends WAL sends no more; what it holds dies with it.
    let sender: i32 = client.query_one("SELECT pid FROM pg_stat_replication", &[]).await.map_err(failed)?.get(0);
    stop(Pid::from_raw(sender).expect("a pid"));
    let insert = format!("INSERT INTO acknowledged SELECT generate_series(1, {ALONE})");
    client.batch_execute(&insert).await.map_err(failed)?;
    cluster.kill_both(&old);
    taken_over(cluster, &old).await?;
    Ok(old)
}

/// How many of the rows that diverged are on a node.
async fn diverged_rows(cluster: &RealCluster, node: &NodeName) -> Result<i64> {
    let client = cluster.route_to(node)?.connect().await?;
    let row = client
        .query_one("SELECT count(*) FROM acknowledged WHERE number BETWEEN 1 AND $1", &[&ALONE])
        .await
        .map_err(|e| Error::unavailable("cannot count").because(e))?;
    Ok(row.get(0))
}

/// The report of what diverged on a node, with the folder that it lies in.
fn report(cluster: &RealCluster, node: &NodeName) -> (PathBuf, serde_json::Value) {
    let kept = cluster.settings.nodes[node].home.join("diverged");
    let folders: Vec<_> = fs::read_dir(&kept).expect("diverged WAL was kept").flatten().map(|e| e.path()).collect();
    let [folder] = &folders[..] else { panic!("one folder was expected: {folders:?}") };
    let text = fs::read_to_string(folder.join("report.json")).expect("there is a report");
    (folder.clone(), serde_json::from_str(&text).expect("it is JSON"))
}

#[tokio::test]
async fn a_diverged_primary_is_rewound_and_its_wal_kept() {
    on(options(156, 2, Durability::Async), async |cluster| {
        let old = diverge(cluster).await?;
        let incarnation = fs::read(cluster.data_dir(&old).join("pgdock.incarnation")).expect("it has one");
        cluster.start_agent(&old);
        rejoined(cluster, &old).await?;

        assert_eq!(diverged_rows(cluster, &old).await?, 0, "what nobody else has is gone from here, too");
        let now = fs::read(cluster.data_dir(&old).join("pgdock.incarnation")).expect("it has one");
        assert_ne!(now, incarnation, "a rewound data directory has another identity");
        let events = cluster.cluster.events(None).await?.events;
        let rewound = |kind| events.iter().any(|e| e.node == old && e.kind == kind);
        assert!(rewound(EventKind::Rewound) && !rewound(EventKind::Cloned), "{events:?}");

        // What was lost is named, and its WAL is there.
        let (folder, report) = report(cluster, &old);
        assert_eq!(report["node"], old.as_str());
        let files = report["files"].as_array().expect("it names files");
        assert!(!files.is_empty());
        for file in files {
            assert!(folder.join(file.as_str().expect("a name")).is_file(), "{file} is kept");
        }
        told(cluster, &old, &report).await
    })
    .await;
}

/// An operator is told what a node lost, looks at it, and removes it.
async fn told(cluster: &RealCluster, node: &NodeName, report: &serde_json::Value) -> Result<()> {
    complains(cluster, node, &["nobody else has", "rewinds=1"]).await?;
    let json = async |args: &[&str]| {
        let output = cluster.pgdock(&[args, &["--output", "json"]].concat()).await?;
        assert!(output.status.success(), "{}", said(&output));
        Ok::<serde_json::Value, Error>(serde_json::from_slice(&output.stdout).expect("it is JSON"))
    };
    let list = json(&["diverged", "list"]).await?;
    let [kept] = &list.as_array().expect("a list")[..] else { panic!("one was expected: {list}") };
    assert_eq!((&kept["from"], &kept["to"]), (&report["fork"], &report["end"]));
    let event = |e: &Event| e.node == *node && e.kind == EventKind::Diverged && e.detail["from"] == kept["from"];
    let events = cluster.cluster.events(None).await?.events;
    assert!(events.iter().any(event), "{events:?}");

    let which = format!("{node}/{}", kept["id"].as_str().expect("a name"));
    let shown = json(&["diverged", "show", &which]).await?;
    let relations = shown["relations"].as_array().expect("a list");
    let table = relations.iter().find(|r| r["name"] == "public.acknowledged").expect("the table is named");
    let rows = ["inserted", "updated", "deleted"].map(|key| table[key].as_i64());
    assert_eq!(rows, [Some(ALONE), Some(0), Some(0)], "exactly what was lost: {shown}");
    cluster.wait("nobody is told again", SOON, |s| !problems(s, node).contains("nobody else has")).await?;

    let refused = cluster.pgdock(&["diverged", "drop", &which]).await?;
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    json(&["diverged", "drop", &which, "--yes"]).await?;
    assert_eq!(json(&["diverged", "list"]).await?, serde_json::json!([]));
    Ok(())
}

/// PostgreSQL's programs, with a `pg_rewind` that says that it began, hangs while `hold` is there, and fails.
fn hanging_rewind(dir: &Path) -> Result<()> {
    let io = |e: std::io::Error| Error::internal("cannot prepare programs for the test").because(e);
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).map_err(io)?;
    let real = Binaries::find(None, None, std::env::var_os("PATH").as_deref())?;
    for entry in fs::read_dir(real.dir()).map_err(io)?.flatten() {
        if entry.file_name() != "pg_rewind" {
            symlink(entry.path(), dir.join(entry.file_name())).map_err(io)?;
        }
    }
    let here = dir.display();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*) exec {} --version ;; esac\n\
         touch {here}/began\nwhile [ -e {here}/hold ]; do sleep 0.05; done\nexit 1\n",
        real.program("pg_rewind").display()
    );
    fs::write(dir.join("pg_rewind"), script).map_err(io)?;
    fs::set_permissions(dir.join("pg_rewind"), fs::Permissions::from_mode(0o755)).map_err(io)?;
    fs::write(dir.join("hold"), "").map_err(io)
}

#[tokio::test]
async fn an_interrupted_rewind_ends_in_a_copy() {
    if !pgdock_tests::real::available() {
        return;
    }
    let programs = tempfile::Builder::new().prefix("pgdock-programs-").tempdir_in("/tmp").expect("a folder");
    hanging_rewind(programs.path()).expect("programs");
    let mut options = options(159, 2, Durability::Async);
    options.extra.insert("postgres", format!("bin_dir = {:?}", programs.path()));
    on(options, async |cluster| {
        let old = diverge(cluster).await?;
        cluster.start_agent(&old);
        until("the rewind has begun", SOON, async || programs.path().join("began").exists()).await?;
        cluster.signal_agent(&old, Signal::KILL);
        let incarnation = fs::read(cluster.data_dir(&old).join("pgdock.incarnation")).expect("it has one");

        cluster.start_agent(&old);
        rejoined(cluster, &old).await?;
        fs::remove_file(programs.path().join("hold")).expect("it was there");
        let events = cluster.cluster.events(None).await?.events;
        let cloned = |kind| events.iter().any(|e| e.node == old && e.kind == kind);
        assert!(cloned(EventKind::Cloned) && !cloned(EventKind::Rewound), "{events:?}");
        assert_eq!(diverged_rows(cluster, &old).await?, 0);

        // The old data directory is kept, and so is the WAL that was taken aside before.
        let aside = cluster.settings.nodes[&old].home.join("data.old-1").join("pgdock.incarnation");
        assert_eq!(fs::read(aside).expect("the old data directory is kept aside"), incarnation);
        report(cluster, &old);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_standby_whose_wal_is_gone_copies_the_leader_by_itself() {
    let mut options = options(213, 2, Durability::Async);
    let little =
        "max_slot_wal_keep_size = \"48MB\"\nwal_keep_size = \"0\"\nmin_wal_size = \"32MB\"\nmax_wal_size = \"48MB\"";
    options.extra.insert("postgres.settings", little.to_owned());
    on(options, async |cluster| {
        let failed = |e: tokio_postgres::Error| Error::unavailable("a statement failed").because(e);
        let primary = cluster.settled(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are two nodes");
        let incarnation = fs::read(cluster.data_dir(&standby).join("pgdock.incarnation")).expect("it has one");
        let before: usize = made_anew(cluster, &standby).await?;
        cluster.kill_both(&standby);

        let client = cluster.route()?.connect().await?;
        client.batch_execute("CREATE TABLE filler (t text)").await.map_err(failed)?;
        let super_client = superuser(cluster, &primary).await?;
        // What the standby needs next is in here, or before.
        let needed: String =
            client.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await.map_err(failed)?.get(0);
        until("the WAL that the standby needs is gone", 3 * SOON, async || {
            let more = "INSERT INTO filler SELECT repeat(md5(n::text), 100) FROM generate_series(1, 8000) n";
            let done = client.batch_execute(more).await.is_ok()
                && super_client.batch_execute("SELECT pg_switch_wal(); CHECKPOINT").await.is_ok();
            done && oldest_segment(cluster, &primary) > needed
        })
        .await?;

        cluster.start_agent(&standby);
        // It is taken for one that streams for a moment, until the leader has told it that the WAL is gone.
        until("it is copied", SOON, async || made_anew(cluster, &standby).await.is_ok_and(|n| n > before)).await?;
        assert_eq!(cluster.settled(SOON).await?, primary);
        assert_eq!(made_anew(cluster, &standby).await?, before + 1);
        let aside = cluster.settings.nodes[&standby].home.join("data.old-1").join("pgdock.incarnation");
        assert_eq!(fs::read(aside).expect("the old data directory is kept aside"), incarnation);
        Ok(())
    })
    .await;
}

/// How often a node's data directory was made anew.
pub(crate) async fn made_anew(cluster: &RealCluster, node: &NodeName) -> Result<usize> {
    let events = cluster.cluster.events(None).await?.events;
    Ok(events.iter().filter(|e| e.node == *node && e.kind == EventKind::Cloned).count())
}

/// The name of the oldest segment of WAL that a node has.
pub(crate) fn oldest_segment(cluster: &RealCluster, node: &NodeName) -> String {
    let files = fs::read_dir(cluster.data_dir(node).join("pg_wal")).expect("there is WAL").flatten();
    let names = files.map(|f| f.file_name().to_string_lossy().into_owned()).filter(|name| name.len() == 24);
    names.min().expect("there is a segment")
}
