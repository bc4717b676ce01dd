//! `[ssh]`, and the key `ssh` of nodes: who logs in where, and by what both sides are known.

use std::path::PathBuf;

use super::Place;
use super::nodes::is_host;
use super::section::Section;

/// The port of SSH.
const PORT: u16 = 22;
/// Who logs in unless told otherwise.
const USER: &str = "root";

/// `[ssh]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSettings {
    /// `user`: who logs in on the nodes.
    pub user: String,
    /// `port`: where their servers listen.
    pub port: u16,
    /// `identity`: the file of the key that proves the user. Without it, the keys that `ssh` itself would try.
    pub identity: Option<PathBuf>,
    /// `known_hosts`: the file that names the nodes' own keys. Without it, those that `ssh` itself would look into.
    pub known_hosts: Option<PathBuf>,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self { user: USER.to_owned(), port: PORT, identity: None, known_hosts: None }
    }
}

/// Who logs in where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SshTarget {
    /// The user.
    pub user: String,
    /// A name or an address.
    pub host: String,
    /// The port of its server.
    pub port: u16,
}

/// As a URL.
impl std::fmt::Display for SshTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "ssh://{}@{open}{}{close}:{}", self.user, self.host, self.port)
    }
}

impl SshSettings {
    /// A node by its address.
    #[must_use]
    pub fn target(&self, address: &str) -> SshTarget {
        SshTarget { user: self.user.clone(), host: address.to_owned(), port: self.port }
    }

    /// Reads `[USER@]HOST[:PORT]`, an IPv6 address in brackets where a port follows.
    pub(super) fn parse_target(&self, text: &str) -> Option<SshTarget> {
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (user, place),
            None => (self.user.as_str(), text),
        };
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        } else if place.parse::<std::net::Ipv6Addr>().is_ok() {
            (place, None)
        } else {
            let (host, port) = place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
            if !is_host(host) {
                return None;
            }
            (host, port)
        };
        let port = match port {
            None => self.port,
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        };
        is_user(user).then(|| SshTarget { user: user.to_owned(), host: host.to_owned(), port })
    }
}

fn is_user(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$');
    (1..=64).contains(&name.len()) && !name.starts_with('-') && name.chars().all(fits)
}

pub(super) fn read(section: Section<'_>, place: &Place) -> SshSettings {
    let user = section.text("user").unwrap_or(USER);
    if !is_user(user) {
        section.fault("user", "the name of a user", format!("{user:?}"), "write the name alone, without host or port");
    }
    let settings = SshSettings {
        user: user.to_owned(),
        port: section.port("port").unwrap_or(PORT),
        identity: section.text("identity").map(|path| place.resolve(path)),
        known_hosts: section.text("known_hosts").map(|path| place.resolve(path)),
    };
    section.end();
    settings
}

/// A node's key `ssh`; its address where there is none.
pub(super) fn target(node: &Section<'_>, ssh: &SshSettings, address: &str) -> SshTarget {
    let Some(text) = node.text("ssh") else { return ssh.target(address) };
    ssh.parse_target(text).unwrap_or_else(|| {
        node.fault("ssh", "[USER@]HOST[:PORT]", format!("{text:?}"), "write it as in ssh = \"root@10.0.0.1:22\"");
        ssh.target(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_may_leave_out_user_and_port() {
        let ssh = SshSettings { user: "ann".into(), port: 2222, ..SshSettings::default() };
        for (text, url) in [
            ("db1", "ssh://ann@db1:2222"),
            ("root@db1", "ssh://root@db1:2222"),
            ("db1:22", "ssh://ann@db1:22"),
            ("root@10.0.0.1:22", "ssh://root@10.0.0.1:22"),
            ("fd00::1", "ssh://ann@[fd00::1]:2222"),
            ("root@[fd00::1]:22", "ssh://root@[fd00::1]:22"),
        ] {
            assert_eq!(ssh.parse_target(text).map(|target| target.to_string()).as_deref(), Some(url), "{text}");
        }
        for text in ["", "@db1", "db1:", "db1:0", "db1:x", "a b@db1", "-oProxyCommand=id@db1", "[db1]:22", "db1/x"] {
            assert_eq!(ssh.parse_target(text), None, "{text}");
        }
    }
}
