//! Logging in: with each identity in its turn, until the server is content.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use secrecy::{ExposeSecret, SecretString};

use super::config::{Identity, SshConfig};
use super::connect::Checker;
use crate::{Error, Result};

/// Logs in, or says all that was tried.
pub(super) async fn login(handle: &mut Handle<Checker>, config: &SshConfig, node: &str) -> Result<()> {
    let mut tried = Vec::new();
    for identity in &config.identities {
        let done = match identity {
            Identity::Agent(socket) => with_agent(handle, config, socket, &mut tried).await,
            Identity::KeyFile { path, passphrase } => {
                with_file(handle, config, path, passphrase.clone(), &mut tried).await
            }
        };
        if done {
            return Ok(());
        }
        if handle.is_closed() {
            tried.push("then the server closed the connection: it allows so many tries (MaxAuthTries)".to_owned());
            break;
        }
    }
    if tried.is_empty() {
        tried.push("nothing: no agent and no key file is configured".to_owned());
    }
    Err(Error::invalid(format!("the node does not let the user in. node={node}, tried=[{}]", tried.join("; ")))
        .hint(format!("add the public key to ~{}/.ssh/authorized_keys on {}: ssh-copy-id", config.user, config.host))
        .hint("why the server refused is in its log: journalctl -u ssh"))
}

async fn with_agent(handle: &mut Handle<Checker>, config: &SshConfig, socket: &Path, tried: &mut Vec<String>) -> bool {
    let place = format!("agent at {}", socket.display());
    let mut agent = match AgentClient::connect_uds(socket).await {
        Ok(agent) => agent,
        Err(e) => {
            tried.push(format!("{place}: cannot be reached: {e}"));
            return false;
        }
    };
    let identities = match agent.request_identities().await {
        Ok(identities) => identities,
        Err(e) => {
            tried.push(format!("{place}: does not tell its keys: {e}"));
            return false;
        }
    };
    if identities.is_empty() {
        tried.push(format!("{place}: holds no key"));
    }
    for identity in identities {
        let AgentIdentity::PublicKey { key, comment } = identity else {
            tried.push(format!("{place}: a certificate, which is not supported"));
            continue;
        };
        let hash = key.algorithm().is_rsa().then_some(HashAlg::Sha512);
        let shown = format!("{place}, key {} {comment}", key.fingerprint(HashAlg::Sha256));
        match handle.authenticate_publickey_with(config.user.as_str(), key, hash, &mut agent).await {
            Ok(result) => {
                if accepted(&result, shown, tried) {
                    return true;
                }
            }
            Err(e) => tried.push(format!("{shown}: {e}")),
        }
        if handle.is_closed() {
            break;
        }
    }
    false
}

async fn with_file(
    handle: &mut Handle<Checker>,
    config: &SshConfig,
    path: &Path,
    passphrase: Option<SecretString>,
    tried: &mut Vec<String>,
) -> bool {
    let place = format!("key file {}", path.display());
    let owned = path.to_owned();
    // A passphrase is made costly to try on purpose.
    let loading = tokio::task::spawn_blocking(move || load(&owned, passphrase.as_ref()));
    let key = match loading.await.unwrap_or_else(|died| Err(died.to_string())) {
        Ok(key) => key,
        Err(why) => {
            tried.push(format!("{place}: {why}"));
            return false;
        }
    };
    let shown = format!("{place}, {}", key.fingerprint(HashAlg::Sha256));
    match handle.authenticate_publickey(config.user.as_str(), PrivateKeyWithHashAlg::new(Arc::new(key), None)).await {
        Ok(result) => accepted(&result, shown, tried),
        Err(e) => {
            tried.push(format!("{shown}: {e}"));
            false
        }
    }
}

fn load(path: &Path, passphrase: Option<&SecretString>) -> Result<PrivateKey, String> {
    let mode = std::fs::metadata(path).map_err(|e| e.to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("is open to others, mode {:04o}: chmod 600", mode & 0o7777));
    }
    let key = russh::keys::load_secret_key(path, passphrase.map(|secret| secret.expose_secret()));
    let key = key.map_err(|e| match (&e, passphrase) {
        (russh::keys::Error::KeyIsEncrypted, _) => "is encrypted, and no passphrase is configured".to_owned(),
        (_, Some(_)) => format!("cannot be read with this passphrase: {e}"),
        _ => e.to_string(),
    })?;
    if key.algorithm().is_rsa() {
        return Err("an RSA key: only an agent can use it".to_owned());
    }
    Ok(key)
}

fn accepted(result: &AuthResult, shown: String, tried: &mut Vec<String>) -> bool {
    match result {
        AuthResult::Success => return true,
        AuthResult::Failure { partial_success: true, .. } => {
            tried.push(format!("{shown}: taken, but the server asks for more (AuthenticationMethods)"));
        }
        AuthResult::Failure { .. } => tried.push(format!("{shown}: refused")),
    }
    false
}
