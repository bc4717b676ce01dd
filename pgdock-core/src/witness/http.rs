//! The HTTP client of the stores that are reached by HTTP: bounded, and without anything taken from the
//! environment.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Error, Result};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for longer may be dead, and nobody says so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to trust, and how to show who one is.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authority that signs the store's certificate, as PEM, instead of those that the system trusts.
    pub ca: Option<Vec<u8>>,
    /// The certificate, as PEM, that the client shows.
    pub certificate: Option<Vec<u8>>,
    /// Its private key, as PEM.
    pub key: Option<secrecy::SecretString>,
    /// Whether the connection may be made without TLS.
    pub allow_plain: bool,
}

/// A client. `pinned` sends what is for a host to one of its addresses.
pub(crate) fn client(tls: &Tls, pinned: Option<&(String, SocketAddr)>) -> Result<reqwest::Client> {
    use secrecy::ExposeSecret as _;

    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("pgdock/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // A swap that is sent twice may land twice.
        .retry(reqwest::retry::never())
        // One hanging connection must not hold up all requests.
        .http1_only()
        .https_only(!tls.allow_plain)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true);
    if let Some(pem) = &tls.ca {
        let authorities = reqwest::Certificate::from_pem_bundle(pem)
            .ok()
            .filter(|list| !list.is_empty())
            .ok_or_else(|| Error::invalid("the authority of the store holds no certificate in PEM format"))?;
        builder = builder.tls_certs_only(authorities);
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        let both = [certificate, b"\n".as_slice(), key.expose_secret().as_bytes()].concat();
        // The cause is left out: it could quote the key.
        let identity = reqwest::Identity::from_pem(&both)
            .map_err(|_| Error::invalid("the certificate for the witness and its key are not readable as PEM"))?;
        builder = builder.identity(identity);
    }
    if let Some((host, address)) = pinned {
        builder = builder.resolve(host, *address);
    }
    builder.build().map_err(|e| Error::invalid("there is no usable HTTP client").because(e))
}

/// An error with all its causes, on one line. The URL is left out: it may hold a signature.
pub(crate) fn shown(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
