//! `[failover_ip]`, and what the section of a node says to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::Item;

use super::parse::Files;
use super::section::{Reader, Section};
use super::{Credentials, Listen, NodeSettings, Place, check, env_file, nodes};
use crate::NodeName;

/// `[failover_ip]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailoverIpSettings {
    /// `kind = "script"`
    Script {
        /// `address`: the address that follows the primary.
        address: String,
        /// `script`: the program to run.
        script: PathBuf,
        /// `env_file`: its environment, as `KEY=VALUE` lines, where it needs one.
        env_file: Option<PathBuf>,
        /// `timeout`: how long one run may take.
        timeout: Duration,
    },
    /// `kind = "hetzner_robot"`
    HetznerRobot(KeeperSettings),
    /// `kind = "hetzner_cloud"`
    HetznerCloud(KeeperSettings),
    /// `kind = "aws"`
    Aws {
        /// What it has in common with others.
        keeper: KeeperSettings,
        /// `region`: of the address and of all nodes.
        region: String,
        /// `credentials`: where they come from.
        credentials: Credentials,
    },
    /// `kind = "linux"`
    Linux {
        /// `address`: the address that follows the primary.
        address: IpAddr,
        /// `prefix`: how long the prefix of its network is. Where it is not given, it is alone in it.
        prefix: Option<u8>,
    },
}

/// An address that a provider keeps, who is reached by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperSettings {
    /// `address`: the address that follows the primary.
    pub address: IpAddr,
    /// `env_file`: the credentials, as `KEY=VALUE` lines. Where it is not given, `secrets/failover.env`.
    pub env_file: Option<PathBuf>,
    /// `endpoint`: the URL of the interface, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// `timeout`: how long one request may take.
    pub timeout: Option<Duration>,
}

/// What `[nodes.NAME]` says of where the failover IP points when that node leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFailoverIp {
    /// `server_ip`: the main address of the server, for `hetzner_robot`. Where it is not given, the node's address.
    pub server_ip: Option<IpAddr>,
    /// `server_id`: the number of the server, for `hetzner_cloud`.
    pub server_id: Option<u64>,
    /// `instance_id`: the instance, for `aws`.
    pub instance_id: Option<String>,
    /// `network_interface_id`: its network interface, for `aws`, instead.
    pub network_interface_id: Option<String>,
    /// `interface`: which of the machine's takes the address on, for `linux`. Where it is not given, the one that
    /// holds the node's own address.
    pub interface: Option<String>,
}

impl FailoverIpSettings {
    /// The word for `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Script { .. } => "script",
            Self::HetznerRobot(_) => "hetzner_robot",
            Self::HetznerCloud(_) => "hetzner_cloud",
            Self::Aws { .. } => "aws",
            Self::Linux { .. } => "linux",
        }
    }

    /// The address that follows the primary.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Script { address, .. } => address.clone(),
            Self::HetznerRobot(keeper) | Self::HetznerCloud(keeper) | Self::Aws { keeper, .. } => {
                keeper.address.to_string()
            }
            Self::Linux { address, .. } => address.to_string(),
        }
    }

    /// Whether it is an address of the node's own machine, which an agent must be let change.
    #[must_use]
    pub fn is_of_this_machine(&self) -> bool {
        self.held_here().is_some()
    }

    /// The file of its secrets, where one is named.
    #[must_use]
    pub fn env_file(&self) -> Option<&PathBuf> {
        match self {
            Self::Script { env_file, .. } => env_file.as_ref(),
            Self::Aws { credentials: Credentials::Instance, .. } | Self::Linux { .. } => None,
            Self::HetznerRobot(keeper) | Self::HetznerCloud(keeper) | Self::Aws { keeper, .. } => {
                keeper.env_file.as_ref()
            }
        }
    }

    /// The address, where it is held by the machine of the leader itself.
    #[must_use]
    pub fn held_here(&self) -> Option<IpAddr> {
        match self {
            Self::Linux { address, .. } => Some(*address),
            _ => None,
        }
    }

    /// The credentials of a provider, without those that a machine has by itself.
    #[must_use]
    pub fn keeper(&self) -> Option<&KeeperSettings> {
        match self {
            Self::HetznerRobot(keeper) | Self::HetznerCloud(keeper) | Self::Aws { keeper, .. } => Some(keeper),
            Self::Script { .. } | Self::Linux { .. } => None,
        }
    }

    /// How long one request or run may take, where it is given.
    pub(super) fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Script { timeout, .. } => Some(*timeout),
            other => other.keeper().and_then(|keeper| keeper.timeout),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Script,
    HetznerRobot,
    HetznerCloud,
    Aws,
    Linux,
}

pub(super) fn read(
    reader: &Reader,
    section: Section<'_>,
    place: &Place,
    files: Files<'_>,
) -> Option<FailoverIpSettings> {
    if !section.exists() {
        return None;
    }
    section.required("kind", "script");
    let kinds = [
        ("script", Kind::Script),
        ("hetzner_robot", Kind::HetznerRobot),
        ("hetzner_cloud", Kind::HetznerCloud),
        ("aws", Kind::Aws),
        ("linux", Kind::Linux),
    ];
    let kind = section.choice("kind", &kinds, Kind::Script);
    let address = section.required("address", "203.0.113.10");
    nodes::check_address(&section, address);
    if reader.is_faulty(&["failover_ip.kind"]) {
        // Which other keys belong here is not known.
        return None;
    }
    let settings = match kind {
        Kind::Script => script(reader, &section, place, files, address),
        Kind::Linux => linux(reader, &section, address),
        _ => keeper(reader, &section, place, files, kind, address),
    };
    section.end();
    settings
}

fn script(
    reader: &Reader,
    section: &Section<'_>,
    place: &Place,
    files: Files<'_>,
    address: &str,
) -> Option<FailoverIpSettings> {
    let script = place.resolve(section.required("script", "shared/failover/failover.sh"));
    let env_file = section.text("env_file").map(|path| place.resolve(path));
    let timeout = section.duration("timeout", Duration::from_secs(60));
    if files == Files::Checked && !reader.is_faulty(&["failover_ip.script"]) {
        check::script(section, &script);
    }
    if let Some(path) = env_file.as_deref().filter(|_| files == Files::Checked) {
        check_env_file(reader, section, path);
    }
    Some(FailoverIpSettings::Script { address: address.to_owned(), script, env_file, timeout })
}

fn linux(reader: &Reader, section: &Section<'_>, address: &str) -> Option<FailoverIpSettings> {
    let ip = ip(reader, section, address);
    let most = if ip.is_some_and(|ip| ip.is_ipv6()) { 128 } else { 32 };
    let prefix = section.integer("prefix", 1..=most).and_then(|bits| u8::try_from(bits).ok());
    Some(FailoverIpSettings::Linux { address: ip?, prefix })
}

/// An address that cannot be a name.
fn ip(reader: &Reader, section: &Section<'_>, address: &str) -> Option<IpAddr> {
    if reader.is_faulty(&["failover_ip.address"]) {
        return None;
    }
    let ip = address.parse().ok();
    if ip.is_none() {
        section.fault("address", "an IP address", format!("{address:?}"), "write the address itself");
    }
    ip
}

fn keeper(
    reader: &Reader,
    section: &Section<'_>,
    place: &Place,
    files: Files<'_>,
    kind: Kind,
    address: &str,
) -> Option<FailoverIpSettings> {
    let given = section.text("env_file").map(|path| place.resolve(path));
    let endpoint = section.text("endpoint");
    if let Some(url) = endpoint {
        check_endpoint(section, url);
    }
    let has_timeout = reader.has(&section.key("timeout"));
    let timeout = section.duration("timeout", Duration::from_secs(60));
    let region = (kind == Kind::Aws).then(|| section.required("region", "eu-central-1").to_owned());
    let credentials = if kind == Kind::Aws {
        let choices = [("file", Credentials::File), ("instance", Credentials::Instance)];
        section.choice("credentials", &choices, Credentials::File)
    } else {
        Credentials::File
    };
    // One that lies on the nodes alone is looked at there.
    if let Some(path) = given.as_deref().filter(|path| files == Files::Checked && path.exists()) {
        check_env_file(reader, section, path);
    }
    let ip = ip(reader, section, address)?;
    if kind == Kind::Aws && ip.is_ipv6() {
        section.fault("address", "an IPv4 address", address, "write the Elastic IP: there are none of IPv6");
        return None;
    }
    let keeper = KeeperSettings {
        address: ip,
        env_file: given,
        endpoint: endpoint.map(str::to_owned),
        timeout: has_timeout.then_some(timeout),
    };
    Some(match (kind, region) {
        (Kind::HetznerCloud, _) => FailoverIpSettings::HetznerCloud(keeper),
        (Kind::Aws, Some(region)) => FailoverIpSettings::Aws { keeper, region, credentials },
        _ => FailoverIpSettings::HetznerRobot(keeper),
    })
}

/// Credentials travel with each request: in the clear only where nobody else is on the way.
fn check_endpoint(section: &Section<'_>, url: &str) {
    let host = url.parse::<http::Uri>().ok().and_then(|uri| {
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let own = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        Some((uri.scheme_str() == Some("https"), own))
    });
    if url.contains('@') {
        section.fault("endpoint", "a URL without user", "one with a user", "write credentials into the env_file");
    } else if !matches!(host, Some((true, _) | (false, true))) {
        let expected = "https://HOST, or http:// and an address of this machine itself";
        section.fault("endpoint", expected, "another form", "correct it, or remove it");
    }
}

fn check_env_file(reader: &Reader, section: &Section<'_>, path: &Path) {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            if let Err(faults) = env_file::parse(&text, path) {
                reader.faults_of(&faults);
            }
        }
        Err(e) => section.fault(
            "env_file",
            "a readable text file",
            format!("{} ({e})", path.display()),
            "make it with KEY=VALUE lines, or correct the path",
        ),
    }
}

/// What the section of a node says.
pub(super) fn read_node(node: &Section<'_>) -> NodeFailoverIp {
    let text = |name| node.text(name);
    let server_ip = text("server_ip").and_then(|ip| {
        let parsed = ip.parse().ok();
        if parsed.is_none() {
            node.fault("server_ip", "an IP address", format!("{ip:?}"), "write the main address of the server");
        }
        parsed
    });
    let id = |item: &Item| item.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    NodeFailoverIp {
        server_ip,
        server_id: node.read("server_id", "a number above 0", "write the number of the server, without quotes", id),
        instance_id: text("instance_id").map(str::to_owned),
        network_interface_id: text("network_interface_id").map(str::to_owned),
        interface: text("interface").map(str::to_owned),
    }
}

/// What `[failover_ip]` and the nodes demand of each other.
pub(super) fn fit(
    settings: Option<&FailoverIpSettings>,
    listen: Option<Listen>,
    nodes: &BTreeMap<NodeName, NodeSettings>,
    reader: &Reader,
) {
    if reader.is_faulty(&["failover_ip"]) {
        return;
    }
    let kind = settings.map_or("", FailoverIpSettings::kind);
    if kind == "linux" && listen == Some(Listen::Node) {
        let remedy = "remove it: PostgreSQL cannot listen at an address that comes later";
        reader.fault("postgres.listen", "\"all\", as [failover_ip] kind = \"linux\"", "\"node\"", remedy);
    }
    // On one machine the agents would take it off each other.
    let here = |node: &NodeSettings| node.address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if kind == "linux" && nodes.len() > 1 && nodes.values().any(here) {
        let expected = "a kind that one machine can do, as nodes have addresses of this one alone";
        reader.fault(
            "failover_ip.kind",
            expected,
            "\"linux\"",
            "give each node a machine of its own, or use \"script\"",
        );
    }
    for (name, node) in nodes {
        let path = format!("nodes.{name}");
        for (key, of) in [
            ("server_ip", "hetzner_robot"),
            ("server_id", "hetzner_cloud"),
            ("instance_id", "aws"),
            ("network_interface_id", "aws"),
            ("interface", "linux"),
        ] {
            let key = format!("{path}.{key}");
            if reader.has(&key) && kind != of {
                let expected = format!("nothing: it belongs to [failover_ip] kind = \"{of}\"");
                reader.fault(&key, expected, "it", "remove it, or correct the kind");
            }
        }
        // One that never leads by itself may be left out; it then cannot take the address.
        if !node.failover || reader.is_faulty(&[&path]) {
            continue;
        }
        let own = &node.failover_ip;
        if kind == "hetzner_cloud" && own.server_id.is_none() {
            let remedy = format!("add server_id = 12345678 to [{path}]");
            reader.fault(&format!("{path}.server_id"), "the number of the server", "nothing", remedy);
        }
        if kind == "linux" && own.interface.is_none() && node.address.parse::<IpAddr>().is_err() {
            let remedy = format!("add interface = \"eth0\" to [{path}]");
            reader.fault(&format!("{path}.interface"), "an interface, as the address is a name", "nothing", remedy);
        }
        if kind == "aws" && own.instance_id.is_some() == own.network_interface_id.is_some() {
            let found = if own.instance_id.is_some() { "both" } else { "nothing" };
            let remedy = format!("write one of them in [{path}]");
            reader.fault(&format!("{path}.instance_id"), "instance_id or network_interface_id", found, remedy);
        }
    }
}
