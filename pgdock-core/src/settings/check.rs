//! What the sections of `cluster.toml` demand of each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::duration::display;
use super::section::{Reader, Section};
use super::{FailoverIpSettings, Reach, Settings, docker, failover_ip};
use crate::backup_sink::BackupUrl;
use crate::postgres::reserved;
use crate::witness::WitnessUrl;
use crate::witness::record::Durability;

const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const TTL_MIN: Duration = Duration::from_secs(2);
const BEAT_MIN: Duration = Duration::from_millis(50);
const BUDGET_MIN: Duration = Duration::from_secs(1);

pub(super) fn check(settings: &Settings, reader: &Reader) {
    times(settings, reader);
    durability(settings, reader);
    nodes(settings, reader);
    addresses(settings, reader);
    failover_ip::fit(settings.failover_ip.as_ref(), settings.postgres.listen, &settings.nodes, reader);
    witness(settings, reader);
    backup(settings, reader);
    archiving(settings, reader);
    reach(settings, reader);
}

/// No two nodes are one machine, or one container.
fn reach(settings: &Settings, reader: &Reader) {
    if reader.is_faulty(&["nodes", "docker", "ssh", "cluster"]) {
        return;
    }
    let mut machines = BTreeMap::new();
    let mut containers = Vec::new();
    for (name, node) in &settings.nodes {
        match &node.reach {
            Reach::Local => {}
            Reach::Ssh(target) => {
                if let Some(other) = machines.insert((&target.host, target.port), name) {
                    reader.fault(
                        &format!("nodes.{name}.ssh"),
                        "a machine of its own",
                        format!("{}, that of {other}", target.host),
                        "change it: with executor = \"ssh\" there is one node a machine",
                    );
                }
            }
            Reach::Docker(container) => containers.push((name, container)),
        }
    }
    docker::check(&containers, |key, expected, found| {
        reader.fault(key, expected, found, "set it in the node's section: both are on the same engine");
    });
    if let (WitnessUrl::File(_), true) = (&settings.witness.url, settings.nodes.len() > 1)
        && settings.cluster.executor != super::ExecutorKind::Local
    {
        reader.fault(
            "witness.url",
            "a store that all nodes reach",
            "a file, which each node would have for itself",
            "name a bucket, etcd, or a PostgreSQL outside the cluster: docs/witness.md",
        );
    }
}

fn times(settings: &Settings, reader: &Reader) {
    let failover = &settings.failover;
    let least = |key: &str, value: Duration, min: Duration| {
        if !reader.is_faulty(&[key]) && value < min {
            reader.fault(key, format!("at least {}", display(min)), display(value), "raise it");
        }
    };
    least("failover.heartbeat", failover.heartbeat, HEARTBEAT_MIN);
    least("failover.ttl", failover.ttl, TTL_MIN);
    least("failover.stop_budget", failover.stop_budget, BUDGET_MIN);
    least("failover.rejoin_budget", failover.rejoin_budget, BUDGET_MIN);
    least("agent.beat", settings.agent.beat, BEAT_MIN);
    if let Some(timeout) = settings.failover_ip.as_ref().and_then(FailoverIpSettings::timeout) {
        least("failover_ip.timeout", timeout, BUDGET_MIN);
    }
    // Two renewals may get lost before the right runs out.
    let three = failover.heartbeat.saturating_mul(3);
    if !reader.is_faulty(&["failover.ttl", "failover.heartbeat"]) && failover.ttl < three {
        reader.fault(
            "failover.ttl",
            format!("at least three times failover.heartbeat, {}", display(three)),
            display(failover.ttl),
            "raise it, or lower failover.heartbeat",
        );
    }
    // Five silent beats make a suspicion, which must come before the right runs out.
    let five = settings.agent.beat.saturating_mul(5);
    if !reader.is_faulty(&["failover.ttl", "agent.beat"]) && five >= failover.ttl {
        reader.fault(
            "agent.beat",
            format!("less than a fifth of failover.ttl, {}", display(failover.ttl / 5)),
            display(settings.agent.beat),
            "lower it, or raise failover.ttl",
        );
    }
}

fn durability(settings: &Settings, reader: &Reader) {
    acks(settings, reader);
    if !settings.failover.strict || reader.is_faulty(&["failover.strict", "failover.durability", "nodes"]) {
        return;
    }
    if settings.failover.durability == Durability::Async {
        reader.fault(
            "failover.strict",
            "false, as durability is \"async\"",
            "true",
            "remove it, or set durability = \"sync\" or \"quorum\"",
        );
    } else if settings.nodes.len() == 1 {
        reader.fault(
            "failover.strict",
            "at least two nodes",
            "one, which could never acknowledge a write",
            "add a node, or remove strict",
        );
    }
}

/// How many standbys hold each commit, against what there is.
fn acks(settings: &Settings, reader: &Reader) {
    let (durability, acks) = (settings.failover.durability, settings.failover.acks);
    if reader.is_faulty(&["failover.acks", "failover.durability", "nodes"]) {
        return;
    }
    let remove = "remove it, or set durability = \"quorum\"";
    match durability {
        Durability::Async if acks > 0 => {
            reader.fault("failover.acks", "nothing, as durability is \"async\"", acks.to_string(), remove);
        }
        Durability::Sync if acks > 1 => {
            let expected = "1, as durability is \"sync\": one standby guards commits";
            reader.fault("failover.acks", expected, acks.to_string(), remove);
        }
        Durability::Quorum => {
            // Who may not lead guards nothing, and one of those who may is the primary.
            let eligible = settings.nodes.values().filter(|node| node.failover).count();
            let standbys = eligible.saturating_sub(1);
            if standbys == 0 {
                let expected = "two nodes at least that may become primary, as durability is \"quorum\"";
                reader.fault("nodes", expected, eligible.to_string(), "add a node, or remove failover = false");
            } else if acks as usize > standbys {
                reader.fault(
                    "failover.acks",
                    format!("at most {standbys}, the number of standbys that may guard commits"),
                    acks.to_string(),
                    "lower it, or add a node that may become primary",
                );
            }
        }
        Durability::Async | Durability::Sync => {}
    }
}

fn nodes(settings: &Settings, reader: &Reader) {
    if reader.is_faulty(&["nodes"]) {
        return;
    }
    if settings.nodes.is_empty() {
        reader.fault("nodes", "at least one node", "none", "add [nodes.n1] with its address");
    } else if settings.nodes.values().all(|node| !node.failover) {
        reader.fault("nodes", "a node that may become primary", "none", "remove failover = false from one of them");
    }
    let mut slots = BTreeMap::new();
    for name in settings.nodes.keys() {
        if let Some(other) = slots.insert(name.slot(), name) {
            reader.fault(
                &format!("nodes.{name}"),
                "names that differ in more than - and _",
                format!("`{other}` and `{name}`"),
                "rename one of them: both would have the same replication slot",
            );
        }
    }
}

/// No two servers may share an address and port, and the failover IP is no node's own address.
fn addresses(settings: &Settings, reader: &Reader) {
    let mut taken: BTreeMap<(String, u16), String> = BTreeMap::new();
    for (name, node) in &settings.nodes {
        let path = format!("nodes.{name}");
        if reader.is_faulty(&[&path, "postgres.port", "agent.port"]) {
            continue;
        }
        for (key, what, port) in
            [("postgres_port", "PostgreSQL", node.postgres_port), ("agent_port", "the agent", node.agent_port)]
        {
            let place = (canonical(&node.address), port);
            let this = format!("{what} of {name}");
            if let Some(other) = taken.get(&place) {
                let own = format!("{path}.{key}");
                let key = if reader.has(&own) { own } else { format!("{path}.address") };
                reader.fault(
                    &key,
                    "an address and port of its own",
                    format!("{}:{port} for {this} and for {other}", node.address),
                    "change the address, or set postgres_port and agent_port in the node's section",
                );
            } else {
                taken.insert(place, this);
            }
        }
    }
    if let Some(address) = settings.failover_ip.as_ref().map(FailoverIpSettings::address)
        && !reader.is_faulty(&["failover_ip.address"])
        && let Some((name, _)) = settings.nodes.iter().find(|(_, n)| canonical(&n.address) == canonical(&address))
    {
        reader.fault(
            "failover_ip.address",
            "an address that can move",
            format!("the own address of {name}"),
            "write the address that follows the primary",
        );
    }
}

/// A store on a member goes down with that member: who leads could not be asked when it matters.
fn witness(settings: &Settings, reader: &Reader) {
    if reader.is_faulty(&["witness", "nodes"]) {
        return;
    }
    let (key, host) = match &settings.witness.url {
        WitnessUrl::Postgres { host, .. } => ("witness.url", host.clone()),
        WitnessUrl::Bucket { .. } => {
            let uri = settings.witness.store.endpoint.as_ref().and_then(|e| e.parse::<http::Uri>().ok());
            let Some(host) = uri.as_ref().and_then(http::Uri::host) else { return };
            ("witness.endpoint", host.trim_matches(['[', ']']).to_owned())
        }
        // A member of etcd may be on each node, where there are three or more.
        _ => return,
    };
    if let Some((name, _)) = settings.nodes.iter().find(|(_, n)| canonical(&n.address) == canonical(&host)) {
        reader.fault(
            key,
            "a store that is on none of the nodes",
            format!("the address of {name}"),
            "use one elsewhere: with its node the cluster would lose its arbiter, too",
        );
    }
}

/// With `[backup]` it is pgdock that archives WAL.
fn archiving(settings: &Settings, reader: &Reader) {
    if settings.backup.is_none() {
        return;
    }
    let of_nodes = settings.nodes.values().flat_map(|node| node.settings.keys());
    let names: std::collections::BTreeSet<_> = settings.postgres.settings.keys().chain(of_nodes).collect();
    for name in names {
        if let Some(refusal) = reserved::archiving(name) {
            let key = format!("postgres.settings.{name}");
            reader.fault(&key, refusal.expected, format!("a line for {name}"), &refusal.remedy);
        }
    }
}

/// A folder of backups that each machine has for itself is no one place: half of the WAL would be in each.
fn backup(settings: &Settings, reader: &Reader) {
    let Some(backup) = &settings.backup else { return };
    if reader.is_faulty(&["backup.url", "nodes", "cluster"]) || settings.cluster.executor == super::ExecutorKind::Local
    {
        return;
    }
    if let BackupUrl::File(path) = &backup.url
        && path.starts_with(&settings.base)
        && settings.nodes.len() > 1
    {
        reader.fault(
            "backup.url",
            "a store that all nodes reach",
            "a folder that each of them has for itself",
            "name a bucket, or file: with the absolute path of a folder that is mounted on all of them",
        );
    }
}

/// One spelling for each address.
fn canonical(address: &str) -> String {
    address.parse::<IpAddr>().map_or_else(|_| address.to_ascii_lowercase(), |ip| ip.to_canonical().to_string())
}

/// Judges the program of `[failover_ip]`.
pub(super) fn script(section: &Section<'_>, path: &Path) {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(e) => {
            section.fault(
                "script",
                "a program",
                format!("{shown} ({e})"),
                "make it, or correct the path; `pgdock init` makes an example",
            );
        }
        Ok(meta) if !meta.is_file() => {
            section.fault("script", "a program", format!("{shown}, which is no file"), "correct the path");
        }
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            section.fault(
                "script",
                "an executable file",
                format!("{shown}, which is not"),
                format!("chmod +x {shown}"),
            );
        }
        Ok(_) => {}
    }
}
