//! [`Machine`]: where a node runs that is not a process of this machine, and what can be done to it as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::container::{CLUSTER, NODE, NodeContainer, SPEC};
use crate::executor::docker::{Engine, LogOptions};
use crate::executor::{Command, Executor, ExecutorExt as _, Opener};
use crate::settings::{Reach, Settings};
use crate::{Error, ErrorKind, NodeName, Result};

/// The unit of systemd that runs a node's agent.
pub(super) const UNIT: &str = "pgdock-agent.service";
/// How long a volume may take to be given to its user.
const VOLUME: Duration = Duration::from_secs(60);
/// How long what is no node's own stop may take.
const GRACE: Duration = Duration::from_secs(30);

/// Where a node runs.
#[derive(Debug)]
pub struct Machine {
    node: NodeName,
    home: PathBuf,
    settings: Arc<Settings>,
    executor: Arc<dyn Executor>,
    kind: Kind,
    beside: Option<u16>,
}

#[derive(Debug)]
enum Kind {
    Service,
    Container { engine: Engine, container: Box<NodeContainer> },
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// There is no container, or no service.
    Absent,
    /// It does not run.
    Stopped,
    /// It runs.
    Running,
    /// It runs, made from other settings than today's.
    Outdated,
}

impl Machine {
    /// The machine of a node. Nothing is opened yet.
    ///
    /// # Errors
    /// `Invalid` when there is no such node, or it is a process of this machine.
    pub fn open(opener: &Opener, settings: &Arc<Settings>, node: &NodeName) -> Result<Self> {
        let kind = match &settings.node(node)?.reach {
            Reach::Docker(own) => Kind::Container {
                engine: opener.engine(settings, &own.engine)?,
                container: Box::new(NodeContainer::of(settings, node)?),
            },
            Reach::Ssh(_) => Kind::Service,
            Reach::Local => {
                return Err(Error::invalid(format!("the node is a process of this machine. node={node}"))
                    .hint("set [cluster] executor to \"ssh\" or \"docker\""));
            }
        };
        let executor = opener.executor(settings, node)?;
        let home = settings.node(node)?.home.clone();
        Ok(Self { node: node.clone(), home, settings: Arc::clone(settings), executor, kind, beside: None })
    }

    /// The same, where another program still listens on this port: the node takes its place later.
    #[must_use]
    pub fn beside(mut self, port: u16) -> Self {
        self.beside = Some(port);
        self
    }

    /// The port that may be in use before the node runs.
    pub(super) fn may_be_taken(&self, port: &str) -> bool {
        self.beside.is_some_and(|beside| port.parse() == Ok(beside))
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The settings that it was opened with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its folder there.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What runs commands there.
    #[must_use]
    pub fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    /// Its container, if it is one, and the engine that has it.
    #[must_use]
    pub fn container(&self) -> Option<(&Engine, &NodeContainer)> {
        match &self.kind {
            Kind::Service => None,
            Kind::Container { engine, container } => Some((engine, container)),
        }
    }

    /// How it stands.
    ///
    /// # Errors
    /// `Unavailable` when its machine does not answer; `Conflict` when its container is another cluster's.
    pub async fn standing(&self) -> Result<Standing> {
        match &self.kind {
            Kind::Service => {
                let ask = Command::new("systemctl").args(["show", "--property=LoadState,ActiveState", UNIT]);
                let said = self.executor.run_checked(&ask).await?.text();
                let is = |property: &str, value: &str| {
                    said.lines()
                        .any(|line| line.strip_prefix(property).and_then(|l| l.strip_prefix('=')) == Some(value))
                };
                Ok(if !is("LoadState", "loaded") {
                    Standing::Absent
                } else if is("ActiveState", "active") || is("ActiveState", "activating") {
                    Standing::Running
                } else {
                    Standing::Stopped
                })
            }
            Kind::Container { engine, container } => {
                let Some(found) = engine.container(&container.name).await? else { return Ok(Standing::Absent) };
                let label = |name: &str| found.labels.get(name).map(String::as_str);
                let own = (Some(self.settings.cluster.name.as_str()), Some(self.node.as_str()));
                if (label(CLUSTER), label(NODE)) != own {
                    return Err(Error::conflict(format!(
                        "the container of this name is something else. container={}, engine={engine}, cluster={}, node={}",
                        container.name,
                        label(CLUSTER).unwrap_or("none"),
                        label(NODE).unwrap_or("none")
                    ))
                    .hint(format!("give this one another name: [nodes.{}] container", self.node)));
                }
                Ok(match (found.running, label(SPEC) == Some(container.spec())) {
                    (false, _) => Standing::Stopped,
                    (true, true) => Standing::Running,
                    (true, false) => Standing::Outdated,
                })
            }
        }
    }

    /// Starts it; one that runs is left alone. A container is made first where there is none, or where the settings have
    /// changed since it was made: all that it keeps is in its volume. Its image is fetched where the engine lacks it.
    ///
    /// # Errors
    /// `NotReady` when the image or the service is missing, `Invalid` when it is for another machine.
    pub async fn start(&self, said: impl FnMut(&str) + Send) -> Result<()> {
        match &self.kind {
            Kind::Service => match self.standing().await? {
                Standing::Absent => {
                    Err(Error::not_ready(format!("the node has no service. node={}, unit={UNIT}", self.node))
                        .hint(format!("`pgdock node prepare {}` makes it", self.node)))
                }
                Standing::Running | Standing::Outdated => Ok(()),
                Standing::Stopped => {
                    // One that has failed often enough is otherwise not started again.
                    let reset = Command::new("systemctl").args(["reset-failed", UNIT]);
                    let _ = self.executor.output(&reset).await?;
                    let start = Command::new("systemctl").args(["enable", "--now", UNIT]);
                    self.executor.run_checked(&start).await.map(drop)
                }
            },
            Kind::Container { engine, container } => {
                let standing = self.standing().await?;
                if matches!(standing, Standing::Running | Standing::Outdated) {
                    return Ok(());
                }
                self.image(engine, container, said).await?;
                if standing == Standing::Stopped {
                    let found = engine.container(&container.name).await?;
                    if found.is_some_and(|found| found.labels.get(SPEC).map(String::as_str) != Some(container.spec())) {
                        engine.remove_container(&container.name, false).await?;
                        self.make(engine, container).await?;
                    }
                } else {
                    self.make(engine, container).await?;
                }
                engine.start_container(&container.name).await
            }
        }
    }

    /// Gives the volume of its container to the user that all of it belongs to.
    pub(super) async fn give_volume(&self) -> Result<()> {
        let Kind::Container { engine, container } = &self.kind else { return Ok(()) };
        let helper = format!("{}-volume", container.name);
        // One that was left by a run that ended in the middle.
        match engine.remove_container(&helper, true).await {
            Err(e) if e.kind() != ErrorKind::NotReady => return Err(e),
            _ => {}
        }
        let (code, said) = engine.run_container(&helper, &container.volume_spec(), VOLUME).await?;
        if code == 0 {
            return Ok(());
        }
        Err(Error::internal(format!(
            "the volume cannot be given to the node's user. node={}, volume={}, engine={engine}, code={code}",
            self.node, container.volume
        ))
        .because(said)
        .hint("is the image one that `pgdock image build` made?"))
    }

    async fn make(&self, engine: &Engine, container: &NodeContainer) -> Result<()> {
        self.give_volume().await?;
        match engine.create_container(&container.name, &container.engine_spec()).await {
            // The answer to an earlier try was lost, or somebody else makes it, too: then it is looked at anew.
            Err(e) if e.kind() == ErrorKind::Conflict => self.standing().await.map(drop),
            made => made,
        }
    }

    /// Sees to it that the engine has the image, and that it is for its machine.
    async fn image(&self, engine: &Engine, container: &NodeContainer, said: impl FnMut(&str) + Send) -> Result<()> {
        let name = &container.image;
        let mut found = engine.image(name).await?;
        if found.is_none() {
            engine.pull_image(name, said).await.map_err(|e| {
                let lacking = format!("the engine lacks the image of the node. engine={engine}, image={name}, node={}", self.node);
                Error::not_ready(lacking).because(e.chain()).hint(format!(
                    "`pgdock image build --tag {name} {}` builds it there; or push it to a registry that the engine reaches",
                    self.node
                ))
            })?;
            found = engine.image(name).await?;
        }
        let (theirs, own) =
            (&engine.about().await?.architecture, found.map(|found| found.architecture).unwrap_or_default());
        if !own.is_empty() && !theirs.is_empty() && own != *theirs {
            return Err(Error::invalid(format!(
                "the image is for another machine. engine={engine}, machine={theirs}, image={name}, built_for={own}"
            ))
            .hint(format!("`pgdock image build --tag {name} {}` builds it there", self.node)));
        }
        Ok(())
    }

    /// Brings it its secrets. A container must run for it.
    ///
    /// # Errors
    /// As [`deliver`](super::deliver).
    pub async fn deliver_secrets(&self) -> Result<usize> {
        super::deliver(&*self.executor, &self.settings, &self.node).await
    }

    /// Stops it in order: a leader hands over first. With `force` all of it is killed at once.
    ///
    /// # Errors
    /// `Unavailable` when its machine does not answer, or it does not stop.
    pub async fn stop(&self, force: bool) -> Result<()> {
        match &self.kind {
            Kind::Service if force => {
                let kill = Command::new("systemctl").args(["kill", "--kill-whom=all", "--signal=SIGKILL", UNIT]);
                let _ = self.executor.output(&kill).await?;
                let stop = Command::new("systemctl").args(["stop", UNIT]);
                self.executor.run_checked(&stop.timeout(GRACE * 2)).await.map(drop)
            }
            Kind::Service => {
                let stop = Command::new("systemctl").args(["stop", UNIT]).timeout(self.grace() + GRACE);
                self.executor.run_checked(&stop).await.map(drop)
            }
            Kind::Container { engine, container } => {
                let grace = if force { Duration::ZERO } else { container.stop_grace };
                match engine.stop_container(&container.name, grace).await {
                    Err(e) if e.kind() == ErrorKind::NotReady => Ok(()),
                    stopped => stopped,
                }
            }
        }
    }

    /// Stops it in order, for good: it does not come back when its machine starts.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn retire(&self) -> Result<()> {
        if matches!(self.kind, Kind::Service) {
            let disable = Command::new("systemctl").args(["disable", UNIT]);
            self.executor.run_checked(&disable).await?;
        }
        self.stop(false).await
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(180).max(self.settings.failover.stop_budget * 2)
    }

    /// Passes on what its agent wrote.
    ///
    /// # Errors
    /// `NotReady` when there is none.
    pub async fn logs(&self, options: LogOptions, mut output: impl FnMut(&[u8]) + Send) -> Result<()> {
        match &self.kind {
            Kind::Service => {
                let mut command = Command::new("journalctl").args(["--unit", UNIT, "--output=cat", "--no-pager"]);
                if let Some(lines) = options.lines {
                    command = command.args(["--lines", &lines.to_string()]);
                }
                if options.follow {
                    // Until whoever reads has seen enough.
                    command = command.arg("--follow").timeout(Duration::from_secs(366 * 24 * 3_600));
                }
                self.executor.run(&command, &mut |_, bytes| output(bytes)).await.map(drop)
            }
            Kind::Container { engine, container } => engine.logs(&container.name, options, output).await,
        }
    }
}
