//! Keepers of failover addresses, as their providers document them: what they answer, how late an accepted switch
//! shows, whom they refuse. Each is a server on this machine that a test points an implementation at.

mod ec2;
mod hetzner_cloud;
mod hetzner_robot;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

pub use ec2::Ec2;
pub use hetzner_cloud::HetznerCloud;
pub use hetzner_robot::HetznerRobot;

/// A request, all of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`, `POST` …
    pub method: Method,
    /// Without the query.
    pub path: String,
    /// What stands behind the question mark.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// What was sent.
    pub body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A field of a body of `application/x-www-form-urlencoded`.
    fn field(&self, name: &str) -> Option<String> {
        let body = String::from_utf8_lossy(&self.body);
        body.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| decoded(v))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub body: String,
}

impl Reply {
    /// An answer without headers of its own.
    #[must_use]
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What befalls a request.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It has no effect, and this is the answer.
    Refuse(Reply),
    /// It has its effect, and the connection breaks before the answer.
    LoseAnswer,
    /// It has its effect, and there is no answer, for as long as anybody waits.
    Hang,
}

/// What a keeper does with a request.
pub trait Ways: Send + 'static {
    /// Answers it.
    fn answer(&mut self, asked: &Asked) -> Reply;
}

#[derive(Debug)]
struct Shared<W> {
    ways: W,
    asked: Vec<Asked>,
    next: VecDeque<(Method, Trouble)>,
    every: Option<(usize, Trouble)>,
}

/// A keeper that listens.
#[derive(Debug)]
pub struct Keeper<W> {
    address: SocketAddr,
    shared: Arc<Mutex<Shared<W>>>,
    task: tokio::task::JoinHandle<()>,
}

impl<W: Ways> Keeper<W> {
    /// Listens on a port of its own on 127.0.0.1.
    ///
    /// # Errors
    /// Where the machine does not let it.
    pub async fn start(ways: W) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared { ways, asked: Vec::new(), next: VecDeque::new(), every: None }));
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What befalls the next request of a method that nothing befalls yet.
    pub fn next(&self, method: Method, trouble: Trouble) {
        lock(&self.shared).next.push_back((method, trouble));
    }

    /// What befalls every `n`th request.
    pub fn every(&self, n: usize, trouble: Trouble) {
        lock(&self.shared).every = Some((n, trouble));
    }

    /// The requests so far of a method.
    #[must_use]
    pub fn asked(&self, method: &Method) -> Vec<Asked> {
        lock(&self.shared).asked.iter().filter(|asked| asked.method == *method).cloned().collect()
    }

    /// Looks at what it knows, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut W) -> T) -> T {
        look(&mut lock(&self.shared).ways)
    }
}

impl<W> Drop for Keeper<W> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<W>(shared: &Mutex<Shared<W>>) -> MutexGuard<'_, Shared<W>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve<W: Ways>(listener: TcpListener, shared: Arc<Mutex<Shared<W>>>) {
    // The connections end with the server.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&shared), request));
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The connection breaks: there is nothing to say.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is to break")
    }
}

impl std::error::Error for Broken {}

async fn handle<W: Ways>(
    shared: Arc<Mutex<Shared<W>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes().to_vec();
    let asked = Asked {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    let (reply, trouble) = {
        let mut shared = lock(&shared);
        shared.asked.push(asked.clone());
        let now = shared.next.iter().position(|(method, _)| *method == asked.method);
        let trouble = match now.and_then(|at| shared.next.remove(at)) {
            Some((_, trouble)) => Some(trouble),
            None => {
                shared.every.clone().filter(|(n, _)| shared.asked.len().is_multiple_of(*n)).map(|(_, trouble)| trouble)
            }
        };
        match trouble {
            Some(Trouble::Refuse(reply)) => (reply, None),
            other => (shared.ways.answer(&asked), other),
        }
    };
    match trouble {
        Some(Trouble::LoseAnswer) => return Err(Broken),
        Some(Trouble::Hang) => std::future::pending().await,
        _ => {}
    }
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}
