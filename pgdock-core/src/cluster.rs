//! [`Cluster`]: the handle that an application or an operator's tool holds.
//!
//! ```text
//!                 ┌── status, events ──▶ every agent, in parallel, and the witness
//!   Cluster ──────┤
//!                 └── orders ──────────▶ one agent: the leader's, or the node's own
//! ```
//!
//! It decides nothing: agents do. What it is asked to change, it asks of the agent that can.

mod backup;
mod diverged;
mod dsn;
mod events;
mod orders;
pub mod plan;
mod roll;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

pub use diverged::ClusterDiverged;
pub use dsn::Dsn;
pub use events::ClusterEvents;
pub use orders::{Failover, Switchover};
pub use roll::RollFirst;
pub use status::{ClusterStatus, NodeView, WitnessView};

use crate::agent::client::AgentClient;
use crate::agent::{host_port, tls};
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::witness::{self, Record, Witness};
use crate::{Error, NodeName, Result};

/// How long `status` and `events` wait for an agent or the witness, unless told otherwise.
const READ_BUDGET: Duration = Duration::from_secs(3);

/// A cluster, seen from outside. Cheap to clone; holds no connection.
///
/// ```no_run
/// # async fn run() -> pgdock_core::Result<()> {
/// use pgdock_core::{Cluster, Settings};
///
/// let cluster = Cluster::builder(Settings::from_path("cluster.toml")?).build().await?;
/// let status = cluster.status().await?;
/// if status.is_healthy() {
///     cluster.switchover().to("n2").await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cluster {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    settings: Settings,
    secrets: Secrets,
    witness: Arc<dyn Witness>,
    tls: Arc<ClientConfig>,
    budget: Duration,
}

/// Puts a [`Cluster`] together.
#[derive(Debug)]
#[must_use]
pub struct ClusterBuilder {
    settings: Settings,
    witness: Option<Arc<dyn Witness>>,
    secrets: Option<Secrets>,
    tls: Option<Arc<ClientConfig>>,
    budget: Duration,
}

impl ClusterBuilder {
    /// The witness, in place of what the settings say.
    pub fn witness(mut self, witness: Arc<dyn Witness>) -> Self {
        self.witness = Some(witness);
        self
    }

    /// The secrets, in place of those in the settings' folder.
    pub fn secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// How agents are reached over TLS, with a crypto provider of one's own. It must trust the cluster's
    /// authority, and nobody else. Default: [`tls::client_config`] of the authority in the secrets.
    pub fn tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long to wait for an agent, or the witness, before it counts as unreachable. Default 3 s.
    pub fn read_budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Checks that all is there. Nobody is asked anything yet.
    ///
    /// # Errors
    /// `Invalid` when a secret is missing, or the witness has a URL that is not understood.
    pub async fn build(self) -> Result<Cluster> {
        let settings = self.settings;
        let secrets = match self.secrets {
            Some(secrets) => secrets,
            None => Secrets::load(&settings.secrets())?.with_env(&settings.first_env()?),
        };
        let witness = match self.witness {
            Some(witness) => witness,
            None => witness::open(&settings.witness, &settings.cluster.name)?,
        };
        let tls = match self.tls {
            Some(tls) => tls,
            None => tls::client_config(secrets.ca_pem.as_bytes())?,
        };
        Ok(Cluster { parts: Arc::new(Parts { settings, secrets, witness, tls, budget: self.budget }) })
    }
}

impl Cluster {
    /// Puts a handle together.
    pub fn builder(settings: Settings) -> ClusterBuilder {
        ClusterBuilder { settings, witness: None, secrets: None, tls: None, budget: READ_BUDGET }
    }

    /// What `cluster.toml` says.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// The secrets that the handle works with.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.parts.secrets
    }

    /// The witness.
    #[must_use]
    pub fn witness(&self) -> &Arc<dyn Witness> {
        &self.parts.witness
    }

    /// One node's agent.
    ///
    /// # Errors
    /// `Invalid` when there is no such node, or its address is none.
    pub fn agent(&self, node: &NodeName) -> Result<AgentClient> {
        let settings = self.settings().node(node)?;
        let address = host_port(&settings.address, settings.agent_port);
        Ok(AgentClient::new(&address, Arc::clone(&self.parts.tls))?.with_token(self.secrets().agent_token.clone()))
    }

    /// The witness's document; `None` before the cluster was founded.
    ///
    /// # Errors
    /// `Unavailable` when the witness does not answer in time, `NeedsOperator` when the document is not readable.
    pub async fn document(&self) -> Result<Option<Record>> {
        match tokio::time::timeout(self.parts.budget, self.witness().read()).await {
            Ok(read) => Ok(read?.map(|(record, _)| record)),
            Err(_) => {
                Err(Error::unavailable(format!("the witness did not answer in time. witness={}", self.witness())))
            }
        }
    }

    /// How the cluster stands: all agents and the witness are asked at once. Whoever does not answer in time
    /// is shown as unreachable, which is no error.
    ///
    /// # Errors
    /// `Invalid` when a node's address is none.
    pub async fn status(&self) -> Result<ClusterStatus> {
        let (document, answers) =
            tokio::join!(self.document(), self.ask_all(|agent| async move { agent.status().await }));
        Ok(status::assemble(self.settings(), &answers?, document, self.witness().kind()))
    }

    /// Asks every agent the same thing at once, each within the budget.
    async fn ask_all<T, F>(&self, ask: impl Fn(AgentClient) -> F) -> Result<Vec<(NodeName, Result<T>)>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut calls = Vec::new();
        for node in self.settings().nodes.keys() {
            let call = tokio::time::timeout(self.parts.budget, ask(self.agent(node)?));
            calls.push(async move {
                let answer = call.await.unwrap_or_else(|_| {
                    Err(Error::unavailable(format!("the agent did not answer in time. node={node}")))
                });
                (node.clone(), answer)
            });
        }
        Ok(futures_util::future::join_all(calls).await)
    }
}
