//! The nodes of a cluster of pgdock, from its own handle.

use pgdock_core::Cluster;
use secrecy::ExposeSecret;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::{Agents, Error, RouterBuilder};

impl RouterBuilder {
    /// The nodes of a cluster, whose agents push roles: it logs in as the owner of the application's database, with the
    /// password from the cluster's secrets, over TLS. [`build`](Self::build) needs a connector that trusts the cluster's
    /// authority, such as one of `tokio-postgres-rustls` over `pgdock_core::agent::tls::client_config`.
    ///
    /// # Errors
    ///
    /// The cluster's authority cannot be read.
    pub fn cluster(self, cluster: &Cluster) -> Result<Self, Error> {
        let (settings, secrets) = (cluster.settings(), cluster.secrets());
        let mut template = Config::new();
        template
            .user(&settings.postgres.owner)
            .password(secrets.app.expose_secret())
            .dbname(&settings.postgres.database)
            .ssl_mode(SslMode::Require);
        let places = settings.nodes.values().map(|node| match node.address.contains(':') {
            true => format!("[{}]:{}", node.address, node.agent_port),
            false => format!("{}:{}", node.address, node.agent_port),
        });
        Ok(self.agents(Agents::new(places, secrets.ca_pem.as_bytes(), template)?))
    }
}
