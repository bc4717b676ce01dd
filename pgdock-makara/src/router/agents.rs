//! What the agents of a cluster push: each tells of its own node, at once when something changes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::Config;
use tokio_rustls::TlsConnector;

use super::builder::Address;
use super::fleet::Word;
use super::sources::Nursery;
use super::{Error, Role};

/// An agent speaks every two seconds, or is taken for silent.
const SILENCE_MAX: Duration = Duration::from_secs(7);
/// The longest line of an agent that is one.
const LINE_MAX: usize = 64 * 1024;
/// Between two attempts to reach an agent: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// The agents of a cluster, whose word on roles comes before what a server says of itself.
#[derive(Clone)]
pub struct Agents {
    places: Vec<String>,
    template: Config,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agents").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Agents {
    /// Agents at these places, each as `host:port`. `authority` is the cluster's own, as PEM (`secrets/ca.crt`); a
    /// certificate of any other opens nothing. `template` tells all of an address but the host and the port, which the
    /// agents tell.
    ///
    /// # Errors
    ///
    /// The authority cannot be read.
    pub fn new<P: Into<String>>(
        places: impl IntoIterator<Item = P>,
        authority: &[u8],
        template: Config,
    ) -> Result<Self, Error> {
        let refused = |what: &str| Error::Settings(format!("the authority of the agents {what}"));
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(authority).collect();
        let mut roots = RootCertStore::empty();
        for certificate in certificates.map_err(|_| refused("is no PEM"))? {
            roots.add(certificate).map_err(|_| refused("is no certificate"))?;
        }
        if roots.is_empty() {
            return Err(refused("is empty: expected a certificate as PEM"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| refused("cannot be used: there is no version of TLS"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { places: places.into_iter().map(Into::into).collect(), template, tls: Arc::new(tls) })
    }

    pub(super) fn places(&self) -> &[String] {
        &self.places
    }

    pub(super) fn template(&self) -> &Config {
        &self.template
    }

    pub(super) async fn run(self, nursery: Nursery) {
        let mut watches = JoinSet::new();
        for place in &self.places {
            let (agents, nursery, place) = (self.clone(), nursery.clone(), place.clone());
            watches.spawn(async move { agents.watch(&nursery, &place).await });
        }
        while watches.join_next().await.is_some() {}
    }

    /// Watches one agent, for ever.
    async fn watch(&self, nursery: &Nursery, place: &str) {
        let [mut pause, pause_max] = PAUSES;
        loop {
            let mut spoke = BTreeSet::new();
            if let Err(why) = self.listen(nursery, place, &mut spoke).await {
                tracing::debug!(agent = place, why, "an agent is not heard");
            }
            // Its word was for the time in which it spoke.
            for node in &spoke {
                nursery.fleet.told(node, None);
            }
            if !spoke.is_empty() {
                [pause, _] = PAUSES;
            }
            sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    }

    async fn listen(&self, nursery: &Nursery, place: &str, spoke: &mut BTreeSet<String>) -> Result<(), String> {
        let opened = timeout(nursery.limits.connect, self.open(place)).await;
        let (mut body, _driver) = opened.map_err(|_| "no answer in time".to_owned())??;
        let mut buffer = BytesMut::new();
        loop {
            let frame = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| "it fell silent".to_owned())?;
            let Some(frame) = frame else { return Err("it ended".to_owned()) };
            let frame = frame.map_err(|error| error.to_string())?;
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = serde_json::from_slice::<Line>(&buffer[..end]);
                buffer.advance(end + 1);
                let line = line.map_err(|error| format!("a line is none: {error}"))?;
                if let Some(address) = line.address(&self.template) {
                    nursery.add(address, None).map_err(|error| error.to_string())?;
                }
                nursery.fleet.told(&line.node, Some(line.word()));
                spoke.insert(line.node);
            }
            if buffer.len() > LINE_MAX {
                return Err("a line has no end".to_owned());
            }
        }
    }

    async fn open(&self, place: &str) -> Result<(hyper::body::Incoming, JoinSet<()>), String> {
        let told = |error: &dyn fmt::Display| error.to_string();
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned());
        let tcp = TcpStream::connect(place).await.map_err(|error| told(&error))?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name.map_err(|error| told(&error))?, tcp).await;
        let (mut sender, connection) =
            handshake(TokioIo::new(tls.map_err(|error| told(&error))?)).await.map_err(|error| told(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        let request = Request::get("/v1/watch").header(header::HOST, place).body(Empty::<Bytes>::new());
        let response =
            sender.send_request(request.map_err(|error| told(&error))?).await.map_err(|error| told(&error))?;
        match response.status() {
            http::StatusCode::OK => Ok((response.into_body(), driver)),
            status => Err(format!("it answers {status}")),
        }
    }
}

/// A line of `/v1/watch`. What else it holds is of later versions.
#[derive(Debug, Deserialize)]
struct Line {
    node: String,
    term: Option<u64>,
    role: String,
    timeline: u32,
    address: String,
    lsn: String,
}

impl Line {
    fn word(&self) -> Word {
        let lsn = self.lsn.split_once('/').and_then(|(high, low)| {
            let half = |part| u32::from_str_radix(part, 16).ok().map(u64::from);
            Some(half(high)? << 32 | half(low)?)
        });
        let role = match self.role.as_str() {
            "primary" => Role::Primary { timeline: self.timeline },
            "standby" => Role::Standby,
            _ => Role::Unknown,
        };
        Word { role, timeline: self.timeline, term: self.term, lsn: lsn.unwrap_or_default() }
    }

    /// Where its PostgreSQL is. A witness has none.
    fn address(&self, template: &Config) -> Option<Address> {
        let (host, port) = self.address.rsplit_once(':')?;
        let mut config = template.clone();
        config.host(host.trim_start_matches('[').trim_end_matches(']')).port(port.parse().ok()?);
        Some(Address::new(self.node.clone(), config, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_agent_becomes_a_node_and_a_word() {
        let line =
            r#"{"node":"n1","term":3,"role":"primary","timeline":2,"address":"[::1]:6543","lsn":"1/2A","more":0}"#;
        let line: Line = serde_json::from_str(line).unwrap();
        let role = Role::Primary { timeline: 2 };
        assert_eq!(line.word(), Word { role, timeline: 2, term: Some(3), lsn: 0x1_0000_002A });
        let address = line.address(&Config::new()).unwrap();
        assert_eq!((address.name.as_str(), address.config.get_ports()), ("n1", &[6543][..]));
        assert_eq!(address.config.get_hosts(), [tokio_postgres::config::Host::Tcp("::1".to_owned())]);
        let unknown = Line { role: "of later".to_owned(), lsn: "?".to_owned(), address: String::new(), ..line };
        assert_eq!(unknown.word().role, Role::Unknown);
        assert!(unknown.address(&Config::new()).is_none());
        assert!(Agents::new(["n1:1"], b"no certificate", Config::new()).is_err());
    }
}
