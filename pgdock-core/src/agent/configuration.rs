//! [`Configuration`]: the bundle that this node runs with: how it is changed while the agent runs, and how the agent goes
//! back to the one before when PostgreSQL does not start with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bundle::Digest;
use crate::bundle::ledger::{Bundles, Entry, How};
use crate::clock::Clock;
use crate::event::{EventKind, EventLog};
use crate::postgres::instance::{Instance, Script, UserConfiguration, gave_up};
use crate::settings::{FailoverIpSettings, NodeSettings, Settings};
use crate::{Error, NodeName, Result};

/// A bundle that an operator wants, and how it is to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) digest: Digest,
    pub(crate) tag: Option<String>,
    pub(crate) how: How,
}

/// What came of a bundle that was switched to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Applied {
    /// PostgreSQL has taken the settings over, but for those that wait.
    pub reloaded: bool,
    /// The settings that wait for a restart of PostgreSQL.
    pub restart: Vec<String>,
    /// Those among them of which a standby must have no less than its primary, and that get less: the primary goes first.
    #[serde(default)]
    pub lowered: Vec<String>,
    /// The same, of those that get more: standbys go first.
    #[serde(default)]
    pub raised: Vec<String>,
    /// The sections of `cluster.toml` that wait for a restart of the agent.
    pub agent: Vec<String>,
}

/// The bundle that this node runs with.
#[derive(Debug)]
pub(crate) struct Configuration {
    node: NodeName,
    bundles: Bundles,
    /// The operator's folder, where that is on this machine.
    folder: Option<PathBuf>,
    /// What the agent began with.
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    events: Arc<EventLog>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    wanted: Option<Wanted>,
    /// The one that counts.
    entry: Option<Entry>,
}

impl Configuration {
    /// What a node has installed. `settings` are those that the agent began with.
    pub(crate) fn open(
        settings: Arc<Settings>,
        node: &NodeName,
        clock: Arc<dyn Clock>,
        events: Arc<EventLog>,
    ) -> Result<Self> {
        let home = &settings.node(node)?.home;
        let bundles = Bundles::of(home);
        // On a machine of its own a bundle finds all that it needs in the home.
        let folder = (settings.base != *home).then(|| settings.base.clone());
        let entry = if settings.bundle.is_some() { bundles.history()?.current().cloned() } else { None };
        let now = Mutex::new(Now { wanted: None, entry });
        Ok(Self { node: node.clone(), bundles, folder, settings, clock, events, now })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be used at the next occasion; nothing where the files are only to be read again.
    pub(crate) fn want(&self, wanted: Option<Wanted>) {
        self.now().wanted = wanted;
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.now().wanted.is_some()
    }

    /// What runs, for people: the tag, or the beginning of the digest.
    pub(crate) fn label(&self) -> Option<String> {
        self.now().entry.as_ref().map(label)
    }

    /// What a person should know.
    pub(crate) fn problem(&self) -> Option<String> {
        let now = self.now();
        now.entry.as_ref().filter(|entry| entry.how == How::Failure).and_then(|entry| entry.note.clone())
    }

    /// The scripts that a new cluster runs once, in their order, and the variables that they get.
    pub(crate) fn scripts(&self) -> Result<(Vec<Script>, BTreeMap<String, String>)> {
        // What counts now, rather than what the agent began with: a script may have been corrected since.
        let installed = self.bundles.current_dir();
        let dir = if installed.join("bundle.json").is_file() { installed } else { self.settings.dir.clone() };
        let mut scripts = Vec::new();
        for folder in ["shared", self.node.as_str()] {
            let at = dir.join(folder).join("initdb");
            let mut names: Vec<_> = match std::fs::read_dir(&at) {
                Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::invalid(format!("this is not readable. dir={}", at.display())).because(e)),
            };
            names.retain(|name| !name.starts_with('.') && (name.ends_with(".sql") || name.ends_with(".sh")));
            names.sort();
            for name in names {
                let text = std::fs::read_to_string(at.join(&name)).map_err(|e| {
                    Error::invalid(format!("a script is not readable as text. file={}", at.join(&name).display()))
                        .because(e)
                })?;
                scripts.push(Script { name: format!("{folder}/initdb/{name}"), text });
            }
        }
        Ok((scripts, self.settings.env(&self.node, "main")?))
    }

    /// Reads a bundle that is installed.
    fn read(&self, dir: &Path) -> Result<Settings> {
        let settings = match &self.folder {
            Some(folder) => Settings::from_bundle_beside(dir, folder)?,
            None => Settings::from_path(dir)?,
        };
        if settings.bundle.as_ref() != Some(&self.node) || settings.cluster.name != self.settings.cluster.name {
            return Err(Error::invalid(format!(
                "this bundle is made for another node or cluster. dir={}",
                dir.display()
            )));
        }
        Ok(settings)
    }

    /// The settings that an agent which begins now would have.
    pub(crate) fn next(&self) -> Result<Settings> {
        let current = self.bundles.current_dir();
        let settings = if current.join("bundle.json").is_file() {
            self.read(&current)?
        } else {
            Settings::from_path(&self.settings.dir)?
        };
        settings.node(&self.node)?;
        Ok(settings)
    }

    /// Uses the bundle that is wanted, if one is: PostgreSQL judges it, then it counts, then it is taken over. Where
    /// PostgreSQL does not run, it counts from its next start on.
    pub(crate) async fn take(&self, instance: &Instance) -> Result<Option<Applied>> {
        let Some(wanted) = self.now().wanted.take() else { return Ok(None) };
        let Wanted { digest, tag, how } = wanted;
        let settings = self.read(&self.bundles.dir_of(&digest))?;
        let user = user_part(settings.node(&self.node)?);
        let (bundles, at, for_commit) = (self.bundles.clone(), self.clock.wall(), digest.clone());
        let commit = move || bundles.switch(&for_commit, tag, how, None, at);
        let reloaded = instance.is_running();
        let restart = if reloaded {
            instance.reconfigure(user, commit).await?
        } else {
            tokio::task::spawn_blocking(commit)
                .await
                .map_err(|e| Error::internal("the switch was cut short").because(e))??;
            instance.set_user_configuration(user)?;
            Vec::new()
        };
        if reloaded && restart.is_empty() {
            self.bundles.prove(&digest)?;
        }
        let limits = if restart.is_empty() { Vec::new() } else { instance.limits_that_change().await? };
        let (lowered, raised): (Vec<_>, Vec<_>) = limits.into_iter().partition(|(_, lowered)| *lowered);
        let names = |limits: Vec<(String, bool)>| limits.into_iter().map(|(name, _)| name).collect();
        self.look()?;
        let agent = waiting_for_agent(&self.settings, &settings);
        let message = format!("{} counts from now on", self.label().unwrap_or_default());
        self.events.record(
            EventKind::Configured,
            None,
            message,
            json!({ "digest": digest, "restart": restart, "agent": agent }),
        );
        Ok(Some(Applied { reloaded, restart, lowered: names(lowered), raised: names(raised), agent }))
    }

    /// Judges how PostgreSQL started, and has it start again with the bundle before where this one keeps it from starting.
    pub(crate) async fn judge(
        &self,
        instance: &Instance,
        started: Result<()>,
        again: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(entry) = self.now().entry.clone().filter(|entry| !entry.proven) else { return started };
        match started {
            Ok(()) => {
                // PostgreSQL runs, whatever becomes of this note.
                if let Err(error) = self.bundles.prove(&entry.digest).and_then(|()| self.look()) {
                    tracing::warn!(error = %error.chain(), "it cannot be noted that PostgreSQL runs with its bundle");
                }
                Ok(())
            }
            Err(error) if gave_up(&error) => match self.go_back(&entry, instance, &error) {
                Ok(true) => again().await,
                Ok(false) => Err(error),
                Err(why) => {
                    tracing::warn!(error = %why.chain(), "there is no way back to the bundle before");
                    Err(error)
                }
            },
            Err(error) => Err(error),
        }
    }

    /// Goes back to the bundle before, if there is one.
    fn go_back(&self, bad: &Entry, instance: &Instance, why: &Error) -> Result<bool> {
        let history = self.bundles.history()?;
        let Some(good) = history.previous().cloned() else { return Ok(false) };
        let settings = self.read(&self.bundles.dir_of(&good.digest))?;
        let note = format!(
            "PostgreSQL did not start with the bundle {}: this node went back to {}. why={}",
            label(bad),
            label(&good),
            why.chain()
        );
        tracing::warn!("{note}");
        self.bundles.switch(&good.digest, None, How::Failure, Some(note.clone()), self.clock.wall())?;
        instance.set_user_configuration(user_part(settings.node(&self.node)?))?;
        self.look()?;
        self.events.record(EventKind::Configured, None, note, json!({ "digest": good.digest, "refused": bad.digest }));
        Ok(true)
    }

    /// Looks which one counts.
    fn look(&self) -> Result<()> {
        let entry = self.bundles.history()?.current().cloned();
        self.now().entry = entry;
        Ok(())
    }
}

/// A bundle as a person knows it.
fn label(entry: &Entry) -> String {
    entry.tag.clone().unwrap_or_else(|| entry.digest.short().to_owned())
}

fn user_part(node: &NodeSettings) -> UserConfiguration {
    UserConfiguration { settings: node.settings.clone(), hba: node.hba.clone() }
}

/// The sections that differ, and that an agent only reads when it begins.
fn waiting_for_agent(old: &Settings, new: &Settings) -> Vec<String> {
    let mut waiting = Vec::new();
    let mut differs = |section: &str, differs: bool| {
        if differs {
            waiting.push(section.to_owned());
        }
    };
    differs("cluster", old.cluster != new.cluster);
    // What PostgreSQL is set to is taken over by itself.
    let server = |s: &Settings| {
        let p = &s.postgres;
        (p.version, p.bin_dir.clone(), p.user.clone(), p.port, p.database.clone(), p.owner.clone())
    };
    differs("postgres", server(old) != server(new));
    differs("failover", old.failover != new.failover);
    differs("witness", old.witness != new.witness);
    differs("failover_ip", address(old) != address(new));
    differs("agent", old.agent != new.agent);
    let nodes = |s: &Settings| -> Vec<_> {
        let plain = |n: &NodeSettings| NodeSettings {
            settings: Default::default(),
            hba: Vec::new(),
            home: PathBuf::new(),
            ..n.clone()
        };
        s.nodes.iter().map(|(name, node)| (name.clone(), plain(node))).collect()
    };
    differs("nodes", nodes(old) != nodes(new));
    waiting
}

/// The failover IP, with paths as they are within the folder: each bundle has a folder of its own.
fn address(settings: &Settings) -> Option<String> {
    let folder = format!("{}/", settings.dir.display());
    let shown: Option<&FailoverIpSettings> = settings.failover_ip.as_ref();
    shown.map(|ip| format!("{ip:?}").replace(&folder, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &str, more: &str) -> Settings {
        let text = format!(
            "[cluster]\nname = \"main\"\n[failover_ip]\nkind = \"script\"\naddress = \"203.0.113.10\"\nscript = \"shared/f.sh\"\n\
             [nodes.n1]\naddress = \"127.0.0.2\"\n{more}"
        );
        let place = crate::settings::Place::folder(Path::new(dir));
        let base = crate::settings::Place::folder(Path::new("/srv"));
        let place = crate::settings::Place { dir: place.dir, ..base };
        crate::settings::parse_at(&text, &place, crate::settings::Files::Ignored).unwrap()
    }

    #[test]
    fn only_what_an_agent_reads_at_its_start_waits_for_it() {
        let old = settings("/opt/a", "");
        let waits = |more: &str| waiting_for_agent(&old, &settings("/opt/b", more));
        assert!(waits("").is_empty(), "the folder alone is no change");
        assert!(waits("[postgres.settings]\nwork_mem = \"8MB\"\n").is_empty());
        assert_eq!(waits("[failover]\nttl = \"9s\"\n"), ["failover"]);
        assert_eq!(waits("[nodes.n2]\naddress = \"127.0.0.3\"\n[postgres]\nport = 6000\n"), ["postgres", "nodes"]);
    }
}
