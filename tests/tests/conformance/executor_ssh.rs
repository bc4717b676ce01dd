//! The executor over SSH, on a real OpenSSH server.

use std::path::Path;
use std::time::Duration;

use pgdock_core::executor::conformance::{self, Supports};
use pgdock_core::executor::ssh::{HostKeys, Identity};
use pgdock_core::executor::{Command, ExecutorExt as _, Exit, LocalExecutor, SshConfig, SshExecutor, Stdin};
use pgdock_core::{Error, ErrorKind};
use pgdock_tests::real::until;
use pgdock_tests::ssh::TestSshd;

#[tokio::test(flavor = "multi_thread")]
async fn ssh_conforms() {
    let Some(sshd) = TestSshd::start() else { return };
    let node = SshExecutor::new(sshd.with_key("user", None));
    assert_eq!(node.to_string(), sshd.nobody().to_string());
    let dir = tempfile::tempdir().unwrap();
    conformance::run(&node, dir.path(), Supports::all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_known_is_refused() {
    let Some(sshd) = TestSshd::start() else { return };
    let config = || sshd.with_key("user", None);
    let known = |text: &str| {
        let file = sshd.path("some_known_hosts");
        std::fs::write(&file, text).unwrap();
        config().host_keys(HostKeys::KnownHosts(vec![file]))
    };
    let unknown = refused(known("")).await;
    assert_eq!(unknown.kind(), ErrorKind::NeedsOperator, "{}", unknown.chain());
    let text = format!("{unknown} {}", unknown.hints().join(" "));
    assert!(text.contains("not known") && text.contains("SHA256:") && text.contains("some_known_hosts"), "{text}");
    assert!(text.contains("echo '[127.0.0.22]:"), "{text}");

    let changed = refused(known(&sshd.known("other-host"))).await;
    assert_eq!(changed.kind(), ErrorKind::NeedsOperator, "{}", changed.chain());
    assert!(changed.to_string().contains("another key"), "{changed}");

    let revoked = format!("{}@revoked {}", sshd.known("host"), sshd.known("host"));
    assert!(refused(known(&revoked)).await.to_string().contains("revoked"));

    // What the error says to do is what helps.
    let hint = unknown.hints().iter().find(|hint| hint.contains("echo ")).unwrap();
    let (_, command) = hint.split_once(": ").unwrap();
    LocalExecutor.run_checked(&Command::shell(command)).await.unwrap();
    let file = HostKeys::KnownHosts(vec![sshd.path("some_known_hosts")]);
    let last = Command::new("tail").args(["-n", "1", sshd.path("some_known_hosts").to_str().unwrap()]);
    let line = LocalExecutor.run_checked(&last).await.unwrap().text();
    std::fs::write(sshd.path("some_known_hosts"), line).unwrap();
    assert_eq!(hello(config().host_keys(file)).await.unwrap(), "hello");
    assert_eq!(hello(config().host_keys(HostKeys::AcceptAny)).await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_let_in_by_file_passphrase_and_agent_and_told_what_was_tried() {
    let Some(sshd) = TestSshd::start() else { return };
    let agent = sshd.agent(&["stranger", "user"]);
    let by_agent = sshd.nobody().identity(Identity::Agent(agent.socket.clone()));
    assert_eq!(hello(by_agent).await.unwrap(), "hello");
    assert_eq!(hello(sshd.with_key("locked", Some("open sesame"))).await.unwrap(), "hello");

    let none = refused(sshd.nobody()).await;
    assert!(none.to_string().contains("no agent and no key file"), "{none}");

    let open = sshd.path("open");
    std::fs::copy(sshd.path("user"), &open).unwrap();
    LocalExecutor.run_checked(&Command::new("chmod").args(["644", open.to_str().unwrap()])).await.unwrap();
    let mut config = sshd.with_key("stranger", None);
    for (name, passphrase) in [("locked", None), ("locked", Some("wrong-word")), ("open", None), ("missing", None)] {
        config.identities.extend(sshd.with_key(name, passphrase).identities);
    }
    config.identities.push(Identity::Agent(sshd.path("no-agent")));
    let all = refused(config).await;
    assert_eq!(all.kind(), ErrorKind::Invalid, "{}", all.chain());
    let text = format!("{} {all:?}", all.chain());
    for part in
        ["ssh://", "stranger", ": refused", "no passphrase", "with this passphrase", "chmod 600", "missing", "no-agent"]
    {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains("wrong-word"), "a secret is in the error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_dies_with_its_connection_and_the_next_makes_another() {
    let Some(sshd) = TestSshd::start() else { return };
    let node = SshExecutor::new(sshd.with_key("user", None));
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let line = r#"trap '' TERM HUP INT PIPE; sleep 600 & echo "$PPID $$ $!" > "$PIDS"; while :; do sleep 600; done"#;
    let command = Command::shell(line).env("PIDS", pids.display().to_string()).timeout(Duration::from_secs(120));
    let cut = async {
        let written = || std::fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n'));
        until("the program starts", Duration::from_secs(60), async || written().is_some()).await.unwrap();
        let server = written().unwrap().split(' ').next().unwrap().to_owned();
        LocalExecutor.run_checked(&Command::new("kill").args(["-9", &server])).await.unwrap();
    };
    let (ended, ()) = tokio::join!(node.output(&command), cut);
    let error = ended.expect_err("its connection was cut");
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Unavailable, false), "{}", error.chain());
    let text = std::fs::read_to_string(&pids).unwrap();
    for pid in text.split_whitespace() {
        gone(pid).await;
    }
    assert_eq!(node.run_checked(&Command::new("echo").arg("again")).await.unwrap().text(), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_secrets_nor_helpers_are_left_on_the_node() {
    let Some(sshd) = TestSshd::start() else { return };
    let node = SshExecutor::new(sshd.with_key("user", None));
    // Assembled here, so that it is in no command line of the test either.
    let secret = format!("{}-{}", "hunter2", std::process::id());
    let look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '";
    let command = Command::shell(look).env("TOKEN", secret.clone()).stdin(Stdin::Bytes(secret.clone().into()));
    let seen = String::from_utf8_lossy(&node.run_checked(&command).await.unwrap().stdout).into_owned();
    assert!(seen.contains("sshd") && !seen.contains(&secret), "a secret is in a command line");

    // The watchdog names the command that it is for.
    let pid = node.run_checked(&Command::shell("echo $$")).await.unwrap().text();
    let needle = format!(" watch {pid} ");
    until("the watchdog ends with its command", Duration::from_secs(60), async || {
        let lines = LocalExecutor.output(&Command::new("ps").args(["-eo", "args", "-ww"])).await.unwrap();
        !String::from_utf8_lossy(&lines.stdout).contains(&needle)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_large_files_and_many_commands_are_no_matter() {
    let Some(sshd) = TestSshd::start() else { return };
    let node = SshExecutor::new(sshd.with_key("user", None));
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join(" a 'b' \"c\"\n$d `e` \\ *ä\n");
    node.run_checked(&Command::new("mkdir").arg(odd.to_str().unwrap())).await.unwrap();
    let path = odd.join("-rf\n");
    node.put_bytes(b"content", &path, 0o640).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    let listed = node.run_checked(&Command::new("ls").dir(&odd)).await.unwrap();
    assert_eq!(listed.stdout, b"-rf\n\n");

    // A link is replaced, and what it points to stays.
    let (link, target) = (dir.path().join("link"), dir.path().join("target"));
    std::fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    node.put_bytes(b"new", &link, 0o600).await.unwrap();
    assert_eq!((std::fs::read(&target).unwrap(), std::fs::read(&link).unwrap()), (b"old".to_vec(), b"new".to_vec()));
    assert!(!link.is_symlink());
    for (path, what) in [(dir.path().join("no/such"), "No such"), (odd.clone(), "directory")] {
        let error = node.put_bytes(b"x", &path, 0o600).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.chain().contains(what), "{}", error.chain());
    }

    let large: Vec<u8> = (0..64_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let path = dir.path().join("large");
    node.put_bytes(&large, &path, 0o600).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == large, "64 MiB went up as others");
    assert!(node.get_bytes(&path, large.len()).await.unwrap() == large, "64 MiB came down as others");

    let many = (0..20).map(|i| {
        let command =
            Command::shell("sleep 0.2; cat; echo \"$N\"").env("N", i.to_string()).stdin(Stdin::Bytes("in ".into()));
        let node = &node;
        async move { assert_eq!(node.run_checked(&command).await.unwrap().text(), format!("in {i}")) }
    });
    all(many).await;
    let program = node.output(&Command::new("sh").args(["-c", "exit 3"])).await.unwrap();
    assert_eq!(program.exit, Exit::Code(3), "a program is looked for along PATH");
}

async fn all(futures: impl IntoIterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

async fn hello(config: SshConfig) -> Result<String, Error> {
    Ok(SshExecutor::new(config).run_checked(&Command::new("echo").arg("hello")).await?.text())
}

async fn refused(config: SshConfig) -> Error {
    hello(config).await.expect_err("it must not be let in")
}

/// Waits until a process has ended.
async fn gone(pid: &str) {
    let alive = || Path::new("/proc").join(pid).join("exe").read_link().is_ok();
    until("a process ends", Duration::from_secs(60), async || !alive()).await.unwrap();
}
