//! [`BucketWitness`]: a document that is an object in a bucket, so that two data nodes need no third server.
//!
//! The store compares: a create carries `If-None-Match: *`, a replacement the ETag (S3, Azure) or the
//! generation (Google) of the object that it replaces. Not every store that takes these conditions looks at
//! them, hence [`probe`](super::probe()).

mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    RetryConfig, UpdateVersion,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::http::Tls;
pub use super::url::Provider;
use super::{Record, Swap, Version, Witness};
use crate::{Error, Result};
use wire::{Answer, Connector, Fate, Note};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// More than any document: a larger object is somebody else's.
const BYTES_MAX: u64 = 4 << 20;

/// Where a document is, and how to get at it.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Whose interface the store speaks.
    pub provider: Provider,
    /// The bucket, or container. It must exist.
    pub bucket: String,
    /// The object.
    pub key: String,
    /// Where the store is, as a URL, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region; needed by Amazon.
    pub region: Option<String>,
    /// The storage account; needed by Azure.
    pub account: Option<String>,
    /// What the provider's tools would read from the environment, such as `AWS_SECRET_ACCESS_KEY`. Where there
    /// is nothing, the machine's own identity is used.
    pub credentials: BTreeMap<String, SecretString>,
    /// How connections are secured.
    pub tls: Tls,
    /// Send what is for a host to one of its addresses, so that each can be probed.
    pub pinned: Option<(String, SocketAddr)>,
}

/// A document in a bucket.
#[derive(Debug)]
pub struct BucketWitness {
    store: Arc<dyn ObjectStore>,
    provider: Provider,
    bucket: String,
    key: Path,
    timeout: Duration,
}

impl BucketWitness {
    /// The document that the configuration names; it need not exist yet. Nothing is sent.
    ///
    /// # Errors
    /// `Invalid` where the configuration is not complete.
    pub fn new(config: BucketConfig) -> Result<Self> {
        let key = Path::parse(&config.key)
            .map_err(|e| Error::invalid(format!("not the name of an object. key={}", config.key)).because(e))?;
        let (provider, bucket) = (config.provider, config.bucket.clone());
        let store = store(config).map_err(|e| {
            Error::invalid(format!("the bucket of the witness cannot be used. bucket={bucket}")).because(e)
        })?;
        Ok(Self { store, provider, bucket, key, timeout: TIMEOUT })
    }

    /// How long a call may take. Default 2 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Removes a document that no cluster owns.
    ///
    /// # Errors
    /// `Unavailable` where it may still be there.
    pub(super) async fn remove(&self) -> Result<()> {
        let removed = tokio::time::timeout(self.timeout, self.store.delete(&self.key)).await;
        match removed {
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            _ => Err(Error::unavailable(format!("a scratch object was left behind. {}", self.shown()))),
        }
    }

    fn shown(&self) -> String {
        format!("witness={self}")
    }

    /// How a request failed that was answered, in words, by what the caller can do.
    fn refused(&self, answer: &Answer) -> Error {
        let (status, code) = (answer.status.as_u16(), if answer.code.is_empty() { "none" } else { &answer.code });
        let told = |what: &str| format!("{what}. {}, status={status}, code={code}", self.shown());
        let error = match answer.status {
            // S3 and its kin sign the time, and refuse what is more than 15 minutes off.
            _ if answer.code == "RequestTimeTooSkewed" => {
                Error::unavailable(told("the clock of this machine is wrong, by what the store of the witness says"))
                    .hint("set the clock, and keep it with chrony or systemd-timesyncd")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::invalid(told("the bucket of the witness refuses these credentials"))
                    .hint("check the credentials file, and what its owner may do: docs/witness.md")
            }
            StatusCode::NOT_FOUND => Error::invalid(told("there is no such bucket, or no such store"))
                .hint("make the bucket, or correct `url`, `endpoint` and `region` under [witness]"),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Error::unavailable(told("the store of the witness wants fewer requests"))
                    .hint("raise `heartbeat` and `ttl` under [failover]")
            }
            StatusCode::NOT_IMPLEMENTED => {
                Error::needs_operator(told("the store cannot be a witness: it has no conditional writes"))
                    .hint("use another store")
            }
            status if status.is_redirection() => {
                Error::invalid(told("the bucket of the witness is elsewhere")).hint("correct `region` or `endpoint`")
            }
            status if status.is_client_error() => Error::invalid(told("the store of the witness refuses the request")),
            _ => Error::unavailable(told("the store of the witness failed")),
        };
        if answer.message.is_empty() { error } else { error.because(answer.message.clone()) }
    }

    /// How a request failed that was not answered.
    fn unanswered(&self, why: Option<String>) -> Error {
        let error = Error::unavailable(format!("the store of the witness did not answer. {}", self.shown()));
        match why {
            Some(why) => error.because(why),
            None => error,
        }
    }

    /// What became of a swap that did not come back as committed.
    fn failed(&self, fate: Fate, error: Option<object_store::Error>, creating: bool) -> Swap {
        match fate {
            Fate::NotSent => Swap::Ambiguous(self.unanswered(error.map(|e| causes(&e)))),
            Fate::Sent(why) => Swap::Ambiguous(self.unanswered(why).outcome_unknown()),
            Fate::Answered(answer) => match answer.status {
                StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => Swap::Conflict,
                // Amazon's way to say that another write was under way: this one was not done, and whether the
                // condition held was not looked at.
                StatusCode::CONFLICT if matches!(&*answer.code, "ConditionalRequestConflict" | "OperationAborted") => {
                    Swap::Ambiguous(Error::unavailable(format!(
                        "the store of the witness refused one of two writes at the same moment. {}",
                        self.shown()
                    )))
                }
                StatusCode::CONFLICT => Swap::Conflict,
                // Nothing is there to be replaced; a bucket that is not there is another matter.
                StatusCode::NOT_FOUND if !creating && is_key_missing(&answer) => Swap::Conflict,
                StatusCode::NOT_IMPLEMENTED => Swap::Ambiguous(self.refused(&answer)),
                status if status.is_client_error() || status.is_redirection() => Swap::Ambiguous(self.refused(&answer)),
                // Also 503: some gateways answer it after they have passed the request on.
                _ => Swap::Ambiguous(self.refused(&answer).outcome_unknown()),
            },
        }
    }

    /// The name of a state of the object, of which the store must compare all.
    fn version(&self, e_tag: Option<String>, generation: Option<String>) -> Option<Version> {
        match self.provider {
            Provider::Gcs => generation,
            Provider::S3 | Provider::Azure => e_tag,
        }
        .map(Version)
    }

    fn expect(&self, version: &Version) -> UpdateVersion {
        match self.provider {
            Provider::Gcs => UpdateVersion { e_tag: None, version: Some(version.0.clone()) },
            Provider::S3 | Provider::Azure => UpdateVersion { e_tag: Some(version.0.clone()), version: None },
        }
    }

    fn nameless(&self) -> Error {
        Error::needs_operator(format!("the store cannot be a witness: it gives objects no version. {}", self.shown()))
    }

    async fn get(&self, note: &Note) -> Result<Option<(Record, Version)>> {
        let mut options = GetOptions::default();
        options.extensions.insert(note.clone());
        let result = match self.store.get_opts(&self.key, options).await {
            Ok(result) => result,
            Err(error) => {
                return match note.fate() {
                    Fate::Answered(answer) if answer.status == StatusCode::NOT_FOUND && is_key_missing(&answer) => {
                        Ok(None)
                    }
                    Fate::Answered(answer) if !answer.status.is_success() => Err(self.refused(&answer)),
                    // Answered well, and not understood: an ETag or a length is missing.
                    Fate::Answered(_) | Fate::NotSent => Err(self.unanswered(Some(causes(&error)))),
                    Fate::Sent(why) => Err(self.unanswered(why)),
                };
            }
        };
        let size = result.meta.size;
        if size > BYTES_MAX {
            return Err(Error::needs_operator(format!(
                "the witness object is no document of ours. {}, bytes={size}",
                self.shown()
            )));
        }
        let version = self.version(result.meta.e_tag.clone(), result.meta.version.clone());
        let version = version.ok_or_else(|| self.nameless())?;
        let bytes = result.bytes().await.map_err(|e| self.unanswered(Some(causes(&e))))?;
        let record = Record::decode(&bytes).map_err(|e| e.at(self.shown()))?;
        Ok(Some((record, version)))
    }
}

impl std::fmt::Display for BucketWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}/{}", self.provider.scheme(), self.bucket, self.key)
    }
}

#[async_trait]
impl Witness for BucketWitness {
    async fn read(&self) -> Result<Option<(Record, Version)>> {
        let note = Note::default();
        match tokio::time::timeout(self.timeout, self.get(&note)).await {
            Ok(read) => read,
            Err(_) => Err(self.unanswered(Some(format!("no answer within {:?}", self.timeout)))),
        }
    }

    async fn compare_and_swap(&self, next: &Record, expected: Option<&Version>) -> Swap {
        if next.nonce.is_empty() {
            return Swap::Ambiguous(Error::internal("a document without a nonce was not written"));
        }
        let note = Note::default();
        let mut options = PutOptions::from(match expected {
            Some(version) => PutMode::Update(self.expect(version)),
            None => PutMode::Create,
        });
        options.attributes = Attributes::from_iter([
            (Attribute::ContentType, "application/json"),
            // A cache between here and the store would answer an old document.
            (Attribute::CacheControl, "no-store"),
        ]);
        options.extensions.insert(note.clone());
        let put = self.store.put_opts(&self.key, next.encode().into(), options);
        match tokio::time::timeout(self.timeout, put).await {
            Ok(Ok(put)) => match self.version(put.e_tag, put.version) {
                Some(version) => Swap::Committed(version),
                None => Swap::Ambiguous(self.nameless().outcome_unknown()),
            },
            Ok(Err(error)) => match note.fate() {
                // Written, and the answer was not understood.
                Fate::Answered(answer) if answer.status.is_success() => {
                    Swap::Ambiguous(self.unanswered(Some(causes(&error))).outcome_unknown())
                }
                fate => self.failed(fate, Some(error), expected.is_none()),
            },
            Err(_) => {
                let late = Some(format!("no answer within {:?}", self.timeout));
                match note.fate() {
                    Fate::NotSent => Swap::Ambiguous(self.unanswered(late)),
                    _ => Swap::Ambiguous(self.unanswered(late).outcome_unknown()),
                }
            }
        }
    }

    fn kind(&self) -> &'static str {
        "bucket"
    }
}

/// Whether a 404 means that the bucket is there, and the object is not.
fn is_key_missing(answer: &Answer) -> bool {
    matches!(&*answer.code, "NoSuchKey" | "BlobNotFound" | "ResourceNotFound")
}

/// The causes of an error, without its own words: those quote URLs, which may hold a signature.
fn causes(error: &object_store::Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    if text.is_empty() { "no cause is known".to_owned() } else { text }
}

fn store(config: BucketConfig) -> object_store::Result<Arc<dyn ObjectStore>> {
    // An unanswered write is never sent again.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let options = ClientOptions::new().with_allow_http(config.tls.allow_plain);
    let connector = Connector { tls: config.tls, pinned: config.pinned };
    let credentials = config.credentials.iter().map(|(key, value)| (key.to_lowercase(), value.expose_secret()));
    match config.provider {
        Provider::S3 => {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(config.bucket)
                .with_region(config.region.unwrap_or_else(|| "us-east-1".to_owned()))
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(retry);
            if let Some(endpoint) = config.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            for (key, value) in credentials {
                builder = builder.with_config(key.parse()?, value);
            }
            Ok(Arc::new(builder.build()?))
        }
        Provider::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::new()
                .with_bucket_name(config.bucket)
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(retry);
            if let Some(endpoint) = config.endpoint {
                builder = builder.with_base_url(&endpoint);
            }
            for (key, value) in credentials {
                builder = builder.with_config(key.parse()?, value);
            }
            Ok(Arc::new(builder.build()?))
        }
        Provider::Azure => {
            let mut builder = MicrosoftAzureBuilder::new()
                .with_container_name(config.bucket)
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(retry);
            if let Some(account) = config.account {
                builder = builder.with_account(account);
            }
            if let Some(endpoint) = config.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            for (key, value) in credentials {
                builder = builder.with_config(key.parse()?, value);
            }
            Ok(Arc::new(builder.build()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_clock_that_is_wrong_is_not_taken_for_wrong_credentials() {
        let bucket = BucketWitness::new(BucketConfig {
            provider: Provider::S3,
            bucket: "b".into(),
            key: "k".into(),
            endpoint: Some("https://127.0.0.1:1".into()),
            region: Some("r".into()),
            account: None,
            credentials: [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")]
                .map(|(k, v)| (k.to_owned(), v.to_owned().into()))
                .into(),
            tls: Tls::default(),
            pinned: None,
        })
        .unwrap();
        let said = |code: &str| {
            bucket.refused(&Answer { status: StatusCode::FORBIDDEN, code: code.into(), message: String::new() })
        };
        let skewed = said("RequestTimeTooSkewed");
        assert!(skewed.kind() == ErrorKind::Unavailable && skewed.to_string().contains("clock"), "{skewed}");
        let denied = said("AccessDenied");
        assert!(denied.kind() == ErrorKind::Invalid && denied.to_string().contains("credentials"), "{denied}");
    }
}
