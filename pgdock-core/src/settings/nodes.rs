//! `[nodes.NAME]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::docker::{self, DockerSettings, EngineUrl};
use super::section::{Reader, Section, join};
use super::ssh::{self, SshSettings};
use super::{ClusterSettings, ExecutorKind, NodeSettings, Reach, failover_ip};
use crate::NodeName;

/// What counts where a node says nothing else.
pub(super) struct Usual<'a> {
    pub(super) cluster: &'a ClusterSettings,
    pub(super) postgres_port: u16,
    pub(super) agent_port: u16,
    pub(super) ssh: &'a SshSettings,
    pub(super) docker: &'a (DockerSettings, Option<EngineUrl>),
}

pub(super) fn read(reader: &Reader, section: Section<'_>, usual: &Usual<'_>) -> BTreeMap<NodeName, NodeSettings> {
    let Usual { cluster, ssh, .. } = usual;
    let mut nodes = BTreeMap::new();
    for (name, item) in section.entries() {
        let path = join("nodes", name);
        let node = Section::of(reader, path.clone(), Some(item));
        let valid = NodeName::new(name);
        if valid.is_err() {
            reader.fault(
                &path,
                "a node's name: 1 to 32 characters of a-z, 0-9, - and _, the first one a letter",
                format!("{name:?}"),
                "rename the section",
            );
        }
        if !node.exists() {
            continue;
        }
        let address = node.required("address", "10.0.0.1");
        check_address(&node, address);
        let settings = NodeSettings {
            address: address.to_owned(),
            priority: node.integer("priority", 0..=1_000_000).unwrap_or(100),
            failover: node.boolean("failover", true),
            postgres_port: node.port("postgres_port").unwrap_or(usual.postgres_port),
            agent_port: node.port("agent_port").unwrap_or(usual.agent_port),
            failover_ip: failover_ip::read_node(&node),
            home: match cluster.executor {
                ExecutorKind::Local => cluster.root.join(name),
                ExecutorKind::Ssh | ExecutorKind::Docker => cluster.root.clone(),
            },
            reach: {
                // All are read, whichever counts: a slip is one all the same.
                let target = ssh::target(&node, ssh, address);
                let container = docker::container(&node, name, usual.docker, &target, &cluster.root);
                match cluster.executor {
                    ExecutorKind::Local => Reach::Local,
                    ExecutorKind::Ssh => Reach::Ssh(target),
                    ExecutorKind::Docker => Reach::Docker(container),
                }
            },
            settings: BTreeMap::new(),
            hba: Vec::new(),
        };
        node.end();
        if let Ok(name) = valid {
            nodes.insert(name, settings);
        }
    }
    nodes
}

/// Judges the key `address` of a section.
pub(super) fn check_address(section: &Section<'_>, address: &str) {
    let fault = |remedy: &str| {
        section.fault("address", "an IP address or a host name, without port", format!("{address:?}"), remedy);
    };
    if address.is_empty() {
        return;
    }
    match address.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => fault("write the address at which the others reach it"),
        Ok(_) => {}
        Err(_) if address.contains(['[', ']']) => fault("write an IPv6 address without brackets"),
        Err(_) if address.contains(':') => fault("write the port as postgres_port or agent_port"),
        Err(_) if !is_host_name(address) => fault("correct it"),
        Err(_) => {}
    }
}

/// Whether this is a host name or an IPv4 address.
pub(crate) fn is_host(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok() || is_host_name(text)
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What looks like an IPv4 address and is none, such as 10.0.0.256, is a slip and no name.
    let numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    name.len() <= 253 && !numeric && name.split('.').all(label)
}
