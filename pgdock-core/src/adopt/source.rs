//! [`Source`]: how the servers of the old cluster are logged in to.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Error, Result};

/// How long a server may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// How the servers of the old cluster are logged in to: one role, which replication brings to each of them.
#[derive(Clone, Debug)]
pub struct Source {
    config: Config,
    password: Option<SecretString>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Source {
    /// Reads a connection string, of keywords or a URI. Without `ca` nothing is encrypted: SCRAM tells nobody the password.
    /// With it the server must prove that one of these authorities signed its certificate, which names its host.
    ///
    /// # Errors
    /// `Invalid` when it is not understood, or holds a password: every user of this machine can see it there.
    pub fn new(dsn: &str, password: Option<SecretString>, ca: Option<&[u8]>) -> Result<Self> {
        // The error of the parser repeats what it did not understand.
        let config: Config = dsn.parse().map_err(|_| {
            Error::invalid("the connection string is not understood")
                .hint("such as \"host=10.0.0.1 dbname=repmgr user=postgres\", or a URI")
        })?;
        if config.get_password().is_some() {
            return Err(Error::invalid("the connection string holds a password, which others can see")
                .hint("set PGPASSWORD, or name a file with --password-file"));
        }
        if config.get_hosts().len() != 1 {
            return Err(
                Error::invalid("the connection string names one host, that of the primary").hint("add host=ADDRESS")
            );
        }
        if config.get_ssl_mode() == SslMode::Require && ca.is_none() {
            return Err(Error::invalid("sslmode=require: without an authority anybody can claim to be the server")
                .hint("name its certificate with --ca FILE"));
        }
        Ok(Self { config, password, tls: ca.map(tls).transpose()? })
    }

    /// The password, where one is known and it is the one of this role.
    #[must_use]
    pub fn password_of(&self, role: &str) -> Option<&SecretString> {
        self.password.as_ref().filter(|_| self.config.get_user() == Some(role))
    }

    /// Logs in to the server that the connection string names.
    ///
    /// # Errors
    /// `Unavailable` when there is no connection, with what the server said.
    pub async fn connect(&self) -> Result<Client> {
        let (host, port) = self.at();
        self.connect_to(&host, port, self.config.get_dbname()).await
    }

    /// Logs in to another server of the cluster.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_to(&self, host: &str, port: u16, database: Option<&str>) -> Result<Client> {
        let mut config = Config::new();
        config.host(host).port(port).application_name("pgdock_adopt").connect_timeout(LIMIT);
        if let Some(user) = self.config.get_user() {
            config.user(user);
        }
        if let Some(database) = database {
            config.dbname(database);
        }
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        let work = async {
            match &self.tls {
                Some(tls) => {
                    config.ssl_mode(SslMode::Require);
                    let (client, connection) = config.connect(MakeRustlsConnect::new((**tls).clone())).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
                None => {
                    config.ssl_mode(SslMode::Disable);
                    let (client, connection) = config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok::<_, tokio_postgres::Error>(client)
                }
            }
        };
        let cannot = || Error::unavailable(format!("no connection to the server. host={host}, port={port}"));
        match tokio::time::timeout(LIMIT, work).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(e)) => Err(cannot().because(said(&e))),
            Err(_) => Err(cannot().because("it does not answer in time")),
        }
    }

    fn at(&self) -> (String, u16) {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        (host, self.config.get_ports().first().copied().unwrap_or(5432))
    }
}

/// What the server said, or what kept it from saying anything.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string),
    }
}

fn tls(ca: &[u8]) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|e| Error::invalid("--ca: not a certificate").because(e))?;
        roots.add(certificate).map_err(|e| Error::invalid("--ca: not an authority").because(e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("no usable version of TLS").because(e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_repeated() {
        for dsn in ["host=n1 user=postgres password=opensesame", "postgresql://postgres:opensesame@n1/repmgr"] {
            let error = Source::new(dsn, None, None).unwrap_err();
            assert!(error.hints()[0].contains("PGPASSWORD") && !error.chain().contains("opensesame"), "{error}");
        }
        let error = Source::new("host=n1 passwort=opensesame", None, None).unwrap_err();
        assert!(!error.chain().contains("opensesame"), "{}", error.chain());
        assert!(Source::new("host=n1 user=postgres sslmode=require", None, None).is_err());
        let source = Source::new("host=n1 port=5433 user=postgres", Some("x".into()), None).unwrap();
        assert_eq!(source.at(), ("n1".to_owned(), 5433));
        assert!(source.password_of("postgres").is_some() && source.password_of("repmgr").is_none());
    }
}
