//! Connections to agents, for [`peers`](super::peers) and [`client`](super::client).

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::{Error, Result};

/// What was sent and is not acknowledged for so long by the other host ends the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// Where an agent is, and who it has to be.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `host:port`
    pub(super) address: String,
    /// What its certificate must say.
    server_name: ServerName<'static>,
}

impl Target {
    /// The agent at an address `host:port`, whose certificate must name that host.
    pub(super) fn new(address: &str) -> Result<Self> {
        let invalid = || Error::invalid(format!("expected an address as host:port. found={address}"));
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        port.parse::<u16>().map_err(|_| invalid())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self { address: address.to_owned(), server_name: server_name(host)? })
    }

    /// The same place, but the certificate must say this name: for tunnels and forwarded ports.
    pub(super) fn verified_as(mut self, name: &str) -> Result<Self> {
        self.server_name = server_name(name)?;
        Ok(self)
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .map_err(|e| Error::invalid(format!("no name of a host. name={name}")).because(e))
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// Its host answers that nobody listens.
    Refused(io::Error),
    /// Somebody listens who is not who he should be, or no agent.
    BadIdentity(String),
    /// Anything else, in which silence is one.
    Unreachable(io::Error),
}

/// A connection for one request at a time.
pub(super) struct Connection {
    /// Sends a request.
    pub(super) sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects, within the caller's time.
pub(super) async fn dial(target: &Target, tls: &Arc<ClientConfig>) -> Result<Connection, DialError> {
    let tcp = TcpStream::connect(&target.address).await.map_err(|e| match e.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused(e),
        _ => DialError::Unreachable(e),
    })?;
    tune(&tcp);
    let stream = TlsConnector::from(tls.clone()).connect(target.server_name.clone(), tcp).await.map_err(|e| {
        let fault = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match fault {
            Some(rustls::Error::InvalidCertificate(why)) => DialError::BadIdentity(format!(
                "its certificate is not of this cluster, or not for this address: {why}. address={}",
                target.address
            )),
            Some(rustls::Error::InvalidMessage(_)) => {
                DialError::BadIdentity(format!("what listens there does not speak TLS. address={}", target.address))
            }
            _ => DialError::Unreachable(e),
        }
    })?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|e| DialError::Unreachable(io::Error::other(e)))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "connection to an agent ended");
        }
    });
    Ok(Connection { sender, driver })
}

/// A request to an agent.
pub(super) fn request(
    method: http::Method,
    target: &Target,
    path: &str,
    token: Option<&SecretString>,
    body: Bytes,
) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(path).header(http::header::HOST, target.address.as_str());
    if let Some(token) = token {
        let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|_| Error::invalid("the token has characters that no token has"))?;
        value.set_sensitive(true);
        request = request.header(http::header::AUTHORIZATION, value);
    }
    if !body.is_empty() {
        request = request.header(http::header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(body)).map_err(|e| Error::invalid(format!("no such request. path={path}")).because(e))
}

/// Small messages leave at once, and a host that is gone is noticed soon, also by who only sends.
pub(super) fn tune(tcp: &TcpStream) {
    use rustix::net::sockopt;
    let _ = tcp.set_nodelay(true);
    let fd = tcp.as_fd();
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, Duration::from_secs(2));
    let _ = sockopt::set_tcp_keepintvl(fd, Duration::from_secs(1));
    let _ = sockopt::set_tcp_keepcnt(fd, 3);
    let _ = sockopt::set_tcp_user_timeout(fd, UNACKNOWLEDGED_MAX.as_millis().try_into().unwrap_or(u32::MAX));
}
