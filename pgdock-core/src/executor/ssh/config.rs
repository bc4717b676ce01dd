//! [`SshConfig`]: how a node is reached, who logs in there, and by which of its keys it is known.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::{Error, Result};

/// The port of SSH.
const PORT: u16 = 22;
/// OpenSSH lets ten sessions through one connection (`MaxSessions`). Two are kept for killing.
const SESSIONS: usize = 8;

/// How a node is reached over SSH. Plain data: nothing is read or opened before the first call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SshConfig {
    /// A name or an address.
    pub host: String,
    /// The port of its server. Default 22.
    pub port: u16,
    /// Who logs in there.
    pub user: String,
    /// How it is made sure that the server is the right one.
    pub host_keys: HostKeys,
    /// What the user proves itself with, tried in this order.
    pub identities: Vec<Identity>,
    /// How long each step may take.
    pub timeouts: SshTimeouts,
    /// How many commands and files use the connection at the same time; others wait. The server must allow two
    /// more (`MaxSessions`). Default 8.
    pub sessions_max: usize,
}

/// How it is made sure that a server is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostKeys {
    /// By files such as `~/.ssh/known_hosts`. One that is missing counts as empty.
    KnownHosts(Vec<PathBuf>),
    /// Not at all: whoever can redirect the connection can read and change everything. For machines that live
    /// for one test.
    AcceptAny,
}

/// What a user proves itself with. Certificates, passwords, and RSA keys in files are not supported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Identity {
    /// All keys of the agent that listens on this socket.
    Agent(PathBuf),
    /// A private key in a file that is closed to others: ed25519 or ecdsa.
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What it is encrypted with.
        passphrase: Option<SecretString>,
    },
}

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SshTimeouts {
    /// Until the server has taken the connection. Default 10 s.
    pub connect: Duration,
    /// Until keys are agreed upon, and the server's is checked. Default 20 s.
    pub handshake: Duration,
    /// Until the user is let in. Default 30 s.
    pub auth: Duration,
    /// Until a session is open, one being free, and for a file until its next bytes are through. Default 30 s.
    pub channel: Duration,
    /// How long a silent connection is left alone; after three questions without an answer it is given up.
    /// Default 10 s.
    pub keepalive: Duration,
}

impl Default for SshTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(20),
            auth: Duration::from_secs(30),
            channel: Duration::from_secs(30),
            keepalive: Duration::from_secs(10),
        }
    }
}

impl SshConfig {
    /// A node, and who logs in there. Its keys are looked for in `/etc/ssh/ssh_known_hosts`, and nothing proves
    /// the user yet.
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: PORT,
            user: user.into(),
            host_keys: HostKeys::KnownHosts(vec![PathBuf::from("/etc/ssh/ssh_known_hosts")]),
            identities: Vec::new(),
            timeouts: SshTimeouts::default(),
            sessions_max: SESSIONS,
        }
    }

    /// What `ssh` would take for somebody whose home this is: its `known_hosts`, then those of the machine; the
    /// agent if there is one (the value of `SSH_AUTH_SOCK`), then the keys in `.ssh` that have the usual names.
    #[must_use]
    pub fn of_home(mut self, home: &Path, agent: Option<PathBuf>) -> Self {
        let ssh = home.join(".ssh");
        self.host_keys = HostKeys::KnownHosts(vec![ssh.join("known_hosts"), PathBuf::from("/etc/ssh/ssh_known_hosts")]);
        self.identities.extend(agent.map(Identity::Agent));
        let files = ["id_ed25519", "id_ecdsa"].map(|name| ssh.join(name));
        self.identities.extend(
            files.into_iter().filter(|path| path.exists()).map(|path| Identity::KeyFile { path, passphrase: None }),
        );
        self
    }

    /// Another port than 22.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// How it is made sure that the server is the right one.
    #[must_use]
    pub fn host_keys(mut self, host_keys: HostKeys) -> Self {
        self.host_keys = host_keys;
        self
    }

    /// Adds what the user proves itself with, after what is there.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// How long each step may take.
    #[must_use]
    pub fn timeouts(mut self, timeouts: SshTimeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How many commands and files use the connection at the same time.
    #[must_use]
    pub fn sessions_max(mut self, sessions: usize) -> Self {
        self.sessions_max = sessions;
        self
    }

    /// What is wrong with it, all at once.
    pub(super) fn check(&self) -> Result<()> {
        let plain = |text: &str| !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        let mut wrong = Vec::new();
        if !plain(&self.host) {
            wrong.push("the host is empty or has blanks");
        }
        if !plain(&self.user) {
            wrong.push("the user is empty or has blanks");
        }
        if self.port == 0 {
            wrong.push("the port is 0");
        }
        if self.sessions_max == 0 {
            wrong.push("sessions_max is 0");
        }
        if self.host_keys == HostKeys::KnownHosts(Vec::new()) {
            wrong.push("no file of known hosts is named");
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("a node cannot be reached like this: {}. node={self}", wrong.join("; "))))
    }
}

/// As a URL.
impl std::fmt::Display for SshConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "ssh://{}@{open}{}{close}:{}", self.user, self.host, self.port)
    }
}
