//! TLS between agents, and between an agent and its clients.
//!
//! Every node has a certificate of the cluster's own authority, and clients trust that authority alone: a
//! certificate of any other one, however public, opens nothing. No provider is installed for the process.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, Result};

/// The configuration of a server that shows a node's certificate.
///
/// `certificate` is a PEM chain with the node's own certificate first, `key` its private key as PEM.
///
/// # Errors
/// `Invalid` when either is not readable, or they do not belong together.
pub fn server_config(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>> {
    let chain = certificates(certificate, "the node's certificate")?;
    // The cause is left out: it could quote the key.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| Error::invalid("the node's private key is not readable").hint("expected a key in PEM format"))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("no usable version of TLS").because(e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| Error::invalid("the node's certificate and private key do not fit").because(e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The configuration of a client that trusts nobody but the cluster's authority, given as PEM.
///
/// # Errors
/// `Invalid` when it is not readable, or holds no certificate.
pub fn client_config(authority: &[u8]) -> Result<Arc<ClientConfig>> {
    client_config_with(authority, None)
}

/// The same for a client that shows a certificate, given as PEM with its private key.
///
/// # Errors
/// `Invalid` when any of them is not readable, or they do not belong together.
pub fn client_config_with(authority: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority, "the cluster's authority")? {
        roots.add(certificate).map_err(|e| Error::invalid("the cluster's authority is not usable").because(e))?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("no usable version of TLS").because(e))?
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "the client's certificate")?;
            // The cause is left out: it could quote the key.
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
                Error::invalid("the client's private key is not readable").hint("expected a key in PEM format")
            })?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|e| Error::invalid("the client's certificate and private key do not fit").because(e))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::invalid(format!("{what} is not readable")).because(e))?;
    if chain.is_empty() {
        return Err(Error::invalid(format!("{what} is empty")).hint("expected a certificate in PEM format"));
    }
    Ok(chain)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    /// An authority for tests.
    pub(crate) struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

    impl TestAuthority {
        pub(crate) fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        pub(crate) fn client(&self) -> Arc<ClientConfig> {
            client_config(self.0.pem().as_bytes()).unwrap()
        }

        /// A server that is certified to be one of these names.
        pub(crate) fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
            let (certificate, key) = self.pair(names);
            server_config(certificate.as_bytes(), key.as_bytes()).unwrap()
        }

        fn pair(&self, names: &[&str]) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
            (certificate.pem(), key.serialize_pem())
        }
    }

    #[test]
    fn faults_in_the_files_are_told_without_the_key() {
        let authority = TestAuthority::new();
        let (certificate, key) = authority.pair(&["127.0.0.1"]);
        let (_, other) = authority.pair(&["127.0.0.1"]);
        assert!(server_config(certificate.as_bytes(), key.as_bytes()).is_ok());
        let error = server_config(certificate.as_bytes(), other.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("do not fit"), "{}", error.chain());
        for bad in ["", "-----BEGIN PRIVATE KEY-----\nsecret!\n-----END PRIVATE KEY-----\n"] {
            let error = server_config(certificate.as_bytes(), bad.as_bytes()).unwrap_err();
            assert!(!error.chain().contains("secret"), "{}", error.chain());
        }
        assert!(server_config(b"", key.as_bytes()).unwrap_err().to_string().contains("is empty"));
        assert!(client_config(b"no certificate").is_err());
    }
}
