//! `cluster.toml` to [`Settings`], with every fault reported at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::Document;

use super::fault::{Fault, Faults};
use super::section::{Reader, Section, line_of};
use super::{
    AgentSettings, ClusterSettings, ExecutorKind, FailoverSettings, Place, Settings, WitnessSettings, backup, check,
    docker, failover_ip, nodes, overlay, postgres, registry, ssh, witness,
};
use crate::witness::record::Durability;
use crate::{Error, Result};

/// More standbys than this never guard a commit.
const ACKS_MAX: u32 = 64;

/// Whether the files that settings name are looked at, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files<'a> {
    /// They must be there and fit.
    Checked,
    /// They are about to be made.
    Ignored,
    /// They are here, by their path, rather than on a disk. The secrets are not among them.
    Given(&'a BTreeMap<String, Vec<u8>>),
}

impl Settings {
    /// Reads `cluster.toml`. The path is the file, or the folder that it lies in.
    ///
    /// # Errors
    /// `Invalid` where the file cannot be read or is called otherwise; and, with [`Faults`] as the source and
    /// all of them in its text, where anything in it is wrong.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = absolute(path.as_ref())?;
        let dir = Self::dir_of(&path);
        let file = dir.join("cluster.toml");
        if path != dir && path != file && !path.exists() {
            return Err(Error::invalid(format!("there is no such folder or file. path={}", path.display()))
                .hint("`pgdock init` makes a folder with a cluster.toml"));
        }
        if path != dir && path != file {
            return Err(Error::invalid(format!(
                "settings live in a file called cluster.toml. found={}",
                path.display()
            ))
            .hint("name that file, or the folder that it lies in"));
        }
        let text = std::fs::read_to_string(&file).map_err(|e| {
            let hint = match e.kind() {
                std::io::ErrorKind::NotFound => "`pgdock init` makes one",
                _ => "check its owner and mode; it must be text in UTF-8",
            };
            Error::invalid(format!("the settings are not readable. file={}", file.display())).because(e).hint(hint)
        })?;
        parse_at(&text, &Place::of(&dir)?, Files::Checked).map_err(Faults::into_error)
    }

    /// Reads the settings of a bundle that is installed on the machine of the operator's folder `folder`: secrets, the
    /// nodes' root and a witness that is a file are still looked for there.
    ///
    /// # Errors
    /// As [`from_path`](Self::from_path).
    pub fn from_bundle_beside(dir: &Path, folder: &Path) -> Result<Self> {
        let (dir, folder) = (absolute(dir)?, absolute(folder)?);
        let file = dir.join("cluster.toml");
        let text = std::fs::read_to_string(&file).map_err(|e| {
            Error::invalid(format!("the settings are not readable. file={}", file.display())).because(e)
        })?;
        parse_at(&text, &Place::beside(&dir, &folder)?, Files::Checked).map_err(Faults::into_error)
    }

    /// Reads the text of a `cluster.toml` that belongs to the folder `dir`.
    ///
    /// Files that it names, such as the failover script, must be there.
    ///
    /// # Errors
    /// `Invalid`, with [`Faults`] as the source and all of them in its text.
    pub fn from_toml(text: &str, dir: &Path) -> Result<Self> {
        let dir = absolute(dir)?;
        parse(text, &dir, Files::Checked).map_err(Faults::into_error)
    }
}

/// Reads the text of a `cluster.toml` in an operator's folder.
pub(crate) fn parse(text: &str, dir: &Path, files: Files<'_>) -> Result<Settings, Faults> {
    parse_at(text, &Place::folder(dir), files)
}

/// Reads the text of a `cluster.toml`.
pub(crate) fn parse_at(text: &str, place: &Place, files: Files<'_>) -> Result<Settings, Faults> {
    let file = place.dir.join("cluster.toml");
    let document = Document::parse(text).map_err(|e| {
        let offset = e.span().map_or(0, |span| span.start);
        Faults::new(vec![Fault {
            line: Some(line_of(text, offset)),
            key: String::new(),
            expected: "TOML".to_owned(),
            found: format!("a fault of syntax ({})", e.message().replace('\n', " ")),
            remedy: "correct this line; the rest is checked after that".to_owned(),
            file: file.clone(),
        }])
    })?;
    let reader = Reader::new(&file, &document);
    let root = Section::root(&reader, document.as_table());

    let cluster = cluster(root.section("cluster"), place);
    let agent = agent(root.section("agent"));
    let mut postgres = postgres::read(root.section("postgres"), place);
    // How fast the leader renews depends on the store.
    let (failover_section, witness_section) = (root.section("failover"), root.section("witness"));
    let witness = witness::read(&reader, witness_section, place, &cluster.name, files);
    let failover = failover(failover_section, &witness);
    let backup = backup::read(&reader, root.section("backup"), place, &witness, files);
    let failover_ip = failover_ip::read(&reader, root.section("failover_ip"), place, files);
    let ssh = ssh::read(root.section("ssh"), place);
    let docker = docker::read(root.section("docker"), place, &ssh, postgres.version);
    let usual = nodes::Usual {
        cluster: &cluster,
        postgres_port: postgres.port,
        agent_port: agent.port,
        ssh: &ssh,
        docker: &docker,
    };
    let registry = registry::read(root.section("registry"), place);
    let mut nodes = nodes::read(&reader, root.section("nodes"), &usual);
    root.end();
    overlay::fill(&mut nodes, &postgres, place, &reader, files);
    overlay::first_database(&mut postgres, &nodes, place, &reader, files);
    let bundle = place.bundle.clone().map(|(node, home)| {
        if let Some(own) = nodes.get_mut(&node) {
            own.home = home;
        }
        node
    });

    let (Place { dir, secrets, base, .. }, docker) = (place.clone(), docker.0);
    let settings = Settings {
        dir,
        secrets,
        base,
        bundle,
        cluster,
        postgres,
        failover,
        witness,
        backup,
        failover_ip,
        registry,
        agent,
        ssh,
        docker,
        nodes,
    };
    check::check(&settings, &reader);
    let faults = reader.into_faults();
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

fn cluster(section: Section<'_>, place: &Place) -> ClusterSettings {
    let name = section.required("name", "main");
    // It becomes part of file names and of certificates.
    let fits = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if !name.is_empty() && !fits {
        section.fault(
            "name",
            "1 to 63 characters of a-z, 0-9, - and _, the first one a letter",
            format!("{name:?}"),
            "choose another name",
        );
    }
    let executors = [ExecutorKind::Local, ExecutorKind::Ssh, ExecutorKind::Docker].map(|kind| (kind.as_str(), kind));
    let executor = section.choice("executor", &executors, ExecutorKind::Local);
    let root = section.text("root");
    let root = if executor == ExecutorKind::Local {
        place.outside(root.unwrap_or("var"))
    } else {
        let root = root.unwrap_or("/opt/pgdock");
        // It is a folder of other machines, which know nothing of this one's. The colon divides the parts of a mount.
        let fits = root.starts_with('/') && root.trim_end_matches('/').len() > 1 && !root.contains([':', '\n', ',']);
        if !fits {
            let remedy = "write it as in root = \"/opt/pgdock\"";
            section.fault("root", "an absolute path on the nodes' machines", format!("{root:?}"), remedy);
        }
        place.outside(root)
    };
    section.end();
    ClusterSettings { name: name.to_owned(), executor, root }
}

fn agent(section: Section<'_>) -> AgentSettings {
    let port = section.port("port").unwrap_or(7432);
    let beat = section.duration("beat", Duration::from_millis(200));
    section.end();
    AgentSettings { port, beat }
}

fn failover(section: Section<'_>, witness: &WitnessSettings) -> FailoverSettings {
    let (heartbeat, ttl) = witness.pace();
    let durabilities = [("sync", Durability::Sync), ("quorum", Durability::Quorum), ("async", Durability::Async)];
    let durability = section.choice("durability", &durabilities, Durability::Sync);
    let settings = FailoverSettings {
        durability,
        acks: section.integer("acks", 1..=ACKS_MAX).unwrap_or(u32::from(durability.is_guarded())),
        strict: section.boolean("strict", false),
        heartbeat: section.duration("heartbeat", heartbeat),
        ttl: section.duration("ttl", ttl),
        lag_bytes_max: section.bytes("lag_bytes_max", 16 << 20),
        stop_budget: section.duration("stop_budget", Duration::from_secs(10)),
        rejoin_budget: section.duration("rejoin_budget", Duration::from_secs(600)),
        disk_free_min: section.bytes("disk_free_min", 128 << 20),
    };
    section.end();
    settings
}

/// An absolute path, without asking whether anything is there.
fn absolute(path: &Path) -> Result<PathBuf> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path)
        .map_err(|e| Error::invalid(format!("the path is not usable. path={}", path.display())).because(e))
}
