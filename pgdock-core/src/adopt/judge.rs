//! [`judge`]: whether pgdock can run what there is, and what it becomes.
//!
//! Architecture invariant: a pure function of the picture and of what the operator wishes. All faults are told at once.

use std::collections::BTreeMap;

use super::{Members, Picture, Registered, Server, Taken};
use crate::NodeName;
use crate::postgres::reserved;
use crate::postgres::version::{NEWEST, OLDEST};

/// What the operator wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The application's database, where there are several.
    pub database: Option<String>,
    /// The role that the application logs in as; else the owner of the database.
    pub owner: Option<String>,
    /// Settings that are not taken over.
    pub drop_settings: Vec<String>,
    /// Whether lines of `pg_hba.conf` with `trust` are left out.
    pub drop_trust: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is in the way, each with what to do.
    pub faults: Vec<(String, String)>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What it becomes. Complete where there are no faults.
    pub becomes: Becomes,
}

/// What the cluster becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Becomes {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// The major version.
    pub version: u32,
    /// Where the programs lie.
    pub bin_dir: Option<String>,
    /// The nodes, the primary first.
    pub nodes: Vec<Member>,
    /// The application's database.
    pub database: String,
    /// The role that the application logs in as.
    pub owner: String,
    /// Settings of all nodes.
    pub settings: BTreeMap<String, String>,
    /// Lines for `pg_hba.conf`.
    pub hba: Vec<String>,
}

/// A node of the new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub address: String,
    /// Where its PostgreSQL listens.
    pub port: u16,
    /// Among equals the highest becomes primary.
    pub priority: u32,
    /// Whether it may become primary.
    pub failover: bool,
    /// What it was.
    pub taken: Taken,
    /// Settings in which it differs from the primary.
    pub settings: BTreeMap<String, String>,
}

impl Becomes {
    /// The nodes by name.
    #[must_use]
    pub fn members(&self) -> Members {
        self.nodes.iter().map(|node| (node.name.clone(), node.taken.clone())).collect()
    }
}

/// Settings that describe where another program keeps its things.
const OF_THE_OLD_PLACE: [&str; 2] = ["stats_temp_directory", "promote_trigger_file"];

/// Judges what there is.
#[must_use]
pub fn judge(picture: &Picture, wishes: &Wishes) -> Findings {
    let mut found = Findings::default();
    found.becomes.system_identifier = picture.server.system_identifier;
    found.becomes.version = picture.server.version / 10_000;
    found.becomes.bin_dir.clone_from(&picture.server.bin_dir);
    version(picture, &mut found);
    let primary = primary(picture, &mut found);
    nodes(picture, primary, &mut found);
    roles(picture, wishes, &mut found);
    let (settings, faults, notes) = settings(&picture.server, wishes, "");
    found.becomes.settings = settings;
    found.faults.extend(faults);
    found.notes.extend(notes);
    differences(picture, wishes, &mut found);
    hba(&picture.server, wishes, &mut found);
    if !picture.server.checksums && picture.server.settings.get("wal_log_hints").is_none_or(|v| reserved::is_off(v)) {
        found.notes.push(
            "neither checksums nor wal_log_hints are on: wal_log_hints is from the restart on, so that a node can be rewound".into(),
        );
    }
    found
}

impl Findings {
    fn fault(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push((what.into(), remedy.into()));
    }
}

fn version(picture: &Picture, found: &mut Findings) {
    let major = found.becomes.version;
    if !(OLDEST..=NEWEST).contains(&major) {
        found.fault(
            format!("this major version of PostgreSQL is not run. version={major}, known={OLDEST}..{NEWEST}"),
            "upgrade the cluster first",
        );
    }
    if picture.server.in_recovery {
        found.fault(
            "the server that was connected to is a standby",
            "name the primary in the connection string: `repmgr cluster show` tells which one it is",
        );
    }
}

/// The node that is primary, by repmgr and by itself.
fn primary<'a>(picture: &'a Picture, found: &mut Findings) -> Option<&'a Registered> {
    let writes = |node: &&Registered| node.server.as_ref().is_ok_and(|server| !server.in_recovery);
    let writing: Vec<_> = picture.nodes.iter().filter(writes).collect();
    let names = |nodes: &[&Registered]| nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(",");
    match writing.as_slice() {
        [one] if one.kind == "primary" && one.active => Some(*one),
        [one] => {
            found.fault(
                format!("repmgr does not take the primary for one. node={}, type={}", one.name, one.kind),
                "`repmgr primary register --force` on that node",
            );
            Some(*one)
        }
        [] => {
            found.fault(
                "none of the nodes that repmgr knows is a primary that answers at its conninfo",
                "`repmgr cluster show` tells why; correct conninfo, or let this machine in",
            );
            None
        }
        several => {
            found.fault(
                format!("there is more than one primary. nodes={}", names(several)),
                "find out which one is right, and `repmgr node rejoin --force-rewind` the others",
            );
            None
        }
    }
}

fn nodes(picture: &Picture, primary: Option<&Registered>, found: &mut Findings) {
    let mut ordered: Vec<&Registered> = picture.nodes.iter().collect();
    ordered.sort_by_key(|node| primary.is_none_or(|primary| primary.id != node.id));
    for node in ordered {
        if node.kind == "witness" {
            found
                .notes
                .push(format!("{} is a witness of repmgr, and is left out: [witness] takes its part", node.name));
            continue;
        }
        let server = match &node.server {
            Ok(server) => server,
            Err(why) => {
                found.fault(
                    format!("{} does not answer: {why}", node.name),
                    "bring it back; or, where it is gone for good, `repmgr standby unregister`",
                );
                continue;
            }
        };
        let is_primary = primary.is_some_and(|primary| primary.id == node.id);
        stands(node, server, picture, is_primary, found);
        let (Some(name), Some(address)) = (name(node, found), node.host.clone()) else { continue };
        if found.becomes.nodes.iter().any(|other| other.name == name) {
            found.fault(
                format!("two nodes would have one name. name={name}, node={}", node.name),
                "give one another node_name in repmgr.conf, and register it anew with --force",
            );
            continue;
        }
        found.becomes.nodes.push(Member {
            name,
            address,
            port: node.port,
            priority: u32::try_from(node.priority).unwrap_or_default().min(1_000_000),
            // The primary may lead whatever its priority is: it does.
            failover: node.priority > 0 || is_primary,
            taken: Taken {
                was: node.name.clone(),
                data_directory: server.data_directory.clone(),
                slot: node.slot.clone(),
            },
            settings: BTreeMap::new(),
        });
    }
}

/// What each server must be.
fn stands(node: &Registered, server: &Server, picture: &Picture, is_primary: bool, found: &mut Findings) {
    if server.system_identifier != picture.server.system_identifier {
        found.fault(
            format!(
                "{} is of another cluster. system_identifier={}, expected={}",
                node.name, server.system_identifier, picture.server.system_identifier
            ),
            "`repmgr standby unregister` it, or clone it from this primary",
        );
    } else if server.version / 10_000 != picture.server.version / 10_000 {
        found.fault(
            format!("{} is of another major version. version={}", node.name, server.version / 10_000),
            "upgrade it",
        );
    } else if !is_primary && server.in_recovery && !server.streams {
        found.fault(format!("{} does not stream", node.name), "`repmgr node check` on it tells why");
    }
    if !node.active {
        found.fault(
            format!("repmgr takes {} for gone: it is not active", node.name),
            format!("`repmgr {} register --force` on it, or unregister it", node.kind),
        );
    }
    if let Some(pid) = server.repmgrd {
        found.fault(
            format!("repmgrd runs on {}: two must not decide about one cluster. pid={pid}", node.name),
            "on each node: `systemctl disable --now repmgrd`, or `repmgr daemon stop`",
        );
    }
}

/// repmgr's name as one of pgdock's.
fn name(node: &Registered, found: &mut Findings) -> Option<NodeName> {
    let plain: String = node
        .name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    match NodeName::new(&plain) {
        Ok(name) => {
            if plain != node.name {
                found.notes.push(format!("{} becomes {plain}", node.name));
            }
            Some(name)
        }
        Err(e) => {
            found.fault(
                format!("the node has a name that cannot be kept. node={}, why={e}", node.name),
                "give it another node_name in repmgr.conf, and register it anew with --force",
            );
            None
        }
    }
}

/// The application's database and role; pgdock's own role for itself.
fn roles(picture: &Picture, wishes: &Wishes, found: &mut Findings) {
    let names: Vec<_> = picture.databases.iter().map(|(name, _)| name.as_str()).collect();
    let chosen = match (&wishes.database, picture.databases.as_slice()) {
        (Some(wanted), all) => all.iter().find(|(name, _)| name == wanted),
        (None, [one]) => Some(one),
        (None, _) => None,
    };
    let Some((database, owner)) = chosen else {
        let known = if names.is_empty() { "none".to_owned() } else { names.join(",") };
        found.fault(
            format!("which database is the application's is not clear. databases={known}"),
            "name it with --database",
        );
        return;
    };
    let owner = wishes.owner.as_ref().unwrap_or(owner);
    if ["postgres", "public", "none"].contains(&owner.as_str()) || owner.starts_with("pg_") || owner == "repmgr" {
        found.fault(
            format!("the database belongs to a role that is no application's. database={database}, owner={owner}"),
            "name the role that the application logs in as with --owner",
        );
    }
    found.becomes.database.clone_from(database);
    found.becomes.owner.clone_from(owner);
    if !picture.has_postgres {
        found.notes.push("the superuser `postgres`, as which agents log in over the socket, is made".into());
    }
}

type Judged = (BTreeMap<String, String>, Vec<(String, String)>, Vec<String>);

/// What a server is set to, without what pgdock sets itself.
fn settings(server: &Server, wishes: &Wishes, of: &str) -> Judged {
    let (mut keep, mut faults, mut notes) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (name, value) in &server.settings {
        if wishes.drop_settings.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
            || OF_THE_OLD_PLACE.contains(&name.as_str())
        {
            continue;
        }
        if name == "shared_preload_libraries" {
            // Without its library repmgrd does not start either.
            let rest: Vec<_> = value.split(',').map(str::trim).filter(|l| !l.is_empty() && *l != "repmgr").collect();
            if !rest.is_empty() {
                keep.insert(name.clone(), rest.join(", "));
            }
            continue;
        }
        let Some(refusal) = reserved::refusal(name, value) else {
            if name == "archive_command" && !value.is_empty() {
                notes.push("archive_command is kept as it is, and run by whoever is primary".into());
            }
            keep.insert(name.clone(), value.clone());
            continue;
        };
        match name.as_str() {
            "synchronous_standby_names" if !value.is_empty() => {
                notes.push("synchronous_standby_names is left to [failover] durability".into());
            }
            "archive_command" | "archive_library" if !value.is_empty() => faults.push((
                format!("{of}{name} would be replaced: what it archives to gets no more WAL"),
                format!("once you have seen to that, --drop-setting {name}"),
            )),
            // pgdock's own value is higher, or stricter about what is written from now on.
            "max_wal_senders" | "max_replication_slots" | "wal_log_hints" | "password_encryption" => {
                notes.push(format!("{name} = {value} is raised to what pgdock needs"));
            }
            _ if refusal.managed => {}
            _ => faults.push((
                format!("{of}{name} = {value}: expected {}", refusal.expected),
                format!("{}; or --drop-setting {name}, and pgdock's own value counts", refusal.remedy),
            )),
        }
    }
    (keep, faults, notes)
}

/// What standbys are set to otherwise than the primary.
fn differences(picture: &Picture, wishes: &Wishes, found: &mut Findings) {
    for node in &picture.nodes {
        let Ok(server) = &node.server else { continue };
        let (own, faults, _) = settings(server, wishes, &format!("{}: ", node.name));
        let common = &found.becomes.settings;
        let differ: BTreeMap<_, _> = own.into_iter().filter(|(name, value)| common.get(name) != Some(value)).collect();
        let Some(member) = found.becomes.nodes.iter_mut().find(|member| member.taken.was == node.name) else {
            continue;
        };
        if !differ.is_empty() {
            let names: Vec<_> = differ.keys().map(String::as_str).collect();
            found.notes.push(format!(
                "{} is set otherwise than the primary, and stays so: {}",
                member.name,
                names.join(", ")
            ));
        }
        member.settings = differ;
        let new = faults.into_iter().filter(|(_, remedy)| !found.faults.iter().any(|(_, known)| known == remedy));
        let new: Vec<_> = new.collect();
        found.faults.extend(new);
    }
}

/// The lines of `pg_hba.conf` that are kept.
fn hba(server: &Server, wishes: &Wishes, found: &mut Findings) {
    for rule in &server.hba {
        if rule.is_for_repmgr() {
            continue;
        }
        let only_postgres_here = rule.kind == "local" && rule.users == ["postgres"] && rule.databases == ["all"];
        if only_postgres_here {
            // pgdock has this line of its own.
            continue;
        }
        if !rule.trusts() {
            found.becomes.hba.push(rule.text());
        } else if !wishes.drop_trust {
            found.fault(
                format!("line {} of pg_hba.conf lets anybody in: {}", rule.line, rule.text()),
                "have it ask for scram-sha-256; or leave such lines out with --drop-trust",
            );
        }
    }
}

#[cfg(test)]
mod tests;
