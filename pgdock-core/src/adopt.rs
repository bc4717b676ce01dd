//! Taking over a cluster that repmgr looks after: what there is, whether pgdock can run it, and the way from one to the other.
//!
//! ```text
//!  Source ──▶ look ──▶ Picture ──▶ judge ──▶ Findings ──▶ folder ──▶ cluster.toml, secrets, adopt.json
//!  (a DSN)   (SQL)    (plain data)  (pure)   (faults, notes)             │
//!                                                                        ▼
//!  primary: roles ─▶ stop ─▶ data directory into the node's home ─▶ order `adopt` ─▶ primary, on its timeline
//!  standby:          stop ─▶ data directory into the node's home ─▶ its agent finds it, and follows
//! ```
//!
//! A PostgreSQL that runs cannot become an agent's: where its socket and its configuration lie, and that it does not start
//! itself anew after a crash, is settled when it starts. So each one is started once more, the primary in place, without a
//! change of its timeline. Its data directory is *moved* into the node's home, within its file system: what started it before,
//! such as a service at boot, finds nothing to start, and there are never two that write.
//!
//! Architecture invariant: whether repmgrd runs anywhere is looked at again right before a PostgreSQL is stopped.

mod folder;
mod hba;
mod judge;
mod look;
mod place;
mod roles;
mod source;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::NodeName;
use crate::cluster::plan::{Plan, Step};

pub use folder::{Around, Ledger, cluster_toml, settings, write};
pub use hba::Rule;
pub use judge::{Becomes, Findings, Member, Wishes, judge};
pub use look::look;
pub use place::{Place, Stands};
pub use roles::make_roles;
pub use source::Source;

/// A cluster as repmgr and its servers describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The role that was logged in as.
    pub user: String,
    /// Whether that is a superuser.
    pub superuser: bool,
    /// Whether there is a superuser of the name `postgres`.
    pub has_postgres: bool,
    /// The databases of users, each with its owner.
    pub databases: Vec<(String, String)>,
    /// The server that was connected to.
    pub server: Server,
    /// What repmgr has registered.
    pub nodes: Vec<Registered>,
}

/// A row of `repmgr.nodes`, and what its server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// `node_id`
    pub id: i32,
    /// `node_name`
    pub name: String,
    /// `type`: `primary`, `standby` or `witness`.
    pub kind: String,
    /// `active`
    pub active: bool,
    /// `priority`; zero keeps it from being promoted.
    pub priority: i32,
    /// The host of its `conninfo`.
    pub host: Option<String>,
    /// The port of its `conninfo`.
    pub port: u16,
    /// `slot_name`: the slot that it streams through.
    pub slot: Option<String>,
    /// What its server says, or why that is not known.
    pub server: Result<Server, String>,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// `server_version_num`
    pub version: u32,
    /// Whether it is in recovery.
    pub in_recovery: bool,
    /// Whether it streams from another server.
    pub streams: bool,
    /// `data_directory`
    pub data_directory: String,
    /// Where its programs lie.
    pub bin_dir: Option<String>,
    /// Whether pages have checksums.
    pub checksums: bool,
    /// What its configuration files say, by name in lower case.
    pub settings: BTreeMap<String, String>,
    /// The lines of its `pg_hba.conf`.
    pub hba: Vec<Rule>,
    /// The process of repmgrd, where one is known to run.
    pub repmgrd: Option<i32>,
}

/// A node that is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// repmgr's name of it.
    pub was: String,
    /// Where its data directory lies until it is taken over.
    pub data_directory: String,
    /// The slot that repmgr made for it.
    pub slot: Option<String>,
}

/// The nodes by pgdock's names.
pub type Members = BTreeMap<NodeName, Taken>;

/// What is still to be done: `taken` are the nodes whose data directories are in their homes already, and `founded` tells
/// whether there is a document.
#[must_use]
pub fn plan(ledger: &Ledger, taken: &[NodeName], founded: bool) -> Plan {
    let mut steps = Vec::new();
    let start = |node: &NodeName| Step::StartAgent { node: node.clone() };
    let take = |node: &NodeName| {
        let from = ledger.members.get(node).map(|was| was.data_directory.clone()).unwrap_or_default();
        (!taken.contains(node)).then(|| Step::TakeData { node: node.clone(), from })
    };
    if ledger.done {
        return Plan::default();
    }
    let first = &ledger.primary;
    if !founded {
        if !taken.contains(first) {
            steps.push(Step::MakeRoles { node: first.clone() });
        }
        steps.push(start(first));
        steps.extend(take(first));
        steps.push(Step::Adopt { node: first.clone() });
    }
    for node in ledger.members.keys().filter(|node| *node != first) {
        steps.extend(take(node));
        steps.push(start(node));
    }
    steps.push(Step::AwaitStreaming { nodes: ledger.members.keys().cloned().collect() });
    let slots: Vec<_> = ledger.members.values().filter_map(|was| was.slot.clone()).collect();
    if !slots.is_empty() {
        steps.push(Step::DropSlots { slots });
    }
    Plan { steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_takeover_goes_on_with_what_is_left() {
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let was = |name: &str| Taken {
            was: name.into(),
            data_directory: format!("/{name}"),
            slot: Some(format!("s_{name}")),
        };
        let members = [(a.clone(), was("a")), (b.clone(), was("b"))].into();
        let ledger = Ledger { system_identifier: 7, primary: b.clone(), members, roles: false, done: false };
        let words = |plan: Plan| plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let whole = words(plan(&ledger, &[], false));
        let at = |part: &str| whole.find(part).unwrap_or_else(|| panic!("{part}: {whole}"));
        assert!(at("roles on b") < at("stop PostgreSQL on b") && at("stop PostgreSQL on b") < at("witness document"));
        assert!(at("witness document") < at("stop PostgreSQL on a") && at("stop PostgreSQL on a") < at("agent of a"));
        let rest = words(plan(&ledger, &[b], true));
        assert!(
            !rest.contains("document") && rest.contains("move /a into") && rest.contains("drop the slots s_a, s_b")
        );
        assert!(plan(&Ledger { done: true, ..ledger }, &[a], true).steps.is_empty());
    }
}
