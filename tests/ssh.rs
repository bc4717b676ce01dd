//! [`TestSshd`]: a real OpenSSH server on a loopback address, with keys of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pgdock_core::executor::SshConfig;
use pgdock_core::executor::ssh::{HostKeys, Identity};
use rustix::process::{Pid, Signal, kill_process};

use crate::stores::skip;

/// An address of this machine that only tests of SSH use.
const HOST: &str = "127.0.0.22";

/// A server. It ends when it is dropped; its sessions end with their connections.
#[derive(Debug)]
pub struct TestSshd {
    process: Child,
    port: u16,
    dir: tempfile::TempDir,
}

/// An agent that holds keys. It ends when it is dropped.
#[derive(Debug)]
pub struct TestSshAgent {
    process: Child,
    /// Where it listens.
    pub socket: PathBuf,
}

impl TestSshd {
    /// Starts one that lets in whoever has the key `user`, where OpenSSH's server is installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(sshd) =
            ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"].iter().find(|p| Path::new(p).exists())
        else {
            return skip("OpenSSH's server is not installed");
        };
        if rustix::process::geteuid().is_root() {
            // Where it puts itself aside while nobody is logged in; a service makes it at its start.
            std::fs::create_dir_all("/run/sshd").expect("a folder for sshd");
        }
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["host", "other-host", "user", "stranger"] {
            keygen(&dir.path().join(name), "");
        }
        keygen(&dir.path().join("locked"), "open sesame");
        let authorized: String = ["user", "locked"]
            .iter()
            .map(|name| std::fs::read_to_string(dir.path().join(name).with_extension("pub")).expect("a key"))
            .collect();
        std::fs::write(dir.path().join("authorized"), authorized).expect("a file");
        // Ports are free when they are asked for; another process may take one before sshd does.
        for _ in 0..5 {
            let port = std::net::TcpListener::bind((HOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
            let path = dir.path().display();
            let config = format!(
                "ListenAddress {HOST}:{port}\nHostKey {path}/host\nAuthorizedKeysFile {path}/authorized\nPidFile none\n\
                 StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nLogLevel VERBOSE\n"
            );
            std::fs::write(dir.path().join("config"), config).expect("a file");
            let mut process = Command::new(sshd)
                .args(["-D", "-e", "-f"])
                .arg(dir.path().join("config"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("sshd can be started");
            let mut log =
                BufReader::new(process.stderr.take().expect("it has an output")).lines().map_while(Result::ok);
            if log.by_ref().inspect(|line| eprintln!("sshd: {line}")).any(|line| line.contains("Server listening")) {
                // The test's own output takes the rest.
                std::thread::spawn(move || log.for_each(|line| eprintln!("sshd: {line}")));
                let this = Self { process, port, dir };
                std::fs::write(this.path("known_hosts"), this.known("host")).expect("a file");
                return Some(this);
            }
            let _ = process.wait();
        }
        panic!("sshd does not start");
    }

    /// A file of its folder. Keys: `user` may log in; so may `locked`, whose passphrase is `open sesame`;
    /// `stranger` may not. `known_hosts` names the server.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A line of known hosts that names the server with one of the keys `host`, which is its own, and `other-host`.
    #[must_use]
    pub fn known(&self, key: &str) -> String {
        let key = std::fs::read_to_string(self.path(key).with_extension("pub")).expect("a key");
        format!("[{HOST}]:{} {key}", self.port)
    }

    /// How to reach it, with nothing yet that proves the user.
    #[must_use]
    pub fn nobody(&self) -> SshConfig {
        let user = Command::new("id").arg("-un").output().expect("id runs").stdout;
        SshConfig::new(HOST, String::from_utf8_lossy(&user).trim())
            .port(self.port)
            .host_keys(HostKeys::KnownHosts(vec![self.path("known_hosts")]))
    }

    /// How to reach it with a key of its folder.
    #[must_use]
    pub fn with_key(&self, name: &str, passphrase: Option<&str>) -> SshConfig {
        let passphrase = passphrase.map(Into::into);
        self.nobody().identity(Identity::KeyFile { path: self.path(name), passphrase })
    }

    /// An agent that holds keys of its folder.
    #[must_use]
    pub fn agent(&self, keys: &[&str]) -> TestSshAgent {
        let socket = self.path("agent");
        let mut process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("ssh-agent can be started");
        // It says where it listens once it does.
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it has an output"))
            .read_line(&mut line)
            .expect("it says something");
        for key in keys {
            let added = Command::new("ssh-add").arg("-q").arg(self.path(key)).env("SSH_AUTH_SOCK", &socket).status();
            assert!(added.is_ok_and(|status| status.success()), "ssh-add {key}");
        }
        TestSshAgent { process, socket }
    }
}

fn keygen(path: &Path, passphrase: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", "", "-N", passphrase, "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen runs");
    assert!(made.success(), "ssh-keygen {}", path.display());
}

fn end(process: &mut Child) {
    if let Some(pid) = Pid::from_raw(process.id().cast_signed()) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = process.wait();
}

impl Drop for TestSshd {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Drop for TestSshAgent {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}
