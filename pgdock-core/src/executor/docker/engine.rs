//! [`Engine`]: the requests that Docker's engine answers, as many as are needed here.
//!
//! Each goes by a connection of its own, as cheap as a socket of this machine is, and over SSH a channel of the one
//! connection: nothing has to be kept alive between them, and a request that is dropped ends with its connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::transport::{EngineAddress, Transport};
use crate::{Error, Result};

/// The oldest version of the interface that has all that is asked of it: Docker 19.03.
const OLDEST: ApiVersion = ApiVersion(1, 40);
/// The newest one that this was written for. A newer engine speaks it, too.
const NEWEST: ApiVersion = ApiVersion(1, 44);
/// How long an engine may take to answer what it can answer at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read as a whole.
const ANSWER_MAX: usize = 8 << 20;

/// An engine that containers run in: Docker, or one that speaks as it does.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    about: OnceCell<EngineAbout>,
}

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineAbout {
    /// Its version, such as `28.2.2`.
    pub version: String,
    /// The version of its interface that is spoken with it, such as `1.44`.
    pub api: String,
    /// Its machine, as Docker names it: `amd64`, `arm64`.
    pub architecture: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct About {
    #[serde(default)]
    version: String,
    api_version: String,
    #[serde(default, rename = "MinAPIVersion")]
    min_api_version: Option<String>,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    os: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ApiVersion(u32, u32);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// As a URL.
impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.transport.address().fmt(f)
    }
}

impl Engine {
    /// An engine by its address. Nothing is opened yet.
    #[must_use]
    pub fn new(address: EngineAddress) -> Self {
        Self { inner: Arc::new(Inner { transport: Transport::new(address), about: OnceCell::new() }) }
    }

    /// What it says of itself; asked once.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached, `Invalid` when it is too old, or runs other things than Linux.
    pub async fn about(&self) -> Result<&EngineAbout> {
        self.inner.about.get_or_try_init(|| self.ask()).await
    }

    /// What its clock says.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer.
    pub async fn clock(&self) -> Result<jiff::Timestamp> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Info {
            system_time: jiff::Timestamp,
        }
        let info: Info = self.json(Method::GET, "/info", None, "the engine does not tell its time").await?;
        Ok(info.system_time)
    }

    async fn ask(&self) -> Result<EngineAbout> {
        let answer = self.send(Method::GET, "/version", None, Sending::default()).await?;
        let about: About = self.parse(&self.read(answer).await?)?;
        let no = |what: &str, hint: &str| {
            let (api, min) = (&about.api_version, about.min_api_version.as_deref().unwrap_or("unknown"));
            Err(Error::invalid(format!(
                "{what}. engine={self}, version={}, api={api}, oldest_api={min}, os={}",
                about.version, about.os
            ))
            .hint(hint))
        };
        if !about.os.is_empty() && about.os != "linux" {
            return no("the engine does not run containers of Linux", "nodes run on Linux");
        }
        let Some(theirs) = ApiVersion::parse(&about.api_version) else {
            return no("the engine does not say which interface it has", "is it Docker's engine that answers there?");
        };
        if theirs < OLDEST {
            return no("the engine is too old", "Docker 19.03 or newer is needed there");
        }
        if about.min_api_version.as_deref().and_then(ApiVersion::parse).is_some_and(|least| least > NEWEST) {
            return no("the engine is newer than this program knows", "a newer pgdock speaks with it");
        }
        Ok(EngineAbout { version: about.version, api: theirs.min(NEWEST).to_string(), architecture: about.arch })
    }

    /// Sends a request in the version that both speak, and takes an answer that is no refusal.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        what: &str,
    ) -> Result<Response<Incoming>> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.call_with(method, path, body.map(|body| ("application/json", body)), Sending::default(), what).await
    }

    /// The same, with any content, and in other ways.
    pub(super) async fn call_with(
        &self,
        method: Method,
        path: &str,
        content: Option<(&str, Bytes)>,
        sending: Sending,
        what: &str,
    ) -> Result<Response<Incoming>> {
        let version = &self.about().await?.api;
        let answer = self.send(method, &format!("/v{version}{path}"), content, sending).await?;
        let status = answer.status();
        if status.is_success() || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS) {
            return Ok(answer);
        }
        let said = self.read(answer).await.unwrap_or_default();
        Err(self.refusal(status, &said, what))
    }

    /// Sends a request whose answer is read as a whole.
    pub(super) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        what: &str,
    ) -> Result<T> {
        let answer = self.call(method, path, body, what).await?;
        self.parse(&self.read(answer).await?)
    }

    /// The same where what is asked for may not be there.
    pub(super) async fn find<T: serde::de::DeserializeOwned>(&self, path: &str, what: &str) -> Result<Option<T>> {
        let version = &self.about().await?.api;
        let answer = self.send(Method::GET, &format!("/v{version}{path}"), None, Sending::default()).await?;
        let status = answer.status();
        let said = self.read(answer).await?;
        match status {
            StatusCode::OK => self.parse(&said).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(status, &said, what)),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: Option<(&str, Bytes)>,
        sending: Sending,
    ) -> Result<Response<Incoming>> {
        let lost = || Error::unavailable(format!("the engine did not answer. engine={self}"));
        let mut request = Request::builder().method(&method).uri(path).header(HOST, "docker");
        if sending.upgrade {
            request = request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        let body = content.map_or_else(Bytes::new, |(kind, body)| {
            if let Some(headers) = request.headers_mut()
                && let Ok(kind) = kind.parse()
            {
                headers.insert(CONTENT_TYPE, kind);
            }
            body
        });
        let request = request
            .body(Full::new(body))
            .map_err(|e| Error::invalid(format!("a name does not fit into a request. path={path}")).because(e))?;
        let sent = async {
            let stream = self.inner.transport.open().await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost().because(e))?;
            // It ends with the request and its answer.
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await.map_err(|e| {
                let lost = lost().because(e);
                // What is only read has no effect.
                if method == Method::GET { lost } else { lost.outcome_unknown() }
            })
        };
        match tokio::time::timeout(sending.patience, sent).await {
            Ok(answer) => answer,
            Err(_) => {
                let late = Error::unavailable(format!(
                    "the engine did not answer in time. engine={self}, seconds={}",
                    sending.patience.as_secs()
                ));
                Err(if method == Method::GET { late } else { late.outcome_unknown() })
            }
        }
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Bytes> {
        let broken = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::unavailable(format!("the engine's answer was lost. engine={self}")).because(e)
        };
        let reading = Limited::new(answer.into_body(), ANSWER_MAX).collect();
        let read = tokio::time::timeout(PATIENCE, reading).await.map_err(|e| broken(e.into()))?;
        Ok(read.map_err(broken)?.to_bytes())
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, said: &[u8]) -> Result<T> {
        serde_json::from_slice(said).map_err(|e| {
            Error::internal(format!("the engine's answer is not understood. engine={self}"))
                .because(e)
                .hint("is it Docker's engine that answers there?")
        })
    }

    fn refusal(&self, status: StatusCode, said: &[u8], what: &str) -> Error {
        #[derive(Deserialize)]
        struct Said {
            message: String,
        }
        let message = format!("{what}. engine={self}");
        let said = serde_json::from_slice::<Said>(said)
            .map_or_else(|_| String::from_utf8_lossy(&said[..said.len().min(500)]).into_owned(), |said| said.message);
        let error = match status {
            StatusCode::NOT_FOUND => Error::not_ready(message),
            StatusCode::CONFLICT => Error::conflict(message),
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Error::invalid(message),
            _ => Error::unavailable(message),
        };
        error.because(format!("{} ({})", said.trim(), status.as_u16()))
    }
}

/// How a request is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// The connection becomes a program's inputs and outputs.
    pub(super) upgrade: bool,
    /// How long the answer may take to begin.
    pub(super) patience: Duration,
}

impl Default for Sending {
    fn default() -> Self {
        Self { upgrade: false, patience: PATIENCE }
    }
}

/// A text as part of a path or query.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut to = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            let _ = write!(to, "%{byte:02X}");
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert!(ApiVersion::parse("1.9") < ApiVersion::parse("1.41"));
        assert_eq!(ApiVersion::parse("2"), None);
        assert_eq!(encoded("a b/ü"), "a%20b%2F%C3%BC");
    }
}
