//! [`S3Server`]: the server, in this process.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::faults::{Answers, Instead, Outage, Switch};
use crate::spoilt::Spoilt;
use crate::store::Store;

/// The key pair that requests must be signed with.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The public half.
    pub access: String,
    /// The secret one.
    pub secret: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self { access: "pgdock-test".to_owned(), secret: "not-a-secret".to_owned() }
    }
}

/// An S3 server on a folder: a bucket is a folder in it. It stops when it is dropped.
///
/// A request that has arrived is carried out to its end, also if its client gives up or goes away.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    dir: PathBuf,
    keys: Keys,
    switch: Arc<Switch>,
    serving: JoinHandle<()>,
}

impl S3Server {
    /// Serves the folder at an address; port 0 is a free one. The folder is made if it is missing.
    ///
    /// # Errors
    /// When the address is taken, or the folder cannot be used.
    pub async fn start(listen: SocketAddr, dir: &Path, keys: Keys) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let switch = Arc::new(Switch::new(1));
        let files = FileSystem::new(dir).map_err(|e| io::Error::other(format!("{e:?}")))?;
        let mut builder = S3ServiceBuilder::new(Store::new(files, dir, Arc::clone(&switch)));
        builder.set_auth(SimpleAuth::from_single(keys.access.clone(), keys.secret.clone()));
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(accept(listener, builder.build(), Arc::clone(&switch)));
        Ok(Self { address, dir: dir.to_owned(), keys, switch, serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS:PORT`, as clients want it. Buckets are in the path, not in the host's name.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What requests must be signed with.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Makes a bucket. Its name has at least three characters.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn make_bucket(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.dir.join(name))
    }

    /// What it does wrong; to be changed at any time.
    #[must_use]
    pub fn faults(&self) -> &Arc<Switch> {
        &self.switch
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, service: S3Service, switch: Arc<Switch>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, service.clone(), Arc::clone(&switch)));
                }
                // Out of file descriptors, as a rule.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, service: S3Service, switch: Arc<Switch>) {
    let mut outage = switch.outage();
    let served = service_fn(|request| answer(request, service.clone(), Arc::clone(&switch)));
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), served);
    tokio::select! {
        // An outage that there is already wins over a request that has just come.
        biased;
        _ = outage.wait_for(|outage| *outage == Outage::Cut) => {}
        // A client that goes away is no error here.
        _ = serving => {}
    }
}

/// An error ends the connection.
async fn answer(request: Request<Incoming>, service: S3Service, switch: Arc<Switch>) -> Result<Response<Body>, Cut> {
    if switch.get().outage == Outage::Silent {
        std::future::pending::<Infallible>().await;
    }
    let fate = switch.fate(matches!(*request.method(), Method::GET | Method::HEAD));
    // Not a part of the connection: it is carried out even where nobody waits for the answer.
    let working = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(fate.wait_ms)).await;
        match fate.answer {
            Some(instead) => Ok(instead.response()),
            None => service.call(request.map(Body::from)).await.map_err(|_| Cut),
        }
    });
    let answer = working.await.map_err(|_| Cut)??;
    match fate.lost {
        None if answer.status().is_success() && fate.spoil.is_any() => {
            Ok(answer.map(|body| Body::http_body_unsync(Spoilt::new(body, fate.spoil))))
        }
        None => Ok(answer),
        Some(Answers::Error) => Ok(Instead::Failed.response()),
        Some(Answers::Cut) => Err(Cut),
        Some(Answers::Silent) => std::future::pending().await,
    }
}

impl Instead {
    fn response(self) -> Response<Body> {
        let (status, code) = match self {
            Self::SlowDown => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        };
        let text = format!("<Error><Code>{code}</Code><Message>As the test wants it.</Message></Error>");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
    }
}

#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut on purpose")
    }
}

impl std::error::Error for Cut {}
