//! The program on real PostgreSQL, as a person uses it from one day to the next.

use std::path::Path;
use std::process::{Command, Output};

use pgdock_core::postgres::version::Binaries;
use serde_json::Value;
use tempfile::TempDir;

/// A cluster folder; whatever still runs of it when the test ends is killed.
struct Folder(TempDir);

impl Folder {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn pgdock(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pgdock"))
            .arg("--config")
            .arg(self.path())
            .args(args)
            .output()
            .expect("the program can be run")
    }

    /// Runs, sees how it ended, and returns what it printed.
    fn ends(&self, args: &[&str], code: i32) -> String {
        let output = self.pgdock(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
        out.into_owned()
    }

    fn json(&self, args: &[&str], code: i32) -> Value {
        let mut args = args.to_vec();
        args.extend(["--output", "json"]);
        serde_json::from_str(&self.ends(&args, code)).expect("JSON")
    }

    /// The processes that have something to do with this folder.
    fn processes(&self) -> Vec<String> {
        let marked = self.path().to_string_lossy().into_owned();
        let entries = std::fs::read_dir("/proc").expect("a list of processes").flatten();
        entries
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&marked) && !line.contains("deadman"))
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = self.pgdock(&["down", "--force"]);
    }
}

/// Whether there is a PostgreSQL to test on. Where there is none it is said, and is a failure with
/// `PGDOCK_REAL=required`.
fn available() -> bool {
    match Binaries::find(None, None, std::env::var_os("PATH").as_deref()) {
        Ok(_) => true,
        Err(why) => {
            assert!(std::env::var("PGDOCK_REAL").as_deref() != Ok("required"), "cannot test on PostgreSQL: {why}");
            eprintln!("skipped: {why}");
            false
        }
    }
}

fn folder() -> Folder {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder(tempfile::Builder::new().prefix("pgdock-cli-").tempdir().unwrap());
    // PostgreSQL's user must get through.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let nodes = ["--node", "n1=127.0.0.81", "--node", "n2=127.0.0.82", "--node", "n3=127.0.0.83"];
    let ports = ["--postgres-port", "54320", "--agent-port", "57432"];
    folder.ends(&[&["init", "--name", "shop"] as &[&str], &nodes, &ports].concat(), 0);
    folder
}

fn leader(status: &Value) -> &str {
    status["leader"].as_str().expect("a leader")
}

#[test]
fn from_the_first_day_to_the_last() {
    if !available() {
        return;
    }
    let cluster = folder();
    let status = cluster.json(&["up"], 0);
    assert_eq!(leader(&status), "n1");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    let agents = cluster.processes();
    cluster.ends(&["up"], 0);
    assert_eq!(cluster.json(&["up", "--dry-run"], 0)["steps"], serde_json::json!([]), "all runs already");
    assert!(agents.iter().filter(|line| line.contains("agent --detached")).count() == 3, "{agents:?}");

    let counted = cluster.json(&["smoke-test", "--rows", "1000"], 0);
    let rows: Vec<_> = counted.as_array().unwrap().iter().map(|node| node["rows"].as_i64().unwrap()).collect();
    assert_eq!(rows, [1000, 1000, 1000]);

    cluster.ends(&["switchover", "--to", "n2"], 0);
    assert_eq!(leader(&cluster.json(&["up"], 0)), "n2");
    cluster.ends(&["switchover", "--to", "n2"], 4);
    cluster.ends(&["clone", "n2"], 4);
    cluster.ends(&["failover", "--to", "n1"], 4);
    cluster.ends(&["reload", "n1"], 0);
    cluster.ends(&["restart", "n3"], 0);
    cluster.ends(&["agent", "--node", "n1"], 1);

    cluster.ends(&["pause"], 0);
    let paused = cluster.json(&["status"], 3);
    assert!(paused["problems"][0].as_str().unwrap().contains("paused"), "{paused}");
    cluster.ends(&["resume"], 0);
    assert_eq!(cluster.json(&["witness", "show"], 0)["paused"], false);

    // The leader leaves: another one takes the lead first.
    cluster.json(&["up"], 0);
    cluster.ends(&["down", "n2"], 0);
    let status = cluster.json(&["status"], 3);
    assert_ne!(leader(&status), "n2");
    let n2 = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "n2").unwrap();
    assert_eq!((&n2["role"], &n2["reachable"]), (&"unknown".into(), &false.into()));
    let kinds: Vec<_> = cluster.json(&["events"], 0).as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert!(kinds.contains(&"leader_elected".into()) && kinds.contains(&"paused".into()), "{kinds:?}");

    cluster.ends(&["down"], 0);
    assert_eq!(cluster.processes(), [] as [String; 0]);
    let status = cluster.json(&["up"], 0);
    assert_eq!(status["term"], 3, "nobody took the lead from one that was stopped in order");
    cluster.ends(&["down"], 0);
    assert_eq!(cluster.processes(), [] as [String; 0]);
}
