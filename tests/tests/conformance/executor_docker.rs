//! The executor of containers, on a real engine: by its socket, by TLS, and over a real OpenSSH server.

use std::path::Path;
use std::time::Duration;

use pgdock_core::executor::conformance::{self, Supports};
use pgdock_core::executor::docker::{Engine, EngineAddress};
use pgdock_core::executor::ssh::HostKeys;
use pgdock_core::executor::{Command, DockerExecutor, ExecutorExt as _, Exit, Stdin};
use pgdock_core::{Error, ErrorKind};
use pgdock_tests::docker::{SOCKET, TestEngine, TlsFront};
use pgdock_tests::real::until;
use pgdock_tests::ssh::TestSshd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn docker_conforms() {
    let Some(engine) = TestEngine::find().await else { return };
    let container = engine.container().await;
    conforms(&container.executor()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_by_tls_conforms_and_strangers_are_refused() {
    let Some(engine) = TestEngine::find().await else { return };
    let container = engine.container().await;
    let (front, other) = (TlsFront::start().await, TlsFront::start().await);
    conforms(&container.through(front.engine(None))).await;

    // Each has an authority of its own.
    let stranger = tempfile::tempdir().unwrap();
    for (name, from) in [("ca.pem", &front), ("cert.pem", &other), ("key.pem", &other)] {
        std::fs::copy(from.path(name), stranger.path().join(name)).unwrap();
    }
    let refused = container.through(front.engine(Some(stranger.path())));
    let error = hello(&refused).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    let error = hello(&container.through(other.at(front.port))).await.unwrap_err();
    assert!(error.chain().contains("trust each other"), "{}", error.chain());
    let missing = hello(&container.through(front.engine(Some(Path::new("/no/such"))))).await.unwrap_err();
    assert!(missing.kind() == ErrorKind::Invalid && missing.to_string().contains("/no/such/ca.pem"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_over_ssh_conforms_and_a_wrong_host_key_is_refused() {
    let (Some(engine), Some(sshd)) = (TestEngine::find().await, TestSshd::start()) else { return };
    let container = engine.container().await;
    let over = |config, socket: &str| {
        let address = EngineAddress::Ssh { config: Box::new(config), socket: socket.into() };
        container.through(Engine::new(address))
    };
    conforms(&over(sshd.with_key("user", None), SOCKET)).await;

    let file = sshd.path("other_known_hosts");
    std::fs::write(&file, sshd.known("other-host")).unwrap();
    let config = sshd.with_key("user", None).host_keys(HostKeys::KnownHosts(vec![file]));
    let error = hello(&over(config, SOCKET)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{}", error.chain());
    assert!(error.to_string().contains("another key"), "{error}");
    let error = hello(&over(sshd.with_key("stranger", None), SOCKET)).await.unwrap_err();
    assert!(error.to_string().contains("does not let the user in"), "{error}");
    let error = hello(&over(sshd.with_key("user", None), "/no/such.sock")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("/no/such.sock"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_with_the_remedy() {
    let none = Engine::new(EngineAddress::Unix("/no/such/docker.sock".into()));
    let error = hello(&DockerExecutor::new(none, "x")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.hints().join(" ").contains("Docker"), "{error:?}");

    let Some(engine) = TestEngine::find().await else { return };
    let error = hello(&DockerExecutor::new(engine.engine.clone(), "pgdock-test-no-such")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{}", error.chain());
    assert!(error.hints().join(" ").contains("pgdock up"), "{error:?}");

    let container = engine.container().await;
    engine.engine.stop_container(&container.name, Duration::ZERO).await.unwrap();
    let error = hello(&container.executor()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
    assert!(error.chain().contains("not running") && error.hints().join(" ").contains("logs"), "{error:?}");
    // As often as it is told.
    for _ in 0..2 {
        engine.engine.start_container(&container.name).await.unwrap();
    }
    assert_eq!(hello(&container.executor()).await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_that_do_not_fit_are_refused() {
    for (says, why) in [
        (r#"{"Version":"1.12.6","ApiVersion":"1.24","MinAPIVersion":"1.12","Os":"linux","Arch":"amd64"}"#, "too old"),
        (r#"{"Version":"99.0","ApiVersion":"1.99","MinAPIVersion":"1.90","Os":"linux","Arch":"amd64"}"#, "newer"),
        (r#"{"Version":"27.0","ApiVersion":"1.46","MinAPIVersion":"1.24","Os":"windows","Arch":"amd64"}"#, "Linux"),
        ("<html>hello</html>", "not understood"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let _ = stream.read(&mut asked).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{says}", says.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let engine = Engine::new(EngineAddress::Unix(dir.path().join("s")));
        let error = hello(&DockerExecutor::new(engine, "x")).await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {}", error.chain());
        answering.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_secrets_nor_helpers_are_left_in_the_container() {
    let Some(engine) = TestEngine::find().await else { return };
    let container = engine.container().await;
    let node = container.executor();
    let secret = format!("{}-{}", "hunter2", std::process::id());
    let look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '";
    let command = Command::shell(look).env("TOKEN", secret.clone()).stdin(Stdin::Bytes(secret.clone().into()));
    let seen = String::from_utf8_lossy(&node.run_checked(&command).await.unwrap().stdout).into_owned();
    assert!(seen.contains("sleep infinity") && !seen.contains(&secret), "a secret is in a command line: {seen}");

    // A file that nobody reads to its end leaves nothing behind either.
    node.run_checked(&Command::shell("head -c 200000000 /dev/zero >/tmp/large")).await.unwrap();
    struct Breaks;
    impl tokio::io::AsyncWrite for Breaks {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::task::Poll::Ready(Err(std::io::ErrorKind::StorageFull.into()))
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }
    use pgdock_core::Executor as _;
    node.get_file(Path::new("/tmp/large"), &mut Breaks).await.expect_err("what it is copied to is full");
    until("nobody gives that file any more", Duration::from_secs(60), async || {
        // The one that looks is another.
        let count = Command::shell("cat /proc/[0-9]*/comm | grep -c '^cat$'");
        node.output(&count).await.unwrap().text() == "1"
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_run_to_their_end_and_tell_what_they_wrote() {
    let Some(engine) = TestEngine::find().await else { return };
    let name = format!("pgdock-test-{}", rand::random::<u64>());
    let spec = serde_json::json!({
        "Image": pgdock_tests::docker::IMAGE, "Cmd": ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"],
    });
    let (code, said) = engine.engine.run_container(&name, &spec, Duration::from_secs(60)).await.unwrap();
    assert_eq!((code, said.contains("out"), said.contains("err")), (3, true, true), "{said}");
    assert_eq!(engine.engine.container(&name).await.unwrap(), None);
    let lacking = serde_json::json!({ "Image": "pgdock-test-no-such:1" });
    let error = engine.engine.create_container(&name, &lacking).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotReady && error.chain().contains("pgdock-test-no-such"), "{}", error.chain());
}

async fn conforms(node: &DockerExecutor) {
    let dir = Path::new("/tmp/pgdock conformance");
    node.run_checked(&Command::new("mkdir").arg(dir.display().to_string())).await.unwrap_or_else(|e| panic!("{e:?}"));
    conformance::run(node, dir, Supports::all()).await;
    let program = node.output(&Command::new("sh").args(["-c", "exit 3"])).await.unwrap();
    assert_eq!(program.exit, Exit::Code(3), "a program is looked for along PATH");
}

async fn hello(node: &DockerExecutor) -> Result<String, Error> {
    Ok(node.run_checked(&Command::new("echo").arg("hello")).await?.text())
}
