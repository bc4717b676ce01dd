//! A node's container as a whole, on a real engine: made, filled with secrets, renewed, stopped; nothing that it keeps is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::clock::SystemClock;
use pgdock_core::deploy::{Machine, Standing, Verdict};
use pgdock_core::executor::docker::{Engine, LogOptions};
use pgdock_core::executor::{Command, ExecutorExt as _, Opener};
use pgdock_core::scaffold::{Scaffold, ScaffoldDocker, ScaffoldWitness};
use pgdock_core::settings::ExecutorKind;
use pgdock_core::{ErrorKind, NodeName, Settings};
use pgdock_tests::docker::{IMAGE, SOCKET, TestEngine};
use pgdock_tests::ssh::TestSshd;

/// What stands for the image of a node: its user, and a first process that tells its command line and ends when told.
const RECIPE: &str = "FROM IMAGE\nRUN groupadd -g 5432 postgres && useradd -u 5432 -g 5432 -d /opt/pgdock postgres\n\
     USER 5432:5432\nENTRYPOINT [\"/bin/sh\", \"-c\", \"echo told: $*; trap 'exit 0' TERM; while :; do sleep 0.1; done\", \"sh\"]\n";

struct Left(Engine, String);

impl Drop for Left {
    fn drop(&mut self) {
        let (engine, name) = (self.0.clone(), self.1.clone());
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _ = engine.remove_container(&name, true).await;
                let _ = engine.remove_volume(&name).await;
                let _ = engine.remove_image(&name).await;
            });
        });
        let _ = removing.join();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_once_and_renewed_without_losing_what_it_keeps() {
    let Some(TestEngine { engine }) = TestEngine::find().await else { return };
    let name = format!("pgdock-test-{:016x}", rand::random::<u64>());
    let _left = Left(engine.clone(), name.clone());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), RECIPE.replace("IMAGE", IMAGE)).unwrap();
    let tar = std::process::Command::new("tar").args(["-c", "Dockerfile"]).current_dir(&dir).output().unwrap().stdout;
    let mut said = String::new();
    engine
        .build_image(&name, tar.into(), &BTreeMap::new(), Some("none"), |line| said += line)
        .await
        .unwrap_or_else(|e| panic!("{}", e.chain()));
    assert!(said.contains("FROM"), "{said}");

    let node = NodeName::new("n1").unwrap();
    let scaffold = Scaffold {
        witness: Some(ScaffoldWitness { url: "etcd://127.0.0.1:1".into(), ..ScaffoldWitness::default() }),
        executor: ExecutorKind::Docker,
        docker: ScaffoldDocker {
            engine: Some(format!("unix://{SOCKET}")),
            image: Some(name.clone()),
            network: Some("none".into()),
        },
        ..Scaffold::new("main", [(node.clone(), "127.0.0.1".to_owned())])
    };
    scaffold.write(dir.path(), &SystemClock).unwrap();
    let file = dir.path().join("cluster.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("\n[nodes.n1]\n", &format!("\n[nodes.n1]\ncontainer = \"{name}\"\nvolume = \"{name}\"\n"));
    let machine = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Machine::open(&Opener::new(), &Arc::new(Settings::from_path(dir.path()).unwrap()), &node).unwrap()
    };
    let own = machine(&text);
    assert_eq!(own.standing().await.unwrap(), Standing::Absent);
    let checks = own.inspect(b"", &SystemClock).await.unwrap();
    assert!(checks.iter().all(|check| !matches!(check.verdict, Verdict::Bad(_))), "{checks:?}");
    // As often as one likes.
    for _ in 0..2 {
        own.start(|_| ()).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        assert_eq!(own.standing().await.unwrap(), Standing::Running);
    }
    let sent = own.deliver_secrets().await.unwrap_or_else(|e| panic!("{}", e.chain()));
    let list = Command::shell("id -u; stat -c '%u %a %n' secrets secrets/*; touch kept").dir("/opt/pgdock");
    let listed = own.executor().run_checked(&list).await.unwrap().text();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!((lines[0], lines[1], lines.len() - 2), ("5432", "5432 700 secrets", sent), "{listed}");
    assert!(lines[2..].iter().all(|line| line.starts_with("5432 600 ")), "{listed}");
    let mut wrote = Vec::new();
    own.logs(LogOptions::default(), |bytes| wrote.extend_from_slice(bytes)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&wrote), "told: agent --home /opt/pgdock\n");

    // Other settings: what runs is left alone, and made anew once it was stopped.
    let renewed = machine(&text.replace("# shm_size = \"256MiB\"", "shm_size = \"128MiB\""));
    assert_eq!(renewed.standing().await.unwrap(), Standing::Outdated);
    renewed.start(|_| ()).await.unwrap();
    assert_eq!(renewed.standing().await.unwrap(), Standing::Outdated);
    renewed.stop(false).await.unwrap();
    assert_eq!(renewed.standing().await.unwrap(), Standing::Stopped);
    renewed.stop(false).await.unwrap();
    renewed.start(|_| ()).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    assert_eq!(renewed.standing().await.unwrap(), Standing::Running);
    assert_eq!(renewed.executor().get_bytes(Path::new("/opt/pgdock/kept"), 1).await.unwrap(), b"");
    renewed.stop(true).await.unwrap();

    // What belongs to another cluster is not touched.
    let other = machine(&text.replace("name = \"main\"", "name = \"other\""));
    let error = other.start(|_| ()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("cluster=main"), "{}", error.chain());
    let lacking = machine(&text.replace(&format!("image = \"{name}\""), "image = \"localhost:1/pgdock-test-no-such\""));
    engine.remove_container(&name, false).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(60), lacking.start(|_| ())).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{}", error.chain());
    assert!(
        error.hints().join(" ").contains("pgdock image build --tag localhost:1/pgdock-test-no-such n1"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_looked_at_and_nothing_is_done_while_it_is_not_fit() {
    let Some(sshd) = TestSshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = NodeName::new("n1").unwrap();
    let scaffold = Scaffold {
        witness: Some(ScaffoldWitness { url: "etcd://127.0.0.1:1".into(), ..ScaffoldWitness::default() }),
        executor: ExecutorKind::Ssh,
        ..Scaffold::new("main", [(node.clone(), "127.0.0.1".to_owned())])
    };
    scaffold.write(dir.path(), &SystemClock).unwrap();
    let file = dir.path().join("cluster.toml");
    let home = dir.path().join("home");
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("# root = \"/opt/pgdock\"", &format!("root = \"{}\"", home.display()))
        .replace(
            "# known_hosts = ",
            &format!(
                "identity = \"{}\"\nknown_hosts = \"{}\" # ",
                sshd.path("user").display(),
                sshd.path("known_hosts").display()
            ),
        )
        .replace(
            "\n[nodes.n1]\n",
            &format!("\n[nodes.n1]\nssh = \"{}\"\n", sshd.nobody().to_string().trim_start_matches("ssh://")),
        )
        .replace("# user = \"postgres\"", "user = \"pgdock-test-nobody\"");
    std::fs::write(&file, text).unwrap();
    let settings = Arc::new(Settings::from_path(dir.path()).unwrap());
    let machine = Machine::open(&Opener::new(), &settings, &node).unwrap();
    // A program of another machine: whatever else is there, this one is not fit, and so nothing is done to it.
    let other: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let program = [b"\x7fELF".as_slice(), &[0; 14], &other.to_le_bytes()].concat();
    let checks = machine.inspect(&program, &SystemClock).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    let verdict = |what: &str| checks.iter().find(|check| check.what == what).map(|check| &check.verdict);
    assert_eq!(verdict("clock"), Some(&Verdict::Good), "{checks:?}");
    assert!(matches!(verdict("home"), Some(Verdict::Todo(_))), "{checks:?}");
    assert!(matches!(verdict("program"), Some(Verdict::Todo(_))), "{checks:?}");
    assert!(matches!(verdict("user"), Some(Verdict::Todo(_) | Verdict::Bad(_))), "{checks:?}");
    assert!(matches!(verdict("machine"), Some(Verdict::Bad(_))), "{checks:?}");
    let error = machine.prepare(&program, &SystemClock, |step| panic!("{step}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{}", error.chain());
    assert!(!home.exists() && error.hints().join(" ").contains("--program"), "{error:?}");
}
