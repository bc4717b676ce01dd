//! [`Connection`]: a connection to a node whose key was checked, with a user logged in.

use std::borrow::Cow;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle, Msg};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{Channel, ChannelStream, Disconnect, Preferred};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth;
use super::config::{HostKeys, SshConfig};
use super::known_hosts::Known;
use crate::{Error, Result};

/// How many sessions are kept for killing.
const KILLS: usize = 2;
/// How many questions to a silent server may stay without an answer.
const KEEPALIVES: usize = 3;

pub(super) struct Connection {
    handle: Handle<Checker>,
    node: String,
    patience: Duration,
    sessions: Arc<Semaphore>,
    kills: Arc<Semaphore>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What a session is for: it decides which share of the server's sessions it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Command,
    File,
    Kill,
}

impl Connection {
    /// Connects, checks the server's key, and logs in.
    pub(super) async fn open(config: &SshConfig) -> Result<Arc<Self>> {
        config.check()?;
        let node = config.to_string();
        let times = &config.timeouts;
        let known = match &config.host_keys {
            HostKeys::KnownHosts(files) => Some(Known::read(files, &config.host, config.port, &node)?),
            HostKeys::AcceptAny => None,
        };
        let settings = Arc::new(client::Config {
            keepalive_interval: Some(times.keepalive),
            keepalive_max: KEEPALIVES,
            nodelay: true,
            preferred: Preferred { key: Cow::Owned(preferred(known.as_ref())), ..Preferred::default() },
            ..client::Config::default()
        });
        let connecting = TcpStream::connect((config.host.as_str(), config.port));
        let stream =
            within(times.connect, "the node did not take a connection", &node, connecting).await?.map_err(|e| {
                Error::unavailable(format!("the node cannot be reached. node={node}"))
                    .because(e)
                    .hint("is the machine up, is sshd running there, and is its port open to this one?")
            })?;
        // Nagle's algorithm would hold back small packets; without the option they are merely slower.
        let _ = stream.set_nodelay(true);
        let shaking = client::connect_stream(settings, stream, Checker { known });
        let shaken = within(times.handshake, "the node did not finish the handshake", &node, shaking).await?;
        let mut handle = shaken.map_err(|refusal| match refusal {
            Refusal::Key(error) => error,
            Refusal::Ssh(e) => {
                let error = Error::unavailable(format!("the handshake with the node failed. node={node}")).because(e);
                error.hint("does an SSH server listen on that port, with host keys of ed25519 or ecdsa?")
            }
        })?;
        let login = auth::login(&mut handle, config, &node);
        within(times.auth, "the node did not say whether the user may log in", &node, login).await??;
        Ok(Arc::new(Self {
            handle,
            node,
            patience: times.channel,
            sessions: Arc::new(Semaphore::new(config.sessions_max)),
            kills: Arc::new(Semaphore::new(KILLS)),
        }))
    }

    /// Whether it can still be used, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed()
    }

    /// Opens a session once one is free. Nothing runs in it yet.
    pub(super) async fn session(self: &Arc<Self>, purpose: Purpose) -> Result<Session> {
        let closed = |e| Error::internal("a semaphore was closed").because(e);
        let free = "no session with the node came free";
        let permit = match purpose {
            // A command has a time of its own.
            Purpose::Command => Arc::clone(&self.sessions).acquire_owned().await,
            Purpose::File => {
                within(self.patience, free, &self.node, Arc::clone(&self.sessions).acquire_owned()).await?
            }
            Purpose::Kill => within(self.patience, free, &self.node, Arc::clone(&self.kills).acquire_owned()).await?,
        };
        let permit = permit.map_err(closed)?;
        // It goes on when the caller does not: a session that nobody closes would be lost to the connection.
        let connection = Arc::clone(self);
        let (give, take) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let opened = connection.handle.channel_open_session().await;
            if let Err(Ok(unwanted)) = give.send(opened) {
                // It closes with the connection, if that has just been lost.
                let _ = unwanted.close().await;
            }
        });
        let opened = within(self.patience, "the node did not open a session", &self.node, take).await;
        match opened {
            Ok(Ok(Ok(channel))) => Ok(Session { connection: Arc::clone(self), channel, permit }),
            Ok(Ok(Err(russh::Error::ChannelOpenFailure(reason)))) => {
                Err(Error::unavailable(format!("the node refused a session. node={}, reason={reason:?}", self.node))
                    .hint("MaxSessions in its sshd_config must allow two more than sessions_max"))
            }
            Ok(Ok(Err(e))) => {
                Err(Error::unavailable(format!("the connection was lost. node={}", self.node)).because(e))
            }
            Ok(Err(e)) => Err(Error::internal("a task ended before its time").because(e)),
            Err(late) => {
                // What does not answer for so long is not waited for by the next caller.
                self.end("no answer").await;
                Err(late)
            }
        }
    }

    /// Opens a way to a socket of the node.
    pub(super) async fn forward(&self, socket: &Path) -> Result<ChannelStream<Msg>> {
        let at = || format!("node={}, socket={}", self.node, socket.display());
        let path = socket.to_str().ok_or_else(|| Error::invalid(format!("a path is not UTF-8. {}", at())))?;
        let opening = self.handle.channel_open_direct_streamlocal(path);
        match within(self.patience, "the node did not open a way to a socket", &self.node, opening).await? {
            Ok(channel) => Ok(channel.into_stream()),
            Err(russh::Error::ChannelOpenFailure(reason)) => Err(Error::unavailable(format!(
                "the node does not let the user through to a socket. {}, reason={reason:?}",
                at()
            ))
            .hint("is there something that listens on it, and may the user open it?")
            .hint("AllowStreamLocalForwarding in its sshd_config must be yes, and DisableForwarding no")),
            Err(e) => Err(Error::unavailable(format!("the connection was lost. node={}", self.node)).because(e)),
        }
    }

    /// Asks the server for a sign of life. What it sent before has then arrived.
    pub(super) async fn ping(&self) {
        // Where the connection was lost, whoever reads from it learns that.
        let _ = self.handle.send_ping().await;
    }

    /// Gives it up: whatever came by it is killed on the node.
    pub(super) async fn end(&self, why: &str) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, why, "en").await;
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }
}

/// A session in which nothing runs yet.
pub(super) struct Session {
    pub(super) connection: Arc<Connection>,
    pub(super) channel: Channel<Msg>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Bounds a step.
pub(super) async fn within<T>(time: Duration, what: &str, node: &str, step: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(time, step)
        .await
        .map_err(|_| Error::unavailable(format!("{what} in time. node={node}, seconds={}", time.as_secs_f64())))
}

/// The kinds of keys to ask a server for: first those that it is known by.
fn preferred(known: Option<&Known>) -> Vec<Algorithm> {
    let mut algorithms: Vec<Algorithm> = Preferred::default()
        .key
        .iter()
        .filter(|algorithm| !matches!(algorithm, Algorithm::Rsa { .. }))
        .cloned()
        .collect();
    algorithms.sort_by_key(|algorithm| !known.is_some_and(|known| known.has(algorithm.as_str())));
    algorithms
}

/// Sees to it that the server is the right one.
#[derive(Debug)]
pub(super) struct Checker {
    /// Nothing where any key will do.
    known: Option<Known>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refusal {
    Key(Error),
    Ssh(russh::Error),
}

impl From<russh::Error> for Refusal {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Checker {
    type Error = Refusal;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Refusal> {
        match (&self.known, shown) {
            (None, _) => Ok(true),
            (Some(known), PublicKeyOrCertificate::PublicKey { key, .. }) => {
                known.check(key).map(|()| true).map_err(Refusal::Key)
            }
            // None was asked for.
            (Some(_), PublicKeyOrCertificate::Certificate(_)) => Ok(false),
        }
    }
}
