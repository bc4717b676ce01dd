use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::failover_ip::{
    FailoverIp, FaultyFailoverIp, Holder, MemoryFailoverIp, ScriptFailoverIp, Target, conformance,
};
use pgdock_core::{Error, ErrorKind, NodeName, Term};

fn target(i: u8) -> Target {
    Target {
        cluster: "shop".into(),
        node: NodeName::new(format!("n{i}")).unwrap(),
        address: format!("127.0.0.{i}"),
        term: Term(7),
    }
}

fn script(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("failover.sh");
    std::fs::write(&path, format!("#!/bin/sh\nset -eu\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// Keeps the holder in a file: an honest script.
fn honest(dir: &Path, what: &str) -> ScriptFailoverIp {
    let body =
        format!(r#"case $1 in assign) echo "${what}" > "$STATE" ;; current) cat "$STATE" 2>/dev/null || true ;; esac"#);
    ScriptFailoverIp::new(script(dir, &body), "192.0.2.1").var("STATE", dir.join("state").display().to_string())
}

async fn fails(body: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let ip = ScriptFailoverIp::new(script(dir.path(), body), "192.0.2.1").var("TOKEN", "hunter2-secret");
    let ip = ip.timeout(Duration::from_secs(60)).settle(2, Duration::from_millis(1));
    let error = ip.assign(&target(2)).await.unwrap_err();
    let shown = format!("{} {error:?} {ip:?} {ip}", error.chain());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(error.to_string().contains("failover.sh") && error.to_string().contains("192.0.2.1"), "{error}");
    error
}

#[tokio::test]
async fn memory_conforms() {
    let ip = MemoryFailoverIp::new();
    conformance::run(&ip, &target(1), &target(2)).await;
    assert_eq!(ip.moves().len(), 4, "only true moves count");
}

#[tokio::test]
async fn script_conforms_by_name_and_by_address() {
    for what in ["PGDOCK_NODE", "PGDOCK_NODE_ADDRESS"] {
        let dir = tempfile::tempdir().unwrap();
        let ip = honest(dir.path(), what);
        assert_eq!(ip.current().await.unwrap(), None);
        conformance::run(&ip, &target(1), &target(2)).await;
    }
}

#[tokio::test]
async fn lost_answers_conform_once_settled() {
    for seed in 0..20 {
        let ip = FaultyFailoverIp::new(Arc::new(MemoryFailoverIp::new()), seed).refuse(0.2).lose_answers(0.3);
        conformance::run(&ip, &target(1), &target(2)).await;
    }
}

/// The keeper of an address knows no terms, hence the leader looks again.
#[tokio::test]
async fn a_late_move_can_undo_a_newer_one() {
    let memory = Arc::new(MemoryFailoverIp::new());
    let late = FaultyFailoverIp::new(Arc::clone(&memory) as _, 1).land_late(1.0, 1);
    assert!(!late.assign(&target(1)).await.unwrap_err().outcome_known());
    memory.assign(&Target { term: Term(8), ..target(2) }).await.unwrap();
    assert_eq!(late.current().await.unwrap(), Some(Holder::Node(target(1).node)));
}

#[tokio::test]
async fn a_script_gets_its_variables_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let filter = "grep -v -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD=";
    let body = format!("if [ $1 = assign ]; then env | {filter} | sort > {}; else echo n2; fi", seen.display());
    let ip = ScriptFailoverIp::new(script(dir.path(), &body), "192.0.2.1");
    ip.var("TOKEN", "t").assign(&target(2)).await.unwrap();
    let expected = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPGDOCK_ADDRESS=192.0.2.1\n\
                    PGDOCK_CLUSTER=shop\nPGDOCK_NODE=n2\nPGDOCK_NODE_ADDRESS=127.0.0.2\nPGDOCK_TERM=7\nTOKEN=t\n";
    assert_eq!(std::fs::read_to_string(seen).unwrap(), expected);
}

#[tokio::test]
async fn a_lie_is_noticed() {
    let error = fails("[ $1 = current ] && echo 127.0.0.1 || true").await;
    let expected = "the script said it succeeded, but the address still points at 127.0.0.1";
    assert!(error.to_string().starts_with(expected), "{error}");
    let error = fails("exit 0").await;
    assert!(error.to_string().contains("still points at nobody"), "{error}");
    assert!(!error.outcome_known());
}

#[tokio::test]
async fn a_failure_says_what_the_script_said_but_no_secret() {
    let error = fails(r#"echo "401: bad token $TOKEN" >&2; exit 3"#).await;
    let text = error.chain();
    assert!(
        text.contains("verb=assign") && text.contains("exit=code 3") && text.contains("401: bad token …"),
        "{text}"
    );
    assert!(!error.outcome_known());
    let flood = fails("head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1").await;
    assert!(flood.chain().len() < 3_000, "{}", flood.chain().len());
    let lines = fails("printf 'n2\\nn1\\n'").await;
    assert_eq!(lines.kind(), ErrorKind::Invalid, "{lines}");
}

#[tokio::test]
async fn a_script_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let path = script(dir.path(), &format!("trap '' TERM; sleep 600 & echo $! > {}; wait; wait", pid.display()));
    for millis in [300, 3_000, 30_000] {
        let ip = ScriptFailoverIp::new(&path, "192.0.2.1").timeout(Duration::from_millis(millis));
        let error = ip.assign(&target(2)).await.unwrap_err();
        assert!(error.to_string().contains("took too long and was killed"), "{error}");
        assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Unavailable, false));
        // On a busy machine it may not have come as far as its child.
        if let Some(child) = std::fs::read_to_string(&pid).ok().filter(|pid| pid.ends_with('\n')) {
            return gone(child.trim()).await;
        }
    }
    panic!("the script never started");
}

#[tokio::test]
async fn a_script_that_cannot_run_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(dir.path(), "exit 0");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (path, why) in [(path, "denied"), (dir.path().join("missing.sh"), "No such file")] {
        let error = ScriptFailoverIp::new(path, "192.0.2.1").current().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.chain().contains(why) && error.to_string().contains("cannot be started"), "{}", error.chain());
        assert!(!error.hints().is_empty());
    }
}

async fn gone(pid: &str) {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    for _ in 0..500 {
        match std::fs::read_to_string(&stat) {
            Ok(stat) if !stat.contains(") Z ") => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => return,
        }
    }
    panic!("a process outlived its script. pid={pid}");
}
