//! A node joins a running cluster, and leaves it again, while a client writes and PostgreSQL goes on.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Instant;

use pgdock_core::secrets::Secrets;
use pgdock_core::{Cluster, Error, Result, Settings};
use pgdock_tests::real::{Route, Writer, available, missing, program, until};

use crate::common::{LONG, SOON, said};

/// A cluster of two nodes, and a third address.
struct Folder {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Folder {
    async fn pgdock(&self, line: &str) -> Output {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(line.split_whitespace()).current_dir(self.dir.path()).env_remove("PGDOCK_CONFIG");
        let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
        tokio::time::timeout(LONG, running).await.expect("it ends").expect("it can be run")
    }

    async fn ends(&self, line: &str, code: i32) -> Output {
        let output = self.pgdock(line).await;
        assert_eq!(output.status.code(), Some(code), "pgdock {line}\n{}", said(&output));
        output
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("cluster.toml")).expect("settings")
    }

    /// The postmaster of a node.
    fn postmaster(&self, node: &str) -> Option<String> {
        let file = self.dir.path().join("var").join(node).join("data/postmaster.pid");
        std::fs::read_to_string(file).ok()?.lines().next().map(str::to_owned)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let mut down = std::process::Command::new(&self.program);
        let _ = down.args(["down", "--force", "--config"]).arg(self.dir.path()).output();
    }
}

fn folder() -> Result<Folder> {
    use std::os::unix::fs::PermissionsExt;
    let io = |e: std::io::Error| Error::internal("cannot prepare a folder for the test").because(e);
    let dir = tempfile::Builder::new().prefix("pgdock-members-").tempdir_in("/tmp").map_err(io)?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).map_err(io)?;
    Ok(Folder { program: program()?, dir })
}

/// Whether anything runs of a node's folder.
fn runs(home: &Path) -> bool {
    let entries = std::fs::read_dir("/proc").expect("a list of processes").flatten();
    let mut links = entries.flat_map(|entry| [entry.path().join("cwd")]);
    links.any(|link| std::fs::read_link(link).is_ok_and(|to| to.starts_with(home)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_and_leaves_while_a_client_writes() {
    if !available() {
        return;
    }
    let folder = folder().unwrap_or_else(|e| panic!("{}", e.chain()));
    if let Err(error) = story(&folder).await {
        panic!("{}", error.chain());
    }
}

async fn story(folder: &Folder) -> Result<()> {
    folder
        .ends(
            "init --name shop --node n1=127.0.0.185 --node n2=127.0.0.186 --postgres-port 54320 --agent-port 57432",
            0,
        )
        .await;
    let begin = folder.text();
    folder.ends("up", 0).await;
    let settings = Settings::from_path(folder.dir.path())?;
    let secrets = Secrets::load(&settings.secrets())?;
    let route = Route::to_primary(&settings, &secrets)?;
    let writer = Writer::start(route.clone(), 0).await?;
    writer.goes_on(SOON).await?;
    let postmasters = [folder.postmaster("n1"), folder.postmaster("n2")];

    let since = Instant::now();
    folder.ends("node add n3=127.0.0.187 --priority 50 --dry-run", 0).await;
    assert_eq!(folder.text(), begin);
    folder.ends("node add n3=127.0.0.187 --priority 50", 0).await;
    writer.goes_on(SOON).await?;
    assert_eq!(postmasters, [folder.postmaster("n1"), folder.postmaster("n2")], "PostgreSQL went on");
    folder.ends("node add n3=127.0.0.187 --priority 50", 0).await;
    folder.ends("node add n3=127.0.0.188", 1).await;
    eprintln!("the third node came; the longest pause of the writer was {:?}", writer.longest_gap(since));
    let cluster = Cluster::builder(Settings::from_path(folder.dir.path())?).build().await?;
    until("all is well with three nodes", SOON, async || {
        cluster.status().await.is_ok_and(|status| status.is_healthy() && status.nodes.len() == 3)
    })
    .await?;
    let members = |record: Option<pgdock_core::witness::Record>| record.map(|r| r.members.len());
    until("the document names three", SOON, async || cluster.document().await.is_ok_and(|r| members(r) == Some(3)))
        .await?;

    // It takes part in all that is decided: it leads, and the old ones follow it.
    folder.ends("switchover --to n3", 0).await;
    folder.ends("remove n3", 4).await;
    until("the others follow it", SOON, async || cluster.status().await.is_ok_and(|s| s.is_healthy())).await?;
    folder.ends("switchover --to n1", 0).await;
    until("all is well again", SOON, async || cluster.status().await.is_ok_and(|s| s.is_healthy())).await?;

    let home = folder.dir.path().join("var/n3");
    assert!(runs(&home));
    let since = Instant::now();
    let removed = folder.ends("remove n3", 0).await;
    assert!(said(&removed).contains(home.to_str().expect("a path")), "{}", said(&removed));
    writer.goes_on(SOON).await?;
    eprintln!("the third node went; the longest pause of the writer was {:?}", writer.longest_gap(since));
    assert!(!runs(&home) && home.join("data/PG_VERSION").exists(), "it is stopped, and its data is kept");
    assert_eq!(folder.text(), begin, "comments included");
    folder.ends("remove n3", 0).await;
    let record = cluster.document().await?.expect("a document");
    assert!(record.members.len() == 2 && record.sync_set.iter().all(|m| m.node.as_str() == "n2"), "{record:?}");
    let client = route.connect().await?;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'pgdock_n3'";
    until("its slot is gone", SOON, async || {
        client.query_one(slots, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 0)
    })
    .await?;

    // With `strict` the last guard stays.
    let strict = begin.replacen("# strict = false", "strict = true ", 1);
    assert_ne!(strict, begin);
    std::fs::write(folder.dir.path().join("cluster.toml"), strict).expect("settings can be written");
    let refused = folder.ends("remove n2", 4).await;
    assert!(said(&refused).contains("strict"), "{}", said(&refused));

    let acks = writer.stop().await;
    assert_eq!(missing(&route.connect().await?, &acks).await?, [] as [i64; 0], "of {} acknowledged writes", acks.len());
    Ok(())
}
