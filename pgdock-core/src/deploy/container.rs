//! [`NodeContainer`]: what a node's container is, and its two renderings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::UID;
use crate::fnv::fnv1a;
use crate::settings::{FailoverIpSettings, Reach, Settings};
use crate::{Error, NodeName, Result};

/// How long a node may take to stop: a leader checkpoints, and hands over first.
const STOP_GRACE: Duration = Duration::from_secs(180);
/// What an agent needs that is root because it moves an address: the address itself, and to become PostgreSQL's user.
const OF_ADDRESSES: [&str; 8] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_ADMIN", "NET_RAW", "SETGID", "SETUID"];

/// The labels by which a container is known again.
pub(super) const CLUSTER: &str = "org.pgdock.cluster";
pub(super) const NODE: &str = "org.pgdock.node";
pub(super) const SPEC: &str = "org.pgdock.spec";

/// What a node's container is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeContainer {
    /// Its name.
    pub name: String,
    /// What it is made from.
    pub image: String,
    /// What its first process is told.
    pub command: Vec<String>,
    /// Who that process is: `UID:GID`.
    pub user: String,
    /// What that process may do beyond what any process may.
    pub capabilities: Vec<String>,
    /// Where it listens.
    pub network: Network,
    /// A folder of the engine's machine, or a volume, that holds all that the node keeps.
    pub volume: String,
    /// Where it is seen in the container.
    pub root: PathBuf,
    /// How much memory processes may share, in bytes.
    pub shm_size: u64,
    /// How long it may take to stop.
    pub stop_grace: Duration,
    /// What it is known by.
    pub labels: BTreeMap<String, String>,
}

/// Where a container listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// On its machine's own addresses.
    Host,
    /// In a network of the engine.
    Named {
        /// The network's name.
        name: String,
        /// Its address there, where the node's is one.
        address: Option<IpAddr>,
        /// Its name there.
        hostname: String,
    },
}

impl NodeContainer {
    /// The container of a node, as the settings have it.
    ///
    /// # Errors
    /// `Invalid` when there is no such node, or it is no container.
    pub fn of(settings: &Settings, node: &NodeName) -> Result<Self> {
        let own = settings.node(node)?;
        let Reach::Docker(container) = &own.reach else {
            return Err(Error::invalid(format!(
                "the node is no container. node={node}, executor={}",
                settings.cluster.executor.as_str()
            ))
            .hint("set [cluster] executor = \"docker\""));
        };
        let docker = &settings.docker;
        let network = if docker.network == "host" {
            Network::Host
        } else {
            Network::Named {
                name: docker.network.clone(),
                // Only in networks that somebody made does an engine give the address that is asked for.
                address: own.address.parse().ok().filter(|_| !matches!(docker.network.as_str(), "bridge" | "none")),
                hostname: node.to_string(),
            }
        };
        let moves_addresses = settings.failover_ip.as_ref().is_some_and(FailoverIpSettings::is_of_this_machine);
        let (user, capabilities) = if moves_addresses {
            ("0:0".to_owned(), OF_ADDRESSES.map(ToOwned::to_owned).to_vec())
        } else {
            (format!("{UID}:{UID}"), Vec::new())
        };
        let home = own.home.display().to_string();
        let mut this = Self {
            name: container.container.clone(),
            image: docker.image.clone(),
            command: ["agent", "--home", &home].map(ToOwned::to_owned).to_vec(),
            user,
            capabilities,
            network,
            volume: container.volume.clone(),
            root: own.home.clone(),
            shm_size: docker.shm_size,
            stop_grace: STOP_GRACE.max(settings.failover.stop_budget * 2),
            labels: BTreeMap::new(),
        };
        let spec = format!("{:016x}", fnv1a(this.engine_spec().to_string().as_bytes()));
        this.labels = [(CLUSTER, settings.cluster.name.clone()), (NODE, node.to_string()), (SPEC, spec)]
            .map(|(label, value)| (label.to_owned(), value))
            .into();
        Ok(this)
    }

    /// What tells whether a container that is there was made from the same.
    #[must_use]
    pub fn spec(&self) -> &str {
        self.labels.get(SPEC).map_or("", String::as_str)
    }

    /// What the engine is told to make.
    #[must_use]
    pub fn engine_spec(&self) -> Value {
        let mut spec = json!({
            "Image": self.image,
            "Cmd": self.command,
            "User": self.user,
            "Labels": self.labels,
            "StopSignal": "SIGTERM",
            "StopTimeout": self.stop_grace.as_secs(),
            "HostConfig": {
                "Binds": [format!("{}:{}", self.volume, self.root.display())],
                "NetworkMode": match &self.network { Network::Host => "host", Network::Named { name, .. } => name },
                "RestartPolicy": { "Name": "unless-stopped" },
                "CapDrop": ["ALL"],
                "CapAdd": self.capabilities,
                "SecurityOpt": ["no-new-privileges"],
                "ShmSize": self.shm_size,
                "LogConfig": { "Type": "json-file", "Config": { "max-size": "10m", "max-file": "5" } },
            },
        });
        if let Network::Named { name, address, hostname } = &self.network {
            spec["Hostname"] = json!(hostname);
            let ipam = match address {
                Some(IpAddr::V4(address)) => json!({ "IPAMConfig": { "IPv4Address": address } }),
                Some(IpAddr::V6(address)) => json!({ "IPAMConfig": { "IPv6Address": address } }),
                None => json!({}),
            };
            spec["NetworkingConfig"] = json!({ "EndpointsConfig": { name: ipam } });
        }
        spec
    }

    /// The same as a file for `docker compose`.
    #[must_use]
    pub fn compose(&self) -> String {
        // Text in JSON is text in YAML.
        let q = |text: &str| Value::from(text).to_string();
        let list = |items: &[String]| items.iter().map(|item| q(item)).collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "services:\n  {service}:\n    container_name: {name}\n    image: {image}\n    command: [{command}]\n    \
             user: {user}\n    restart: unless-stopped\n    stop_signal: SIGTERM\n    stop_grace_period: {grace}s\n    \
             shm_size: {shm}\n    cap_drop: [\"ALL\"]\n",
            service = q(&self.name),
            name = q(&self.name),
            image = q(&self.image),
            command = list(&self.command),
            user = q(&self.user),
            grace = self.stop_grace.as_secs(),
            shm = self.shm_size,
        );
        if !self.capabilities.is_empty() {
            let _ = writeln!(text, "    cap_add: [{}]", list(&self.capabilities));
        }
        let _ = write!(
            text,
            "    security_opt: [\"no-new-privileges\"]\n    logging:\n      driver: json-file\n      options:\n        \
             max-size: \"10m\"\n        max-file: \"5\"\n    volumes:\n      - {}\n",
            q(&format!("{}:{}", self.volume, self.root.display()))
        );
        if !self.labels.is_empty() {
            text.push_str("    labels:\n");
            for (label, value) in &self.labels {
                let _ = writeln!(text, "      {}: {}", q(label), q(value));
            }
        }
        let mut below = String::new();
        match &self.network {
            Network::Host => text.push_str("    network_mode: host\n"),
            Network::Named { name, address, hostname } => {
                let _ = write!(text, "    hostname: {}\n    networks:\n      {}:", q(hostname), q(name));
                match address {
                    Some(address) => {
                        let key = if address.is_ipv4() { "ipv4_address" } else { "ipv6_address" };
                        let _ = writeln!(text, "\n        {key}: {}", q(&address.to_string()));
                    }
                    None => text.push_str(" {}\n"),
                }
                let _ = write!(below, "networks:\n  {}:\n    external: true\n", q(name));
            }
        }
        if !self.volume.starts_with('/') {
            let _ = write!(below, "volumes:\n  {0}:\n    name: {0}\n", q(&self.volume));
        }
        text + &below
    }

    /// The container that gives the volume to the user that all of a node belongs to. It ends at once.
    #[must_use]
    pub fn volume_spec(&self) -> Value {
        json!({
            "Image": self.image,
            "Entrypoint": ["/bin/sh", "-c", "install -d -m 0700 -o \"$1\" -g \"$1\" -- \"$2\"", "sh"],
            "Cmd": [UID.to_string(), self.root],
            "User": "0:0",
            "Labels": { CLUSTER: self.labels.get(CLUSTER) },
            "HostConfig": {
                "Binds": [format!("{}:{}", self.volume, self.root.display())],
                "NetworkMode": "none",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::{Files, parse};

    fn settings(more: &str) -> Settings {
        let text = format!(
            "[cluster]\nname = \"main\"\nexecutor = \"docker\"\n[witness]\nurl = \"etcd://10.0.0.9:2379\"\ntls = false\n\
             [nodes.n1]\naddress = \"10.0.0.1\"\n{more}"
        );
        parse(&text, Path::new("/srv/pg"), Files::Ignored).unwrap()
    }

    #[test]
    fn both_renderings_say_the_same() {
        let host = NodeContainer::of(&settings(""), &NodeName::new("n1").unwrap()).unwrap();
        insta::assert_snapshot!(host.compose(), @r#"
        services:
          "pgdock-n1":
            container_name: "pgdock-n1"
            image: "pgdock:17"
            command: ["agent", "--home", "/opt/pgdock"]
            user: "5432:5432"
            restart: unless-stopped
            stop_signal: SIGTERM
            stop_grace_period: 180s
            shm_size: 268435456
            cap_drop: ["ALL"]
            security_opt: ["no-new-privileges"]
            logging:
              driver: json-file
              options:
                max-size: "10m"
                max-file: "5"
            volumes:
              - "/opt/pgdock:/opt/pgdock"
            labels:
              "org.pgdock.cluster": "main"
              "org.pgdock.node": "n1"
              "org.pgdock.spec": "5dbfeff17e159095"
            network_mode: host
        "#);
        insta::assert_snapshot!(serde_json::to_string_pretty(&host.engine_spec()).unwrap(), @r#"
        {
          "Cmd": [
            "agent",
            "--home",
            "/opt/pgdock"
          ],
          "HostConfig": {
            "Binds": [
              "/opt/pgdock:/opt/pgdock"
            ],
            "CapAdd": [],
            "CapDrop": [
              "ALL"
            ],
            "LogConfig": {
              "Config": {
                "max-file": "5",
                "max-size": "10m"
              },
              "Type": "json-file"
            },
            "NetworkMode": "host",
            "RestartPolicy": {
              "Name": "unless-stopped"
            },
            "SecurityOpt": [
              "no-new-privileges"
            ],
            "ShmSize": 268435456
          },
          "Image": "pgdock:17",
          "Labels": {
            "org.pgdock.cluster": "main",
            "org.pgdock.node": "n1",
            "org.pgdock.spec": "5dbfeff17e159095"
          },
          "StopSignal": "SIGTERM",
          "StopTimeout": 180,
          "User": "5432:5432"
        }
        "#);
        let own = settings("volume = \"v1\"\n[docker]\nnetwork = \"inner\"\nimage = \"registry:5000/pgdock:17\"\n");
        let own = NodeContainer::of(&own, &NodeName::new("n1").unwrap()).unwrap();
        insta::assert_snapshot!(own.compose(), @r#"
        services:
          "pgdock-n1":
            container_name: "pgdock-n1"
            image: "registry:5000/pgdock:17"
            command: ["agent", "--home", "/opt/pgdock"]
            user: "5432:5432"
            restart: unless-stopped
            stop_signal: SIGTERM
            stop_grace_period: 180s
            shm_size: 268435456
            cap_drop: ["ALL"]
            security_opt: ["no-new-privileges"]
            logging:
              driver: json-file
              options:
                max-size: "10m"
                max-file: "5"
            volumes:
              - "v1:/opt/pgdock"
            labels:
              "org.pgdock.cluster": "main"
              "org.pgdock.node": "n1"
              "org.pgdock.spec": "9efaef69b1f269b6"
            hostname: "n1"
            networks:
              "inner":
                ipv4_address: "10.0.0.1"
        networks:
          "inner":
            external: true
        volumes:
          "v1":
            name: "v1"
        "#);
        assert_ne!(own.spec(), host.spec());
    }
}
