//! Connections to PostgreSQL as an application has them: over TLS, as the owner of the database.

use std::sync::Arc;
use std::time::Duration;

use pgdock_core::{Cluster, Error, NodeName, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::ExposeSecret as _;
use tokio_postgres::Client;
use tokio_postgres::config::{Config, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long one host may take to answer.
const CONNECT_BUDGET: Duration = Duration::from_secs(2);

/// How applications connect.
#[derive(Clone)]
pub(crate) struct Route {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Route {
    /// To whichever node accepts writes, all being tried in turn.
    pub(crate) fn to_primary(cluster: &Cluster) -> Result<Self> {
        let mut config = common(cluster);
        for node in cluster.settings().nodes.values() {
            config.host(&node.address).port(node.postgres_port);
        }
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(Self { config, tls: tls(cluster)? })
    }

    /// To one node, whatever it is.
    pub(crate) fn to_node(cluster: &Cluster, node: &NodeName) -> Result<Self> {
        let settings = cluster.settings().node(node)?;
        let mut config = common(cluster);
        config.host(&settings.address).port(settings.postgres_port);
        Ok(Self { config, tls: tls(cluster)? })
    }

    /// To one node, as the superuser, in the database `postgres`.
    pub(crate) fn superuser(cluster: &Cluster, node: &NodeName) -> Result<Self> {
        let mut route = Self::to_node(cluster, node)?;
        route.config.user("postgres").dbname("postgres").password(cluster.secrets().superuser.expose_secret());
        Ok(route)
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let budget = CONNECT_BUDGET * u32::try_from(self.config.get_hosts().len()).unwrap_or(1);
        let connecting = tokio::time::timeout(budget, self.config.connect(self.tls.clone())).await;
        let (client, connection) = match connecting {
            Ok(Ok(connected)) => connected,
            Ok(Err(e)) => return Err(Error::unavailable("cannot connect to PostgreSQL").because(e)),
            Err(_) => return Err(Error::unavailable("PostgreSQL does not answer in time")),
        };
        // It ends with the client, or with an error that the client's next call returns.
        tokio::spawn(connection);
        Ok(client)
    }
}

fn common(cluster: &Cluster) -> Config {
    let postgres = &cluster.settings().postgres;
    let mut config = Config::new();
    config
        .user(&postgres.owner)
        .password(cluster.secrets().app.expose_secret())
        .dbname(&postgres.database)
        .application_name("pgdock")
        .ssl_mode(SslMode::Require)
        .connect_timeout(CONNECT_BUDGET);
    config
}

fn tls(cluster: &Cluster) -> Result<MakeRustlsConnect> {
    let invalid = |what: &str| Error::invalid(format!("{what}. file={}", cluster.secrets().ca_file.display()));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(cluster.secrets().ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|e| invalid("the cluster's authority is not readable").because(e))?;
        roots.add(certificate).map_err(|e| invalid("the cluster's authority is not usable").because(e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("no usable version of TLS").because(e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
