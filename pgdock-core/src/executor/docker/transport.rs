//! The ways to an engine: a socket of this machine, TLS, or a socket of another machine over SSH.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::agent::{host_port, tls};
use crate::executor::ssh::{Link, SshConfig};
use crate::{Error, Result};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where an engine is, and what opens the way to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EngineAddress {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port that speaks TLS, and asks who its clients are.
    Tls {
        /// A name or an address.
        host: String,
        /// The port; as a rule 2376.
        port: u16,
        /// The folder of `ca.pem`, `cert.pem` and `key.pem`, which the engine's own programs use, too.
        certificates: PathBuf,
    },
    /// A socket of another machine, over SSH.
    Ssh {
        /// How that machine is reached.
        config: Box<SshConfig>,
        /// The socket there.
        socket: PathBuf,
    },
}

impl std::fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tls { host, port, .. } => write!(f, "tcp://{}", host_port(host, *port)),
            Self::Ssh { config, socket } if socket == Path::new("/var/run/docker.sock") => config.fmt(f),
            Self::Ssh { config, socket } => write!(f, "{config}{}", socket.display()),
        }
    }
}

/// What bytes go to and fro on.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens the way to an engine, as often as it is asked to.
#[derive(Debug)]
pub(super) struct Transport {
    address: EngineAddress,
    /// One connection carries all ways to the engine.
    link: Option<Link>,
}

impl Transport {
    pub(super) fn new(address: EngineAddress) -> Self {
        let link = match &address {
            EngineAddress::Ssh { config, .. } => Some(Link::new(SshConfig::clone(config))),
            _ => None,
        };
        Self { address, link }
    }

    pub(super) fn address(&self) -> &EngineAddress {
        &self.address
    }

    pub(super) async fn open(&self) -> Result<Box<dyn Duplex>> {
        let unreachable = |e: std::io::Error| {
            let kind = e.kind();
            let error = Error::unavailable(format!("the engine cannot be reached. engine={}", self.address)).because(e);
            match kind {
                Io::PermissionDenied => error.hint("its socket is for root and for the group docker alone"),
                Io::NotFound => error.hint("is Docker installed on this machine? The key engine says where it listens"),
                _ => error.hint("is the engine running there? `systemctl status docker`"),
            }
        };
        let late = || {
            Error::unavailable(format!(
                "the engine did not take a connection in time. engine={}, seconds={}",
                self.address,
                CONNECT.as_secs()
            ))
        };
        match (&self.address, &self.link) {
            (EngineAddress::Unix(path), _) => {
                let stream = tokio::time::timeout(CONNECT, UnixStream::connect(path)).await.map_err(|_| late())?;
                Ok(Box::new(stream.map_err(unreachable)?))
            }
            (EngineAddress::Tls { host, port, certificates }, _) => {
                let config = client(certificates).await?;
                let name = ServerName::try_from(host.clone()).map_err(|e| {
                    Error::invalid(format!("the engine's host is no name. engine={}", self.address)).because(e)
                })?;
                let connecting = async {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                    // Without it small packets are merely slower.
                    let _ = stream.set_nodelay(true);
                    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|e| {
                        Error::unavailable(format!(
                            "the engine and this program do not trust each other. engine={}",
                            self.address
                        ))
                        .because(e)
                        .hint(format!(
                            "ca.pem, cert.pem and key.pem in {} must be the engine's",
                            certificates.display()
                        ))
                    })
                };
                Ok(Box::new(tokio::time::timeout(CONNECT, connecting).await.map_err(|_| late())??))
            }
            (EngineAddress::Ssh { socket, .. }, Some(link)) => Ok(Box::new(link.forward(socket).await?)),
            (EngineAddress::Ssh { .. }, None) => Err(Error::internal("an engine over SSH has no way to its machine")),
        }
    }
}

/// Reads what both sides prove themselves with. Anew each time: a file may have been replaced.
async fn client(dir: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let read = async |name: &str| {
        let path = dir.join(name);
        tokio::fs::read(&path).await.map_err(|e| {
            Error::invalid(format!("a certificate of the engine is not readable. file={}", path.display()))
                .because(e)
                .hint("[docker] certificates names the folder of ca.pem, cert.pem and key.pem")
        })
    };
    let (ca, certificate, key) = (read("ca.pem").await?, read("cert.pem").await?, read("key.pem").await?);
    tls::client_config_with(&ca, Some((&certificate, &key)))
        .map_err(|e| e.at(format_args!("certificates={}", dir.display())))
}
