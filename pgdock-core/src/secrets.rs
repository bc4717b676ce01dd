//! [`Secrets`]: the passwords, the agents' token and the certificates of `secrets/`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::postgres::conf_file::SUPERUSER;
use crate::{Error, ErrorKind, NodeName, Result};

/// The files that hold one random text each.
pub(crate) const TOKENS: [&str; 6] = [
    "agent.token",
    "superuser.password",
    "replication.password",
    "rewind.password",
    "monitor.password",
    "app.password",
];

/// What `secrets/` holds for every node. Nothing of it appears in its `Debug` text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Secrets {
    /// The folder.
    pub dir: PathBuf,
    /// `agent.token`: whoever shows it to an agent may change things.
    pub agent_token: SecretString,
    /// `superuser.password`: PostgreSQL's superuser.
    pub superuser: SecretString,
    /// `replication.password`: `pgdock_replication`.
    pub replication: SecretString,
    /// `rewind.password`: `pgdock_rewind`.
    pub rewind: SecretString,
    /// `monitor.password`: `pgdock_monitor`.
    pub monitor: SecretString,
    /// `app.password`: the owner of the application's database.
    pub app: SecretString,
    /// The path of `ca.crt`, the authority that signs all nodes' certificates.
    pub ca_file: PathBuf,
    /// What it holds, as PEM.
    pub ca_pem: String,
}

/// A node's certificate with its key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeCertificate {
    /// The path of the certificate.
    pub certificate_file: PathBuf,
    /// The path of the key.
    pub key_file: PathBuf,
    /// The certificate, as PEM.
    pub certificate_pem: String,
    /// The private key, as PEM.
    pub key_pem: SecretString,
}

impl Secrets {
    /// Reads the folder `secrets/`, which [`Settings::secrets`](crate::Settings::secrets) names; a node's own
    /// copy reads the same way.
    ///
    /// # Errors
    /// `Invalid` where a file is missing, empty, or a secret one is open to others: all such files are named
    /// at once, with what to do.
    pub fn load(dir: &Path) -> Result<Self> {
        let tokens = TOKENS.map(|name| read_token(&dir.join(name)));
        let ca_file = dir.join("ca.crt");
        let ca = read_public(&ca_file);
        if tokens.iter().any(Result::is_err) || ca.is_err() {
            return Err(gather(tokens.into_iter().filter_map(Result::err).chain(ca.err())));
        }
        let [agent_token, superuser, replication, rewind, monitor, app] = tokens;
        Ok(Self {
            dir: dir.to_owned(),
            agent_token: agent_token?,
            superuser: superuser?,
            replication: replication?,
            rewind: rewind?,
            monitor: monitor?,
            app: app?,
            ca_pem: ca?,
            ca_file,
        })
    }

    /// With the password that `env/main` gives: that of the superuser where its `POSTGRES_USER` is one, that of the
    /// application's role otherwise.
    #[must_use]
    pub fn with_env(mut self, env: &BTreeMap<String, String>) -> Self {
        if let Some(password) = env.get("POSTGRES_PASSWORD").filter(|password| !password.is_empty()) {
            let user = env.get("POSTGRES_USER").map_or(SUPERUSER, String::as_str);
            *if user == SUPERUSER { &mut self.superuser } else { &mut self.app } = password.as_str().into();
        }
        self
    }

    /// Reads a node's certificate and key.
    ///
    /// # Errors
    /// The same as those of [`load`](Self::load).
    pub fn certificate(&self, node: &NodeName) -> Result<NodeCertificate> {
        let certificate_file = self.dir.join(format!("{node}.crt"));
        let key_file = self.dir.join(format!("{node}.key"));
        match (read_public(&certificate_file), read_secret(&key_file)) {
            (Ok(certificate_pem), Ok(key_pem)) => {
                Ok(NodeCertificate { certificate_file, key_file, certificate_pem, key_pem: key_pem.into() })
            }
            (certificate, key) => Err(gather(certificate.err().into_iter().chain(key.err()))),
        }
    }
}

fn read_token(path: &Path) -> Result<SecretString> {
    let text = read_secret(path)?;
    let token = text.trim_end_matches(['\r', '\n']);
    // It goes into headers and connection strings.
    if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid(format!("a secret holds blanks or control characters. file={}", path.display()))
            .hint("write it on one line, without blanks"));
    }
    Ok(token.into())
}

fn read_secret(path: &Path) -> Result<String> {
    let text = read_public(path)?;
    let mode = std::fs::metadata(path).map_err(|e| unreadable(path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::invalid(format!(
            "a secret is open to others. file={}, mode={:04o}",
            path.display(),
            mode & 0o7777
        ))
        .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(text)
}

fn read_public(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, e))?;
    if text.trim().is_empty() {
        return Err(Error::invalid(format!("a secret is empty. file={}", path.display()))
            .hint(format!("write it, or remove {}: `pgdock init` adds what is missing", path.display())));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::invalid(format!("a secret is missing. file={}", path.display()))
            .hint("`pgdock init` adds what is missing"),
        _ => Error::invalid(format!("a secret is not readable. file={}", path.display()))
            .because(error)
            .hint("check its owner and mode"),
    }
}

/// Many errors as one, each hint once.
fn gather(errors: impl Iterator<Item = Error>) -> Error {
    let errors: Vec<Error> = errors.collect();
    let text = errors.iter().map(Error::chain).collect::<Vec<_>>().join("; ");
    let mut seen = BTreeSet::new();
    let hints = errors.iter().flat_map(Error::hints).filter(|hint| seen.insert(*hint));
    hints.fold(Error::new(ErrorKind::Invalid, text), |error, hint| error.hint(hint))
}
