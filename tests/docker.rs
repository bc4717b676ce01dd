//! [`TestEngine`]: the engine of this machine, and containers that live for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgdock_core::executor::DockerExecutor;
use pgdock_core::executor::docker::{Engine, EngineAddress};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};

use crate::stores::skip;

/// Where the engine of this machine listens.
pub const SOCKET: &str = "/var/run/docker.sock";
/// What containers of tests are made from, as `scripts/setup.sh --tests` makes it where no registry is reached.
pub const IMAGE: &str = "debian:trixie-slim";

/// The engine of this machine.
#[derive(Clone, Debug)]
pub struct TestEngine {
    /// The engine.
    pub engine: Engine,
}

/// A container that sleeps. It is removed when it is dropped.
#[derive(Debug)]
pub struct TestContainer {
    engine: Engine,
    /// Its name.
    pub name: String,
}

impl TestEngine {
    /// The engine, where one answers that has the image of the tests.
    pub async fn find() -> Option<Self> {
        let engine = Engine::new(EngineAddress::Unix(SOCKET.into()));
        match engine.image(IMAGE).await {
            Ok(Some(_)) => Some(Self { engine }),
            Ok(None) => skip(&format!("the engine has no image {IMAGE}: `scripts/setup.sh --tests` makes it")),
            Err(e) => skip(&e.chain()),
        }
    }

    /// A container that sleeps.
    pub async fn container(&self) -> TestContainer {
        let name = format!("pgdock-test-{:016x}", rand::random::<u64>());
        let spec = json!({
            "Image": IMAGE, "Cmd": ["sleep", "infinity"],
            "HostConfig": { "NetworkMode": "none", "Init": true },
        });
        let this = TestContainer { engine: self.engine.clone(), name };
        this.engine.create_container(&this.name, &spec).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        this.engine.start_container(&this.name).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        this
    }
}

impl TestContainer {
    /// What runs commands in it.
    #[must_use]
    pub fn executor(&self) -> DockerExecutor {
        self.through(self.engine.clone())
    }

    /// What runs commands in it by another way to its engine.
    #[must_use]
    pub fn through(&self, engine: Engine) -> DockerExecutor {
        DockerExecutor::new(engine, &self.name)
    }
}

impl Drop for TestContainer {
    fn drop(&mut self) {
        let (engine, name) = (self.engine.clone(), std::mem::take(&mut self.name));
        // A test's own runtime may be ending.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            if let Err(e) = runtime.block_on(engine.remove_container(&name, true)) {
                eprintln!("a container was left: {name}: {}", e.chain());
            }
        });
        let _ = removing.join();
    }
}

/// An engine's port: TLS, with clients that must show a certificate, in front of the socket of this machine.
#[derive(Debug)]
pub struct TlsFront {
    /// Where it listens.
    pub port: u16,
    dir: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl TlsFront {
    /// Listens on 127.0.0.1.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = || rcgen::KeyPair::generate().expect("a key");
        let authority = rcgen::CertifiedIssuer::self_signed(params, key()).expect("an authority");
        let signed = |name: &str| {
            let key = key();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
            (params.signed_by(&key, &authority).expect("a certificate"), key)
        };
        let (client, client_key) = signed("client");
        for (name, text) in
            [("ca.pem", authority.pem()), ("cert.pem", client.pem()), ("key.pem", client_key.serialize_pem())]
        {
            std::fs::write(dir.path().join(name), text).expect("a file");
        }
        let (server, server_key) = signed("127.0.0.1");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
            .build()
            .expect("a verifier");
        let server_key = rustls::pki_types::PrivatePkcs8KeyDer::from(server_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone()], server_key.into())
            .expect("a certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that is refused is the test's own matter.
                    if let (Ok(mut stream), Ok(mut engine)) =
                        (acceptor.accept(stream).await, UnixStream::connect(SOCKET).await)
                    {
                        let _ = copy_bidirectional(&mut stream, &mut engine).await;
                    }
                });
            }
        });
        Self { port, dir, task }
    }

    /// A file of its own certificates.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another port, with the certificates of this one.
    #[must_use]
    pub fn at(&self, port: u16) -> Engine {
        let certificates = self.dir.path().to_owned();
        Engine::new(EngineAddress::Tls { host: "127.0.0.1".into(), port, certificates })
    }

    /// The engine behind it, with the certificates of a folder; its own where none is named.
    #[must_use]
    pub fn engine(&self, certificates: Option<&Path>) -> Engine {
        let certificates = certificates.map_or_else(|| PathBuf::from(self.dir.path()), Path::to_owned);
        Engine::new(EngineAddress::Tls { host: "127.0.0.1".into(), port: self.port, certificates })
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}
