//! A cluster that repmgr looks after is taken over, while a client writes.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use pgdock_core::agent::deadman;
use pgdock_core::secrets::Secrets;
use pgdock_core::{Cluster, Error, Result, Settings};
use pgdock_tests::real::{Repmgr, Route, Writer, available, missing, program, repmgr_available, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{LONG, SOON, said};

/// The old cluster, and the folder of the new one.
struct Both {
    old: Repmgr,
    program: PathBuf,
}

impl Both {
    fn folder(&self) -> PathBuf {
        self.old.dir().join("new")
    }

    fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(words).current_dir(self.old.dir()).env_remove("PGDOCK_CONFIG").env_remove("PGPASSWORD");
        command.stdin(Stdio::null());
        command
    }

    fn adopting(&self, more: &[&str]) -> tokio::process::Command {
        let dsn = format!("host={} port=54320 dbname=repmgr user=postgres", self.old.address(1));
        let password = self.old.password_file().display().to_string();
        let app = self.old.dir().join("app.password").display().to_string();
        let words = ["adopt", "new", "--from", &dsn, "--password-file", &password, "--app-password-file", &app];
        let ports = ["--name", "shop", "--agent-port", "57432"];
        self.command(&[&words as &[&str], &ports, more].concat())
    }

    async fn adopt(&self, more: &[&str]) -> Output {
        let output = self.adopting(more).kill_on_drop(true).output();
        tokio::time::timeout(LONG, output).await.expect("it ends").expect("it can be run")
    }

    /// Kills the agent of a node, and its PostgreSQL, as the loss of its machine would.
    fn lose(&self, node: &str) {
        let folder = self.folder();
        for pid in processes(|line| {
            line.contains("agent --detached")
                && line.contains(&format!("--node {node}"))
                && line.contains(shown(&folder))
        }) {
            let _ = kill_process(pid, Signal::KILL);
        }
        deadman::kill_all(&folder.join("var").join(node).join("data"));
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        if self.folder().join("cluster.toml").exists() {
            let mut down = std::process::Command::new(&self.program);
            let _ = down.args(["down", "--force", "--config"]).arg(self.folder()).output();
        }
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path of the test's own")
}

fn processes(is: impl Fn(&str) -> bool) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("a list of processes").flatten();
    entries
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            is(&String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_cluster_is_taken_over_and_loses_nothing() {
    let (true, Some(binaries)) = (available(), repmgr_available()) else { return };
    let both = Both {
        old: Repmgr::up(binaries, 181, 3).unwrap_or_else(|e| panic!("{}", e.chain())),
        program: program().expect("the program"),
    };
    if let Err(error) = story(&both).await {
        panic!("{}", error.chain());
    }
}

async fn story(both: &Both) -> Result<()> {
    let old = &both.old;
    std::fs::write(old.dir().join("app.password"), old.app_password())
        .map_err(|e| Error::internal("cannot write").because(e))?;
    let system = old.sql(1, "postgres", "SELECT system_identifier FROM pg_control_system()")?;

    // Two managers at once are refused, and what has a dry run changes nothing.
    let mut repmgrd = old.repmgrd(2)?;
    until("repmgrd has told its server of itself", SOON, async || {
        old.sql(2, "repmgr", "SELECT repmgr.repmgrd_is_running()").is_ok_and(|answer| answer == "t")
    })
    .await?;
    let refused = both.adopt(&["--prepare"]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    assert!(said(&refused).contains("repmgrd runs on node2"), "{}", said(&refused));
    assert!(said(&refused).contains("systemctl disable --now repmgrd"), "{}", said(&refused));
    for pid in processes(|line| line.contains("repmgrd") && line.contains(shown(old.dir()))) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = repmgrd.wait();
    let dry = both.adopt(&["--dry-run"]).await;
    assert_eq!(dry.status.code(), Some(0), "{}", said(&dry));
    assert!(
        String::from_utf8_lossy(&dry.stdout).contains("start node1 again as primary, on its timeline"),
        "{}",
        said(&dry)
    );
    assert!(!both.folder().exists());

    // The folder comes first, so that the client knows where to write all the while.
    let prepared = both.adopt(&["--prepare"]).await;
    assert_eq!(prepared.status.code(), Some(0), "{}", said(&prepared));
    let settings = Settings::from_path(both.folder())?;
    assert_eq!(settings.postgres.settings.get("max_connections").map(String::as_str), Some("150"));
    assert_eq!(settings.postgres.settings.get("maintenance_work_mem").map(String::as_str), Some("77MB"));
    assert!(!settings.postgres.settings.contains_key("shared_preload_libraries"), "repmgr's library alone");
    let secrets = Secrets::load(&settings.secrets())?;
    let route = Route::to_primary(&settings, &secrets)?.with_or_without_tls();
    let writer = Writer::start(route.clone(), 0).await?;
    writer.goes_on(SOON).await?;

    // It is interrupted once the primary is pgdock's, and goes on.
    let mut first = both.adopting(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be run");
    let cluster = Cluster::builder(settings.clone()).build().await?;
    until("there is a document", LONG, async || cluster.document().await.is_ok_and(|found| found.is_some())).await?;
    first.kill().await.expect("it can be killed");
    let begun = std::time::Instant::now();
    let done = both.adopt(&[]).await;
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    writer.goes_on(SOON).await?;
    eprintln!(
        "taken over in {:?} after the interruption; longest pause {:?}",
        begun.elapsed(),
        writer.longest_gap(begun)
    );
    let again = both.adopt(&[]).await;
    assert!(said(&again).contains("taken over already"), "{}", said(&again));

    let status = cluster.status().await?;
    assert_eq!(status.leader.as_ref().map(|leader| leader.as_str()), Some("node1"), "{status:?}");
    let record = cluster.document().await?.expect("a document");
    assert_eq!((record.system_identifier.to_string(), record.timeline.0, record.term.0), (system, 1, 1));
    for n in 1..=3 {
        assert!(!old.data(n).exists(), "what started it before finds nothing to start");
        let kept = settings.base.join(format!("var/node{n}/before-pgdock/postgresql.auto.conf"));
        assert!(kept.exists(), "{}", kept.display());
    }
    let client = Route::to_primary(&settings, &secrets)?.connect().await?;
    let ask = "SELECT current_setting('max_connections') || ' ' || current_setting('maintenance_work_mem') || ' ' ||
               (SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'repmgr%')";
    let answer: String = client.query_one(ask, &[]).await.expect("an answer").get(0);
    assert_eq!(answer, "150 77MB 0");

    // From now on pgdock looks after it.
    until("a standby guards commits", SOON, async || {
        cluster.document().await.is_ok_and(|r| r.is_some_and(|r| r.acks == 1))
    })
    .await?;
    both.lose("node1");
    until("another node leads", SOON, async || {
        cluster.status().await.is_ok_and(|s| s.primary().is_some_and(|p| p.name.as_str() != "node1"))
    })
    .await?;
    writer.goes_on(SOON).await?;
    let acks = writer.stop().await;
    let client = Route::to_primary(&settings, &secrets)?.connect().await?;
    assert_eq!(missing(&client, &acks).await?, [] as [i64; 0], "of {} acknowledged writes", acks.len());
    Ok(())
}
