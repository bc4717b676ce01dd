//! Both examples, for real: an agent with a failover IP of its own founds a cluster of one node, and a
//! service looks at it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgdock_core::clock::SystemClock;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::{Cluster, NodeName, Settings};

/// Kills what it started, PostgreSQL included, however the test ends.
struct Agent {
    child: Child,
    data: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        pgdock_core::agent::deadman::kill_all(&self.data);
    }
}

fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let found = exe.ancestors().map(|dir| dir.join("examples").join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("cargo builds the example {name} before this test"))
}

#[tokio::test]
async fn an_agent_with_its_own_failover_ip_and_a_service_that_looks_at_it() {
    use std::os::unix::fs::PermissionsExt;
    if let Err(why) = Binaries::find(None, None, std::env::var_os("PATH").as_deref()) {
        assert_ne!(std::env::var("PGDOCK_REAL").as_deref(), Ok("required"), "{}", why.chain());
        eprintln!("not run: {}", why.chain());
        return;
    }
    let dir = tempfile::Builder::new().prefix("pgdock-example-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let n1 = NodeName::new("n1").unwrap();
    let mut scaffold = Scaffold::new("example", [(n1.clone(), "127.0.0.35".to_owned())]);
    scaffold.postgres_port = 54320;
    scaffold.agent_port = 57432;
    scaffold.write(dir.path(), &SystemClock).unwrap();
    let settings = Settings::from_path(dir.path()).unwrap();
    let address = dir.path().join("address");
    let child = Command::new(example("own_failover_ip"))
        .arg(dir.path())
        .args(["n1", &address.display().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = Agent { child, data: settings.nodes[&n1].home.join("data") };

    let cluster = Cluster::builder(settings).build().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = cluster.bootstrap(&n1).await {
        assert!(error.is_retryable() && Instant::now() < deadline, "{}", error.chain());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while std::fs::read_to_string(&address).ok().as_deref() != Some("127.0.0.35") {
        assert!(Instant::now() < deadline, "the example's own failover IP was never asked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let seen = Command::new(example("embed_status")).arg(dir.path()).arg("2").output().unwrap();
    let text = String::from_utf8_lossy(&seen.stdout);
    assert!(seen.status.success(), "{text}{}", String::from_utf8_lossy(&seen.stderr));
    assert_eq!(text, "n1 is primary (running)\n");
}
