//! The program as a person at a shell sees it, where no PostgreSQL is needed.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn pgdock(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgdock"))
        .args(args)
        .current_dir(dir)
        .env_remove("PGDOCK_CONFIG")
        .env_remove("RUST_LOG")
        .output()
        .expect("the program can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs, sees how it ended, and returns what it printed as data, and beside that.
fn ends(dir: &Path, args: &[&str], code: i32) -> (String, String) {
    let output = pgdock(dir, args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

/// A cluster that nobody runs. Its ports are those of no service.
fn scaffold() -> TempDir {
    let dir = TempDir::new().unwrap();
    ends(dir.path(), &["init", "--node", "n1=127.0.0.1", "--node", "n2=127.0.0.1", "--agent-port", "9"], 2);
    let nodes = ["init", "--name", "shop", "--node", "n1=127.0.0.2", "--node", "n2=127.0.0.3", "--agent-port", "9"];
    ends(dir.path(), &nodes, 0);
    dir
}

#[test]
fn help_names_every_command() {
    let dir = TempDir::new().unwrap();
    let (out, _) = ends(dir.path(), &["--help"], 0);
    let commands: Vec<_> = out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    insta::assert_snapshot!(commands.join(" "), @"init adopt demo up bootstrap down status events switchover failover pause resume restart reload clone rejoin remove config backup diverged smoke-test dsn export witness node image compose wal agent completions help");
}

#[test]
fn usage_that_is_wrong_ends_with_2() {
    let dir = TempDir::new().unwrap();
    for args in [
        &["frobnicate"] as &[&str],
        &["failover"],
        &["restart"],
        &["switchover", "--to", "N 1"],
        &["status", "--output", "xml"],
        &["status", "--interval", "1"],
        &["init", "--node", "n1"],
        &["init", "--durability", "maybe"],
        &["agent", "--node", "n1", "--detach", "--detached"],
    ] {
        ends(dir.path(), args, 2);
    }
}

#[test]
fn without_settings_it_says_how_to_get_some() {
    let dir = TempDir::new().unwrap();
    let (out, err) = ends(dir.path(), &["status"], 2);
    assert!(out.is_empty(), "{out}");
    assert!(err.starts_with("error: there is no cluster.toml here"), "{err}");
    assert!(err.contains("\nhint: `pgdock init` makes one\n"), "{err}");
}

#[test]
fn every_fault_in_the_settings_is_shown() {
    let dir = scaffold();
    let file = dir.path().join("cluster.toml");
    let mut faulty = std::fs::read_to_string(&file).unwrap().replace("[agent]\nport = 9", "[agent]\nport = 99999");
    faulty.push_str("\n[nodes.n3]\nadress = \"127.0.0.4\"\n");
    std::fs::write(&file, faulty).unwrap();
    for command in [&["status"] as &[&str], &["up", "--dry-run"], &["dsn"], &["witness", "show"]] {
        let (out, err) = ends(dir.path(), command, 2);
        assert!(out.is_empty());
        assert!(err.contains("agent.port: expected"), "{err}");
        assert!(err.contains("adress"), "{err}");
        assert!(err.matches("cluster.toml:").count() >= 2, "{err}");
    }
}

#[test]
fn the_settings_are_found_from_a_folder_below() {
    let dir = scaffold();
    let below = dir.path().join("shared").join("tests");
    let (out, _) = ends(&below, &["dsn"], 0);
    assert!(out.starts_with("postgresql://app@127.0.0.2:5432,127.0.0.3:5432/app?"), "{out}");
    let elsewhere = TempDir::new().unwrap();
    let named = dir.path().to_str().unwrap();
    assert_eq!(ends(elsewhere.path(), &["--config", named, "dsn"], 0).0, out);
    assert_eq!(ends(elsewhere.path(), &["dsn", "--config", named], 0).0, out);
}

#[test]
fn other_programs_get_the_addresses_in_their_own_words() {
    let dir = scaffold();
    let (out, err) = ends(dir.path(), &["export", "haproxy"], 0);
    assert!(out.contains("server n1 127.0.0.2:5432 check port 9 check-ssl"), "{out}");
    assert!(err.contains("secrets/app.password"), "{err}");
    let (out, _) = ends(dir.path(), &["export", "jdbc", "--ca", "/etc/shop/ca.crt"], 0);
    assert!(out.contains("sslrootcert=%2Fetc%2Fshop%2Fca.crt\n"), "{out}");
    let (out, err) = ends(dir.path(), &["export", "pgbouncer"], 2);
    assert!(out.is_empty() && err.contains("\nhint: "), "{err}");
    ends(dir.path(), &["export", "odbc"], 2);
}

#[test]
fn init_keeps_what_is_there() {
    let dir = scaffold();
    let file = dir.path().join("cluster.toml");
    let mut mine = std::fs::read_to_string(&file).unwrap();
    mine.push_str("\n[nodes.n3]\naddress = \"127.0.0.4\"\n");
    std::fs::write(&file, &mine).unwrap();
    let token = std::fs::read(dir.path().join("secrets/agent.token")).unwrap();
    let (out, _) = ends(dir.path(), &["init", "--output", "json"], 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), mine);
    assert_eq!(std::fs::read(dir.path().join("secrets/agent.token")).unwrap(), token);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let names = |key: &str| -> Vec<String> {
        let paths = listed[key].as_array().unwrap().iter().map(|path| path.as_str().unwrap());
        paths.map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names("made"), ["n3.key", "n3.crt"]);
    assert!(names("kept").contains(&"cluster.toml".to_owned()));
}

#[test]
fn init_can_show_what_it_would_write() {
    let dir = TempDir::new().unwrap();
    let (out, _) = ends(dir.path(), &["init", "--dry-run", "--name", "shop"], 0);
    assert!(out.contains("name = \"shop\"") && out.contains("address = \"127.0.0.13\""), "{out}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_cluster_that_does_not_run_is_unhealthy() {
    let dir = scaffold();
    let (out, _) = ends(dir.path(), &["status", "--output", "json"], 3);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["cluster"], "shop");
    assert_eq!(status["term"], serde_json::Value::Null);
    assert_eq!(status["witness"], serde_json::json!({ "kind": "file", "reachable": true }));
    for node in status["nodes"].as_array().unwrap() {
        assert_eq!((&node["role"], &node["reachable"]), (&"unknown".into(), &false.into()));
    }
    let (out, _) = ends(dir.path(), &["status"], 3);
    assert!(out.contains("there is no witness document"), "{out}");
}

#[test]
fn orders_that_nobody_can_take_fail_with_a_hint() {
    let dir = scaffold();
    for (args, code) in [
        (&["switchover"] as &[&str], 1),
        (&["switchover", "--to", "n9"], 2),
        (&["pause"], 1),
        (&["reload", "n9"], 2),
        (&["reload", "n1"], 1),
        (&["failover", "--to", "n2", "--dry-run"], 1),
        (&["witness", "show"], 1),
        (&["witness", "probe", "https://example.org/x"], 2),
        (&["events"], 1),
        (&["smoke-test", "--rows", "1"], 1),
    ] {
        let (out, err) = ends(dir.path(), args, code);
        assert!(out.is_empty(), "{args:?}: {out}");
        assert!(err.starts_with("error: "), "{args:?}: {err}");
        assert!(err.contains("\nhint: ") || args[0] == "smoke-test", "{args:?}: {err}");
    }
}

#[test]
fn a_dry_run_prints_steps_as_data_and_does_nothing() {
    let dir = scaffold();
    let (out, _) = ends(dir.path(), &["up", "--dry-run", "--output", "json"], 0);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let steps: Vec<_> = plan["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["start_agent", "start_agent", "bootstrap", "await_streaming"]);
    let (out, _) = ends(dir.path(), &["up", "--dry-run", "n2"], 0);
    insta::assert_snapshot!(out, @r"
     Step | What
    ------+-----------------------------------------------------------------
     1    | start the agent of n2
     2    | found the cluster on n2: first data directory, witness document
     3    | wait until there is a primary, and all others of n2 stream
    ");
    assert!(!dir.path().join("var").exists());
    assert_eq!(ends(dir.path(), &["down", "--dry-run"], 0).0, "nothing to do\n");
}

#[test]
fn passwords_are_printed_only_when_asked_for() {
    let dir = scaffold();
    let password = std::fs::read_to_string(dir.path().join("secrets/app.password")).unwrap();
    let (out, err) = ends(dir.path(), &["dsn"], 0);
    assert!(!out.contains(password.trim()) && err.contains("app.password"));
    let (out, err) = ends(dir.path(), &["dsn", "--password", "--standby"], 0);
    assert!(out.contains(password.trim()) && out.contains("prefer-standby"));
    assert!(err.is_empty(), "{err}");
}

#[test]
fn the_witness_of_the_settings_passes_its_probe_and_leaves_nothing() {
    let dir = scaffold();
    let (out, _) = ends(dir.path(), &["witness", "probe", "--output", "json"], 0);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["verdict"] == "passed"), "{out}");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("witness")).into_iter().flatten().flatten().collect();
    assert!(left.iter().all(|file| file.path().extension().is_some_and(|e| e == "lock")), "{left:?}");
}

#[test]
fn completions_are_a_script() {
    let dir = TempDir::new().unwrap();
    assert!(ends(dir.path(), &["completions", "bash"], 0).0.contains("_pgdock()"));
    assert!(ends(dir.path(), &["completions", "zsh"], 0).0.starts_with("#compdef pgdock"));
}

#[test]
fn a_container_is_printed_as_it_would_be_made() {
    let dir = TempDir::new().unwrap();
    let (engine, witness) = ("unix:///no/such/docker.sock", "etcd://10.0.0.9:2379");
    let init = ["init", "--executor", "docker", "--engine", engine, "--node", "n1=10.0.0.1", "--witness", witness];
    ends(dir.path(), &init, 0);
    let (out, _) = ends(dir.path(), &["compose", "n1"], 0);
    for part in ["image: \"pgdock:17\"", "command: [\"agent\", \"--home\", \"/opt/pgdock\"]", "network_mode: host"] {
        assert!(out.contains(part), "{part} is missing: {out}");
    }
    ends(dir.path(), &["compose", "n9"], 2);
    for command in [&["node", "exec", "n1", "--", "true"] as &[&str], &["node", "prepare"], &["node", "logs", "n1"]] {
        let (_, err) = ends(dir.path(), command, 1);
        assert!(
            err.contains("/no/such/docker.sock") && err.contains("hint: is Docker installed"),
            "{command:?}: {err}"
        );
    }
    ends(dir.path(), &["init", "--network", "x", "--node", "n1=10.0.0.1", "other"], 2);
}

#[test]
fn a_program_on_a_node_is_as_if_it_ran_here() {
    let dir = scaffold();
    let (out, err) = ends(
        dir.path(),
        &["node", "exec", "n1", "--", "sh", "-c", "echo \"$1\"; echo aside >&2; exit 7", "sh", "a b"],
        7,
    );
    assert_eq!((out.as_str(), err.as_str()), ("a b\n", "aside\n"));
    let (_, err) = ends(dir.path(), &["compose", "n1"], 2);
    assert!(err.contains("the node is no container"), "{err}");
}
