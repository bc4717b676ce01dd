//! `[docker]`, and the keys of nodes that are containers: where their engine is, and what they are made from.

use std::path::{Path, PathBuf};

use super::Place;
use super::section::Section;
use super::ssh::{SshSettings, SshTarget};
use crate::NodeName;

/// Where an engine listens on its machine unless told otherwise.
const SOCKET: &str = "/var/run/docker.sock";
/// The port of an engine that speaks TLS.
const PORT: u16 = 2376;
/// What an image is made with where the settings name no version.
const POSTGRES: u32 = 17;
/// What PostgreSQL shares between processes of a parallel query; Docker's own 64 MB are soon used up.
const SHM_SIZE: u64 = 256 << 20;

/// `[docker]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSettings {
    /// `image`: what a node's container is made from, as `pgdock image build` makes it.
    pub image: String,
    /// `network`: `"host"`, or a network in which each node gets its address.
    pub network: String,
    /// `certificates`: the folder of `ca.pem`, `cert.pem` and `key.pem`, for engines that are reached by TLS.
    pub certificates: Option<PathBuf>,
    /// `shm_size`: how much memory the processes of a node may share, in bytes.
    pub shm_size: u64,
}

/// The container of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSettings {
    /// `engine`: where the engine is that has it.
    pub engine: EngineUrl,
    /// `container`: its name.
    pub container: String,
    /// `volume`: a folder of the engine's machine, or a volume of the engine, that holds all that the node keeps.
    pub volume: String,
}

/// Where an engine is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EngineUrl {
    /// `unix:///PATH`: a socket of this machine.
    Unix(PathBuf),
    /// `tcp://HOST:PORT`: by TLS, both sides with certificates.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// `ssh://[USER@]HOST[:PORT][/SOCKET]`: a socket of another machine, over SSH.
    Ssh {
        /// Who logs in where.
        target: SshTarget,
        /// The socket there.
        socket: PathBuf,
    },
}

/// As a URL; the usual socket is left out.
impl std::fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}", crate::agent::host_port(host, *port)),
            Self::Ssh { target, socket } if socket == Path::new(SOCKET) => target.fmt(f),
            Self::Ssh { target, socket } => write!(f, "{target}{}", socket.display()),
        }
    }
}

impl EngineUrl {
    /// The engine of another machine, over SSH.
    #[must_use]
    pub fn over_ssh(target: SshTarget) -> Self {
        Self::Ssh { target, socket: PathBuf::from(SOCKET) }
    }

    fn parse(text: &str, ssh: &SshSettings) -> Option<Self> {
        let plain = |path: &str| path.starts_with('/') && !path.contains(['\0', '\n', '?', '#']);
        if let Some(path) = text.strip_prefix("unix://") {
            return (plain(path) && path.len() > 1).then(|| Self::Unix(path.into()));
        }
        if let Some(place) = text.strip_prefix("tcp://") {
            let target =
                SshSettings { port: PORT, ..SshSettings::default() }.parse_target(place.trim_end_matches('/'))?;
            return (!place.contains('@')).then_some(Self::Tcp { host: target.host, port: target.port });
        }
        let place = text.strip_prefix("ssh://")?;
        let (place, socket) = place.find('/').map_or((place, ""), |at| place.split_at(at));
        let socket = if matches!(socket, "" | "/") { SOCKET } else { socket };
        let target = ssh.parse_target(place)?;
        plain(socket).then(|| Self::Ssh { target, socket: socket.into() })
    }
}

/// Reads `[docker]`, and which engine nodes have that name none.
pub(super) fn read(
    section: Section<'_>,
    place: &Place,
    ssh: &SshSettings,
    version: Option<u32>,
) -> (DockerSettings, Option<EngineUrl>) {
    let engine = engine(&section, ssh);
    let image = section.text("image").map_or_else(|| default_image(version), ToOwned::to_owned);
    if !is_image(&image) {
        section.fault("image", "the name of an image", format!("{image:?}"), "write it as in image = \"pgdock:17\"");
    }
    let network = section.text("network").unwrap_or("host");
    if !is_name(network) {
        section.fault("network", "\"host\", or a network's name", format!("{network:?}"), "correct it");
    }
    let settings = DockerSettings {
        image,
        network: network.to_owned(),
        certificates: section.text("certificates").map(|path| place.resolve(path)),
        shm_size: section.bytes("shm_size", SHM_SIZE),
    };
    if matches!(engine, Some(EngineUrl::Tcp { .. })) {
        certified(&section, "engine", &settings);
    }
    section.end();
    (settings, engine)
}

/// The image that `pgdock image build` makes for a version of PostgreSQL.
#[must_use]
pub fn default_image(version: Option<u32>) -> String {
    format!("pgdock:{}", version.unwrap_or(POSTGRES))
}

/// The container of a node, from its section.
pub(super) fn container(
    node: &Section<'_>,
    name: &str,
    docker: &(DockerSettings, Option<EngineUrl>),
    target: &SshTarget,
    root: &Path,
) -> ContainerSettings {
    let (settings, usual) = docker;
    let own = engine(node, &SshSettings { user: target.user.clone(), port: target.port, ..SshSettings::default() });
    if matches!(own, Some(EngineUrl::Tcp { .. })) {
        certified(node, "engine", settings);
    }
    let engine = own.or_else(|| usual.clone()).unwrap_or_else(|| EngineUrl::over_ssh(target.clone()));
    let container = node.text("container").map_or_else(|| format!("pgdock-{name}"), ToOwned::to_owned);
    if !is_name(&container) {
        node.fault("container", "the name of a container", format!("{container:?}"), "use a-z, 0-9, `.`, `-` and `_`");
    }
    let volume = node.text("volume").map_or_else(|| root.display().to_string(), ToOwned::to_owned);
    let path = volume.starts_with('/') && !volume.contains(':');
    if !path && !is_name(&volume) {
        node.fault(
            "volume",
            "an absolute path on the engine's machine, or the name of a volume",
            format!("{volume:?}"),
            "correct it",
        );
    }
    ContainerSettings { engine, container, volume }
}

fn engine(section: &Section<'_>, ssh: &SshSettings) -> Option<EngineUrl> {
    let text = section.text("engine")?;
    let engine = EngineUrl::parse(text, ssh);
    if engine.is_none() {
        section.fault(
            "engine",
            "unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST:PORT",
            format!("{text:?}"),
            format!("write it as in engine = \"unix://{SOCKET}\""),
        );
    }
    engine
}

/// Whoever reaches an engine is root on its machine: it must ask who it is.
fn certified(section: &Section<'_>, key: &str, settings: &DockerSettings) {
    if settings.certificates.is_none() {
        section.fault(
            key,
            "certificates for an engine that is reached by TCP",
            "none",
            "set [docker] certificates to the folder of ca.pem, cert.pem and key.pem, or use ssh://",
        );
    }
}

/// What the engine takes for the name of a container, network or volume.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_image(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':' | '@');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits)
}

/// Two nodes in one container, or on one volume, would be one.
pub(super) fn check(nodes: &[(&NodeName, &ContainerSettings)], fault: impl Fn(&str, &str, String)) {
    for (i, (name, node)) in nodes.iter().enumerate() {
        let others = || nodes[..i].iter().filter(|(_, other)| other.engine == node.engine);
        if let Some((other, _)) = others().find(|(_, other)| other.container == node.container) {
            fault(&format!("nodes.{name}.container"), "a container of its own", format!("that of {other}"));
        }
        if let Some((other, _)) = others().find(|(_, other)| other.volume == node.volume) {
            fault(&format!("nodes.{name}.volume"), "a volume of its own", format!("{}, that of {other}", node.volume));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_told_by_their_url() {
        let ssh = SshSettings::default();
        for (text, url) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            ("tcp://10.0.0.1", "tcp://10.0.0.1:2376"),
            ("tcp://[fd00::1]:2377", "tcp://[fd00::1]:2377"),
            ("ssh://db1", "ssh://root@db1:22"),
            ("ssh://ann@db1:2222/", "ssh://ann@db1:2222"),
            ("ssh://ann@db1/run/user/1000/docker.sock", "ssh://ann@db1:22/run/user/1000/docker.sock"),
        ] {
            assert_eq!(EngineUrl::parse(text, &ssh).map(|url| url.to_string()).as_deref(), Some(url), "{text}");
        }
        for text in ["", "/var/run/docker.sock", "unix://", "unix:///", "tcp://u@h", "http://h", "ssh://", "ssh://@h"] {
            assert_eq!(EngineUrl::parse(text, &ssh), None, "{text}");
        }
    }
}
