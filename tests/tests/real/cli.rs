//! The whole life of a cluster, as a person types it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use pgdock_core::{Error, Result};
use pgdock_tests::real::{available, program, until};
use serde_json::Value;

use crate::common::{SOON, said};

/// A folder in which commands are typed. Dropped, it leaves nothing running.
struct Shell {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Shell {
    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let io = |e: std::io::Error| Error::internal("cannot prepare a folder for the test").because(e);
        let dir = tempfile::Builder::new().prefix("pgdock-cli-").tempdir_in("/tmp").map_err(io)?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).map_err(io)?;
        Ok(Self { program: program()?, dir })
    }

    async fn run(&self, mut command: tokio::process::Command) -> Output {
        command.current_dir(self.dir.path()).env_remove("PGDOCK_CONFIG").stdin(Stdio::null()).kill_on_drop(true);
        let running = tokio::time::timeout(Duration::from_secs(150), command.output());
        running.await.expect("it ends").expect("it can be run")
    }

    /// Runs `pgdock` with these words.
    async fn pgdock(&self, line: &str) -> Output {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(line.split_whitespace());
        self.run(command).await
    }

    /// Runs it; it must end well. Answers with what it printed.
    async fn done(&self, line: &str) -> String {
        let output = self.pgdock(line).await;
        assert!(output.status.success(), "pgdock {line}: {:?}\n{}", output.status, said(&output));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    async fn json(&self, line: &str) -> Value {
        let text = self.done(&format!("{line} --output json")).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("pgdock {line}: {e}: {text}"))
    }

    /// The processes that have to do with this folder.
    fn running(&self) -> Vec<String> {
        let dir = self.dir.path().as_os_str().as_encoded_bytes();
        let about = |path: &Path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let here = std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.dir.path()));
            let named = line.windows(dir.len()).any(|part| part == dir);
            (here || named).then(|| String::from_utf8_lossy(&line).replace('\0', " "))
        };
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries.flatten().filter_map(|entry| about(&entry.path())).collect()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let config = self.dir.path();
        if config.join("cluster.toml").exists() {
            let mut down = std::process::Command::new(&self.program);
            let _ = down.arg("down").arg("--force").arg("--config").arg(config).output();
        }
    }
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[tokio::test]
async fn a_cluster_from_init_to_down() {
    if !available() {
        return;
    }
    let shell = Shell::new().expect("a folder");
    let made = shell
        .json("init --name shop --node n1=127.0.0.165 --node n2=127.0.0.166 --postgres-port 54320 --agent-port 57432")
        .await;
    assert!(made["made"].as_array().is_some_and(|made| made.len() > 5), "{made}");
    let again = shell.json("init").await;
    assert_eq!(again["made"], serde_json::json!([]), "nothing is made twice");

    // The shell that starts the agents is hung up after.
    let mut sh = tokio::process::Command::new("sh");
    sh.arg("-c").arg("\"$0\" up >up.out 2>up.err; echo $? >up.code; kill -HUP 0").arg(&shell.program).process_group(0);
    shell.run(sh).await;
    let read = |name: &str| std::fs::read_to_string(shell.dir.path().join(name)).expect("it was written");
    assert_eq!(read("up.code").trim(), "0", "{}", read("up.err"));

    status(&shell).await;
    let counted = shell.json("smoke-test --rows 1000").await;
    let rows: Vec<_> = counted.as_array().expect("a list").iter().map(|node| node["rows"].as_i64()).collect();
    assert_eq!(rows, [Some(1000), Some(1000)], "{counted}");

    let uri = shell.json("dsn").await;
    let uri = uri["uri"].as_str().expect("a URI");
    assert!(uri.contains("127.0.0.165:54320") && uri.contains("127.0.0.166:54320"), "{uri}");
    let secret = std::fs::read_dir(shell.dir.path().join("secrets")).expect("there are secrets");
    for file in secret.flatten().filter(|entry| entry.path().is_file()) {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        assert!(text.trim().len() < 8 || !uri.contains(text.trim()), "a secret is in {uri}");
    }

    let document = shell.json("witness show").await;
    assert_eq!((document["cluster"].as_str(), document["leader"].as_str()), (Some("shop"), Some("n1")), "{document}");
    let probed = shell.done("witness probe").await;
    assert!(probed.contains("passed") && !probed.contains("FAILED"), "{probed}");

    for change in ["restart n2", "reload n1", "clone n2", "rejoin n2", "restart n1"] {
        let plan = shell.done(&format!("{change} --dry-run")).await;
        assert!(!plan.trim().is_empty(), "{change}");
        shell.done(change).await;
        settled(&shell, change).await;
    }
    let unknown = shell.pgdock("restart n9").await;
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    let refused = shell.pgdock("clone n1").await;
    assert_eq!(refused.status.code(), Some(4), "a leader is not copied over: {}", said(&refused));
    shell.done("switchover --to n2").await;
    settled(&shell, "switchover").await;
    let counted = shell.json("smoke-test --rows 10").await;
    assert_eq!(counted[0]["node"], "n2", "{counted}");

    let events = shell.json("events").await;
    let kinds: Vec<_> = events.as_array().expect("a list").iter().filter_map(|e| e["kind"].as_str()).collect();
    for kind in ["started", "bootstrap", "promoted", "cloned", "handover", "order"] {
        assert!(kinds.contains(&kind), "{kind} is missing: {kinds:?}");
    }

    shell.done("down").await;
    until("nothing runs any more", SOON, async || shell.running().is_empty())
        .await
        .unwrap_or_else(|e| panic!("{e}: {:?}", shell.running()));
    let down = shell.pgdock("status").await;
    assert_eq!(down.status.code(), Some(3), "{}", said(&down));

    // It comes back with all that it had.
    shell.done("up").await;
    let counted = shell.json("smoke-test --rows 1").await;
    assert!(counted.as_array().is_some_and(|nodes| nodes.len() == 2), "{counted}");
    shell.done("down").await;
    until("nothing runs any more", SOON, async || shell.running().is_empty()).await.expect("it is down");
}

/// As docs/several-machines.md has it: each node has a folder of its own with its secrets and no others', and the cluster is
/// founded over the network.
#[tokio::test]
async fn nodes_that_have_their_own_folders_are_founded_from_a_third() {
    if !available() {
        return;
    }
    let shell = Shell::new().expect("a folder");
    let dir = shell.dir.path().to_owned();
    shell
        .done("init office --node n1=127.0.0.233 --node n2=127.0.0.234 --postgres-port 54320 --agent-port 57432")
        .await;
    let file = dir.join("office/cluster.toml");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let root = format!("[cluster]\nroot = \"{}\"", dir.join("var").display());
    let text = text.replacen("[cluster]", &root, 1);
    let witness = format!("[witness]\nurl = \"file:{}\"\n#", dir.join("witness/document.json").display());
    std::fs::write(&file, text.replacen("[witness]", &witness, 1)).expect("it can be written");

    let early = shell.pgdock("--config office bootstrap").await;
    assert!(!early.status.success() && said(&early).contains("do not answer. nodes=n1,n2"), "{}", said(&early));

    let mut agents = Vec::new();
    for (node, other) in [("n1", "n2"), ("n2", "n1")] {
        let copied = tokio::process::Command::new("cp")
            .args(["-a", "office", node])
            .current_dir(&dir)
            .status()
            .await
            .expect("it can be run");
        assert!(copied.success());
        for secret in ["ca.key".to_owned(), format!("{other}.key"), format!("{other}.crt")] {
            std::fs::remove_file(dir.join(node).join("secrets").join(secret)).expect("it is there");
        }
        let log = std::fs::File::create(dir.join(format!("{node}.log"))).expect("it can be made");
        let mut agent = tokio::process::Command::new(&shell.program);
        agent.args(["--config", node, "agent", "--node", node]).current_dir(&dir).stdin(Stdio::null());
        agent.stdout(log.try_clone().expect("a file")).stderr(log).kill_on_drop(true);
        agents.push(agent.spawn().expect("it can be run"));
    }
    let both = async || {
        let plan = shell.pgdock("--config office bootstrap n2 --dry-run").await;
        plan.status.success()
    };
    until("both agents answer", SOON, both).await.expect("they do");
    let first = shell.json("--config office bootstrap n2").await;
    assert_eq!((first["leader"].as_str(), &first["sync_set"]), (Some("n2"), &serde_json::json!(["n1"])), "{first}");
    // It is done, and says so from everywhere.
    shell.done("--config n1 bootstrap").await;
    shell.done("--config office switchover --to n1").await;
    let counted = shell.json("--config office smoke-test --rows 10").await;
    assert_eq!(counted[0]["node"], "n1", "{counted}");

    for agent in agents.iter().rev() {
        let pid = agent.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("it runs");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }
    for mut agent in agents {
        assert!(agent.wait().await.expect("it ends").success());
    }
    until("nothing runs any more", SOON, async || shell.running().is_empty()).await.expect("all have ended");
}

/// Checks the shape that programs rely on.
async fn status(shell: &Shell) {
    let status = shell.json("status").await;
    let mut of_cluster = names(&status);
    of_cluster.sort_unstable();
    assert_eq!(
        of_cluster,
        ["acks", "cluster", "durability", "leader", "nodes", "problems", "sync_set", "term", "witness"]
    );
    assert_eq!(status["witness"], serde_json::json!({ "kind": "file", "reachable": true }));
    assert_eq!(status["sync_set"], serde_json::json!(["n2"]));
    let nodes = status["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 2);
    for node in nodes {
        let mut of_node = names(node);
        of_node.sort_unstable();
        let expected = "address bundle lsn name problems reachable replay_lag_bytes replay_lag_seconds role state timeline upstream";
        assert_eq!(of_node, expected.split(' ').collect::<Vec<_>>());
        assert_eq!(node["problems"], serde_json::json!([]));
    }
    let states = |i: usize| (nodes[i]["role"].as_str(), nodes[i]["state"].as_str(), nodes[i]["upstream"].as_str());
    assert_eq!(states(0), (Some("primary"), Some("running"), None));
    assert_eq!(states(1), (Some("standby"), Some("streaming"), Some("n1")));
}

async fn settled(shell: &Shell, after: &str) {
    let well = async || {
        let output = shell.pgdock("status --output json").await;
        output.status.success()
            && serde_json::from_slice::<Value>(&output.stdout)
                .is_ok_and(|status| status["sync_set"] != serde_json::json!([]))
    };
    until(&format!("all is well after {after}"), SOON, well).await.expect("it settles");
}
