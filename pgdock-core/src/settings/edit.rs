//! [`Edit`]: changes of `cluster.toml` that keep what a person wrote around them, comments included.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, value};

use super::fault::Faults;
use super::parse::{Files, parse};
use super::{NodeSettings, Settings};
use crate::durable::Staged;
use crate::{Error, NodeName, Result};

/// A node that is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// `address`
    pub address: String,
    /// `priority`, where it is not the default.
    pub priority: Option<u32>,
    /// `failover`: whether it may become primary.
    pub failover: bool,
    /// `postgres_port`, where it is another than that of the others.
    pub postgres_port: Option<u16>,
    /// `agent_port`, likewise.
    pub agent_port: Option<u16>,
    /// `volume`: what its container keeps its things in.
    pub volume: Option<String>,
}

impl NewNode {
    /// Whether a node is there that is just this one.
    #[must_use]
    pub fn is(&self, node: &NodeSettings) -> bool {
        self.address == node.address
            && self.failover == node.failover
            && self.priority.is_none_or(|priority| priority == node.priority)
            && self.postgres_port.is_none_or(|port| port == node.postgres_port)
            && self.agent_port.is_none_or(|port| port == node.agent_port)
    }
}

/// A change of `cluster.toml` that is not written yet.
#[derive(Clone, Debug)]
pub struct Edit {
    file: PathBuf,
    text: String,
    settings: Settings,
}

impl Edit {
    /// Adds a section for a node, behind those that are there.
    ///
    /// # Errors
    /// `Conflict` when there is a node of this name; `Invalid` when the settings would have faults.
    pub fn add_node(settings: &Settings, name: &NodeName, node: &NewNode) -> Result<Self> {
        if settings.nodes.contains_key(name) {
            return Err(Error::conflict(format!("there is another node of this name. node={name}"))
                .hint("choose another name, or `pgdock remove` that one first"));
        }
        Self::change(&settings.dir, |document| {
            let mut section = Table::new();
            section["address"] = value(&node.address);
            if let Some(priority) = node.priority {
                section["priority"] = value(i64::from(priority));
            }
            if !node.failover {
                section["failover"] = value(false);
            }
            if let Some(port) = node.postgres_port {
                section["postgres_port"] = value(i64::from(port));
            }
            if let Some(port) = node.agent_port {
                section["agent_port"] = value(i64::from(port));
            }
            if let Some(volume) = &node.volume {
                section["volume"] = value(volume);
            }
            section.decor_mut().set_prefix("\n");
            nodes(document)?.insert(name.as_str(), Item::Table(section));
            Ok(())
        })
    }

    /// Takes the section of a node out.
    ///
    /// # Errors
    /// `Invalid` when the settings would have faults without it.
    pub fn remove_node(settings: &Settings, name: &NodeName) -> Result<Self> {
        settings.node(name)?;
        Self::change(&settings.dir, |document| {
            nodes(document)?.remove(name.as_str());
            Ok(())
        })
    }

    /// The settings as they will be.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Writes it, in one step.
    ///
    /// # Errors
    /// `Internal` when the file cannot be written: then it is as it was.
    pub fn write(self) -> Result<Settings> {
        let write = || {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&self.file)?.permissions().mode() & 0o777;
            let staged = Staged::create(&self.file, mode)?;
            staged.file().write_all(self.text.as_bytes())?;
            staged.replace().map_err(|e| e.source)
        };
        write()
            .map_err(|e| Error::internal(format!("cannot write a file. path={}", self.file.display())).because(e))?;
        Ok(self.settings)
    }

    fn change(dir: &Path, change: impl FnOnce(&mut DocumentMut) -> Result<()>) -> Result<Self> {
        let file = dir.join("cluster.toml");
        let text = std::fs::read_to_string(&file)
            .map_err(|e| Error::invalid(format!("this is not readable. file={}", file.display())).because(e))?;
        let mut document: DocumentMut =
            text.parse().map_err(|e| Error::invalid(format!("this is no TOML. file={}", file.display())).because(e))?;
        change(&mut document)?;
        let text = document.to_string();
        let settings = parse(&text, dir, Files::Checked).map_err(Faults::into_error)?;
        Ok(Self { file, text, settings })
    }
}

fn nodes(document: &mut DocumentMut) -> Result<&mut Table> {
    document.get_mut("nodes").and_then(Item::as_table_mut).ok_or_else(|| {
        Error::invalid("the nodes are not written as sections")
            .hint("write each as [nodes.NAME] in cluster.toml, or change it by hand")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# ours\n[cluster]\nname = \"shop\" # its name\n\n[nodes.n1]\naddress = \"127.0.0.2\"\n\n\
                        # in the cellar\n[nodes.n2]\naddress = \"127.0.0.3\" # old\n\n[agent]\nport = 7432 # ours\n";

    fn settings(dir: &Path) -> Settings {
        std::fs::write(dir.join("cluster.toml"), TEXT).unwrap();
        Settings::from_path(dir).unwrap()
    }

    fn node(address: &str) -> NewNode {
        let (priority, postgres_port, agent_port, volume) = (Some(50), None, None, None);
        NewNode { address: address.into(), priority, failover: false, postgres_port, agent_port, volume }
    }

    #[test]
    fn a_node_comes_and_goes_and_comments_stay() {
        let dir = tempfile::tempdir().unwrap();
        let before = settings(dir.path());
        let n3 = NodeName::new("n3").unwrap();
        let after = Edit::add_node(&before, &n3, &node("127.0.0.4")).unwrap().write().unwrap();
        assert!(node("127.0.0.4").is(after.node(&n3).unwrap()) && !node("127.0.0.5").is(after.node(&n3).unwrap()));
        let text = std::fs::read_to_string(dir.path().join("cluster.toml")).unwrap();
        for part in ["# ours\n[cluster]", "# its name", "# in the cellar\n[nodes.n2]", "# old", "port = 7432 # ours"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(Edit::add_node(&after, &n3, &node("127.0.0.9")).unwrap_err().kind(), crate::ErrorKind::Conflict);
        let back = Edit::remove_node(&after, &n3).unwrap().write().unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("cluster.toml")).unwrap(), TEXT);
        assert_eq!(back, before);
    }

    #[test]
    fn what_would_be_wrong_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let before = settings(dir.path());
        let n3 = NodeName::new("n3").unwrap();
        assert!(Edit::add_node(&before, &n3, &node("127.0.0.3")).is_err(), "two at one address");
        assert!(Edit::add_node(&before, &n3, &node("10.0.0.999")).is_err());
        assert!(Edit::remove_node(&before, &n3).is_err());
        assert_eq!(std::fs::read_to_string(dir.path().join("cluster.toml")).unwrap(), TEXT);
    }
}
