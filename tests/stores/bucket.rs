//! [`TestBucket`]: a bucket of the S3 server within this process, or of another one that the environment names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use pgdock_core::backup_sink::BucketSink;
use pgdock_core::witness::bucket::{BucketConfig, Provider};
use pgdock_core::witness::http::Tls;
use pgdock_core::witness::{BucketWitness, Witness, fresh_nonce};
use pgdock_testkit::{Faults, Keys, S3Server};
use secrecy::SecretString;

/// A bucket.
#[derive(Debug)]
pub struct TestBucket {
    config: BucketConfig,
    server: Option<(S3Server, tempfile::TempDir)>,
}

impl TestBucket {
    /// The bucket that the environment names, or else one of a server of its own.
    ///
    /// `PGDOCK_TEST_S3_ENDPOINT` is its URL, with `PGDOCK_TEST_S3_BUCKET`, `PGDOCK_TEST_S3_REGION`,
    /// `PGDOCK_TEST_S3_ACCESS_KEY` and `PGDOCK_TEST_S3_SECRET_KEY`.
    pub async fn new() -> Self {
        let set = |name: &str| std::env::var(format!("PGDOCK_TEST_S3_{name}")).ok();
        let Some(endpoint) = set("ENDPOINT") else { return Self::own().await };
        let (access, secret) = (set("ACCESS_KEY").unwrap_or_default(), set("SECRET_KEY").unwrap_or_default());
        let bucket = set("BUCKET").expect("PGDOCK_TEST_S3_BUCKET goes with PGDOCK_TEST_S3_ENDPOINT");
        let config = BucketConfig { region: set("REGION"), ..config(endpoint, bucket, &Keys { access, secret }) };
        Self { config, server: None }
    }

    /// A bucket of a server of its own, which can be made to fail.
    pub async fn own() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = S3Server::start(listen, dir.path(), Keys::default()).await.expect("the S3 server starts");
        server.make_bucket("witness").expect("a bucket");
        let config = config(server.endpoint(), "witness".to_owned(), server.keys());
        Self { config, server: Some((server, dir)) }
    }

    /// The server, where it is one of this process.
    #[must_use]
    pub fn server(&self) -> &S3Server {
        &self.server.as_ref().expect("the server is not ours").0
    }

    /// Sets what the server does wrong.
    pub fn faults(&self, faults: Faults) {
        self.server().faults().set(faults);
    }

    /// How to reach it.
    #[must_use]
    pub fn config(&self) -> BucketConfig {
        self.config.clone()
    }

    /// A document of this name.
    #[must_use]
    pub fn witness(&self, key: &str) -> BucketWitness {
        BucketWitness::new(self.config(), key).expect("the configuration is whole")
    }

    /// Objects below a prefix of their own.
    #[must_use]
    pub fn sink(&self) -> BucketSink {
        let root = format!("conformance/{}", fresh_nonce());
        BucketSink::new(self.config(), &root).expect("the configuration is whole")
    }

    /// Handles to a document that does not exist yet, each opened for itself.
    #[must_use]
    pub fn fresh(&self, handles: usize) -> Vec<Arc<dyn Witness>> {
        let key = format!("conformance/{}.json", fresh_nonce());
        (0..handles).map(|_| Arc::new(self.witness(&key)) as Arc<dyn Witness>).collect()
    }
}

fn config(endpoint: String, bucket: String, keys: &Keys) -> BucketConfig {
    let credentials = [("AWS_ACCESS_KEY_ID", &keys.access), ("AWS_SECRET_ACCESS_KEY", &keys.secret)];
    BucketConfig {
        provider: Provider::S3,
        bucket,
        tls: Tls { allow_plain: endpoint.starts_with("http:"), ..Tls::default() },
        endpoint: Some(endpoint),
        region: None,
        account: None,
        credentials: credentials
            .map(|(name, value)| (name.to_owned(), SecretString::from(value.clone())))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        pinned: None,
    }
}
