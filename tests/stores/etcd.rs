//! [`TestEtcd`]: a real etcd of one member, on a loopback address.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::executor::{ExecutorExt as _, LocalExecutor};
use pgdock_core::witness::etcd::EtcdConfig;
use pgdock_core::witness::http::Tls;
use pgdock_core::witness::{EtcdWitness, Witness, fresh_nonce};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;

use super::skip;
use crate::real::until;
use crate::signals::stop;

/// An etcd. It ends when it is dropped.
#[derive(Debug)]
pub struct TestEtcd {
    process: Child,
    client: String,
    _dir: tempfile::TempDir,
}

/// What an etcd of a test shall be.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// It serves TLS alone, by this certificate and key.
    pub certificate: Option<(String, String)>,
    /// Clients must show a certificate of this authority.
    pub client_ca: Option<String>,
}

impl TestEtcd {
    /// Starts one, where etcd is installed.
    pub async fn start(options: EtcdOptions) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            return skip("etcd is not installed");
        }
        // Ports are free when they are asked for; another process may take one before etcd does.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a folder");
            let (client, peer) = (free_address(), free_address());
            let process = spawn(dir.path(), &client, &peer, &options);
            let mut this = Self { process, client, _dir: dir };
            if this.answers(options.certificate.is_some()).await {
                return Some(this);
            }
        }
        panic!("etcd does not start");
    }

    async fn answers(&mut self, tls: bool) -> bool {
        let client = self.client.clone();
        let process = &mut self.process;
        let up = until("etcd answers", Duration::from_secs(60), async || {
            if process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return true;
            }
            // With TLS the tests are the first who can ask.
            if tls {
                return tokio::net::TcpStream::connect(&client).await.is_ok();
            }
            let config = EtcdConfig { endpoints: vec![client.clone()], key: "/up".into(), user: None, tls: plain() };
            EtcdWitness::new(config).expect("a configuration").read().await.is_ok()
        });
        up.await.expect("etcd answers");
        self.process.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Where clients reach it, as `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.client
    }

    /// How to reach a key, without TLS and without a user.
    #[must_use]
    pub fn config(&self, key: &str) -> EtcdConfig {
        EtcdConfig { endpoints: vec![self.client.clone()], key: key.to_owned(), user: None, tls: plain() }
    }

    /// Handles to a document that does not exist yet, each opened for itself.
    #[must_use]
    pub fn fresh(&self, handles: usize) -> Vec<Arc<dyn Witness>> {
        let config = self.config(&format!("/conformance/{}", fresh_nonce()));
        let open = |_| Arc::new(EtcdWitness::new(config.clone()).expect("a configuration")) as Arc<dyn Witness>;
        (0..handles).map(open).collect()
    }

    /// Runs etcdctl.
    pub async fn ctl(&self, args: &[&str]) {
        let command = pgdock_core::executor::Command::new("etcdctl")
            .args(["--endpoints", &self.client])
            .args(args.iter().copied())
            .env("ETCDCTL_API", "3");
        LocalExecutor.run_checked(&command).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    }

    /// Demands a user and password from now on; the user may do everything.
    pub async fn ask_for_password(&self, user: &str, password: &str) -> (String, SecretString) {
        self.ctl(&["user", "add", &format!("root:{password}")]).await;
        self.ctl(&["user", "grant-role", "root", "root"]).await;
        if user != "root" {
            self.ctl(&["user", "add", &format!("{user}:{password}")]).await;
            self.ctl(&["user", "grant-role", user, "root"]).await;
        }
        self.ctl(&["auth", "enable"]).await;
        (user.to_owned(), SecretString::from(password.to_owned()))
    }

    /// Stops it in the midst of what it does.
    pub fn freeze(&self) {
        stop(self.pid());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("etcd runs");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }
}

impl Drop for TestEtcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn plain() -> Tls {
    Tls { allow_plain: true, ..Tls::default() }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

fn spawn(dir: &Path, client: &str, peer: &str, options: &EtcdOptions) -> Child {
    let scheme = if options.certificate.is_some() { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://{client}"), format!("http://{peer}"));
    let mut command = Command::new("etcd");
    command
        .args(["--data-dir", &dir.join("data").display().to_string(), "--logger", "zap"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--auth-token", "simple"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("log")).expect("a log"));
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    if let Some((certificate, key)) = &options.certificate {
        command.arg("--cert-file").arg(file("crt", certificate)).arg("--key-file").arg(file("key", key));
    }
    if let Some(ca) = &options.client_ca {
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca", ca));
    }
    command.spawn().expect("etcd starts")
}
