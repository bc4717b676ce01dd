//! From settings to what reaches a node.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Executor, LocalExecutor};
use crate::settings::{Reach, Settings};
use crate::{NodeName, Result};

/// Opens the ways to nodes. It knows of the person's surroundings what the program that uses the library tells it.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    home: Option<PathBuf>,
    ssh_agent: Option<PathBuf>,
}

impl Opener {
    /// One that knows nothing but the settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The home of the person: in its `.ssh` keys and known hosts are looked for where the settings name none.
    #[must_use]
    pub fn home(mut self, home: Option<PathBuf>) -> Self {
        self.home = home;
        self
    }

    /// The socket of the person's SSH agent: the value of `SSH_AUTH_SOCK`.
    #[must_use]
    pub fn ssh_agent(mut self, socket: Option<PathBuf>) -> Self {
        self.ssh_agent = socket;
        self
    }

    /// What runs commands on a node, and moves files there. Nothing is opened yet.
    ///
    /// # Errors
    /// `Invalid` when there is no such node, or this build lacks what its executor needs.
    pub fn executor(&self, settings: &Settings, node: &NodeName) -> Result<Arc<dyn Executor>> {
        match &settings.node(node)?.reach {
            Reach::Local => Ok(Arc::new(LocalExecutor)),
            #[cfg(feature = "ssh")]
            Reach::Ssh(target) => Ok(Arc::new(super::SshExecutor::new(self.ssh(settings, target)))),
            #[cfg(feature = "docker")]
            Reach::Docker(container) => {
                let engine = self.engine(settings, &container.engine)?;
                Ok(Arc::new(super::DockerExecutor::new(engine, &container.container)))
            }
            #[cfg(not(all(feature = "ssh", feature = "docker")))]
            _ => Err(crate::Error::invalid(format!(
                "this build does not reach nodes like that. executor={}",
                settings.cluster.executor.as_str()
            ))
            .hint("build it with the features ssh and docker")),
        }
    }

    /// How a machine is reached over SSH: what the settings name, and else what `ssh` itself would take.
    #[cfg(feature = "ssh")]
    #[must_use]
    pub fn ssh(&self, settings: &Settings, target: &crate::settings::SshTarget) -> super::SshConfig {
        use super::ssh::{HostKeys, Identity, SshConfig};
        let mut config = SshConfig::new(&target.host, &target.user).port(target.port);
        if let Some(home) = &self.home {
            config = config.of_home(home, self.ssh_agent.clone());
        } else if let Some(socket) = &self.ssh_agent {
            config = config.identity(Identity::Agent(socket.clone()));
        }
        if let Some(path) = &settings.ssh.identity {
            config.identities = vec![Identity::KeyFile { path: path.clone(), passphrase: None }];
        }
        match &settings.ssh.known_hosts {
            Some(path) => config.host_keys(HostKeys::KnownHosts(vec![path.clone()])),
            None => config,
        }
    }

    /// An engine by its URL. Nothing is opened yet.
    ///
    /// # Errors
    /// `Invalid` when it is reached by TLS, and the settings name no certificates.
    #[cfg(feature = "docker")]
    pub fn engine(&self, settings: &Settings, url: &crate::settings::EngineUrl) -> Result<super::docker::Engine> {
        use super::docker::{Engine, EngineAddress};
        use crate::settings::EngineUrl;
        let address = match url {
            EngineUrl::Unix(path) => EngineAddress::Unix(path.clone()),
            EngineUrl::Tcp { host, port } => {
                let certificates = settings.docker.certificates.clone().ok_or_else(|| {
                    crate::Error::invalid(format!("there are no certificates for an engine by TCP. engine={url}"))
                        .hint("set [docker] certificates to the folder of ca.pem, cert.pem and key.pem")
                })?;
                EngineAddress::Tls { host: host.clone(), port: *port, certificates }
            }
            EngineUrl::Ssh { target, socket } => {
                EngineAddress::Ssh { config: Box::new(self.ssh(settings, target)), socket: socket.clone() }
            }
        };
        Ok(Engine::new(address))
    }
}
