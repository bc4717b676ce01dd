//! Buckets of S3, Google and Azure: how the witness and backups reach them.
//!
//! One home for the client: whose interface it is, where, with which credentials, and what its answers mean. What
//! is done with the objects is up to [`BucketWitness`](crate::witness::BucketWitness) and
//! [`BucketSink`](crate::backup_sink::BucketSink).

pub(crate) mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use object_store::aws::{AmazonS3Builder, S3CopyIfNotExists};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use secrecy::{ExposeSecret as _, SecretString};

use crate::settings::StoreSettings;
pub use crate::store_url::Provider;
use crate::witness::http::Tls;
use crate::{Error, Result};
use wire::{Answer, Connector};

/// A bucket, and how to get at it.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Whose interface the store speaks.
    pub provider: Provider,
    /// The bucket, or container. It must exist.
    pub bucket: String,
    /// Where the store is, as a URL, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region; needed by Amazon.
    pub region: Option<String>,
    /// The storage account; needed by Azure.
    pub account: Option<String>,
    /// What the provider's tools would read from the environment, such as `AWS_SECRET_ACCESS_KEY`. Where there
    /// is nothing, the machine's own identity is used, and asked for anew before it expires.
    pub credentials: BTreeMap<String, SecretString>,
    /// How connections are secured.
    pub tls: Tls,
    /// Send what is for a host to one of its addresses, so that each can be probed.
    pub pinned: Option<(String, SocketAddr)>,
}

/// The faces of one client.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Lists by any prefix, page by page.
    pub(crate) pages: Arc<dyn PaginatedListStore>,
    /// Takes objects in parts.
    pub(crate) parts: Arc<dyn MultipartStore>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.objects).finish()
    }
}

impl BucketConfig {
    /// The bucket that settings name.
    ///
    /// # Errors
    /// `Invalid` where the file of the authority is not readable.
    pub(crate) fn of(
        provider: Provider,
        bucket: &str,
        store: &StoreSettings,
        credentials: BTreeMap<String, SecretString>,
    ) -> Result<Self> {
        let pem = |path: &PathBuf| {
            std::fs::read(path).map_err(|e| {
                Error::invalid(format!("the authority of the store is not readable. file={}", path.display()))
                    .because(e)
            })
        };
        let ca = store.ca.as_ref().map(pem).transpose()?;
        Ok(Self {
            provider,
            bucket: bucket.to_owned(),
            endpoint: store.endpoint.clone(),
            region: store.region.clone(),
            account: store.account.clone(),
            credentials,
            tls: Tls { ca, allow_plain: !store.tls, ..Tls::default() },
            pinned: None,
        })
    }

    /// A client that sends each request once. Nothing is sent yet. `whose` is named in errors.
    ///
    /// # Errors
    /// `Invalid` where the configuration is not complete.
    pub(crate) fn client(self, whose: &Whose) -> Result<Client> {
        let bucket = self.bucket.clone();
        self.build(whose.large).map_err(|e| {
            Error::invalid(format!("the bucket of {} cannot be used. bucket={bucket}", whose.name)).because(e)
        })
    }

    fn build(self, large: bool) -> object_store::Result<Client> {
        // An unanswered write is never sent again behind the back of who must know.
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let options = ClientOptions::new().with_allow_http(self.tls.allow_plain);
        // What TLS carries need not be hashed for the signature, too: that costs most where bodies are large.
        let unsigned = large && !self.tls.allow_plain;
        let connector = Connector { tls: self.tls, pinned: self.pinned };
        let credentials = self.credentials.iter().map(|(key, value)| (key.to_lowercase(), value.expose_secret()));
        match self.provider {
            Provider::S3 => {
                let mut builder = AmazonS3Builder::new()
                    .with_bucket_name(self.bucket)
                    .with_region(self.region.unwrap_or_else(|| "us-east-1".to_owned()))
                    .with_unsigned_payload(unsigned)
                    .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
                    // The bulk form is not known to all who are like S3.
                    .with_disable_bulk_delete(true)
                    .with_client_options(options)
                    .with_http_connector(connector)
                    .with_retry(retry);
                if let Some(endpoint) = self.endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                for (key, value) in credentials {
                    builder = builder.with_config(key.parse()?, value);
                }
                Ok(Client::of(builder.build()?))
            }
            Provider::Gcs => {
                let mut builder = GoogleCloudStorageBuilder::new()
                    .with_bucket_name(self.bucket)
                    .with_client_options(options)
                    .with_http_connector(connector)
                    .with_retry(retry);
                if let Some(endpoint) = self.endpoint {
                    builder = builder.with_base_url(&endpoint);
                }
                for (key, value) in credentials {
                    builder = builder.with_config(key.parse()?, value);
                }
                Ok(Client::of(builder.build()?))
            }
            Provider::Azure => {
                let mut builder = MicrosoftAzureBuilder::new()
                    .with_container_name(self.bucket)
                    .with_client_options(options)
                    .with_http_connector(connector)
                    .with_retry(retry);
                if let Some(account) = self.account {
                    builder = builder.with_account(account);
                }
                if let Some(endpoint) = self.endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                for (key, value) in credentials {
                    builder = builder.with_config(key.parse()?, value);
                }
                Ok(Client::of(builder.build()?))
            }
        }
    }
}

impl Client {
    fn of<S: ObjectStore + PaginatedListStore + MultipartStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self { objects: store.clone(), pages: store.clone(), parts: store }
    }
}

/// Whose bucket it is, for errors.
#[derive(Debug)]
pub(crate) struct Whose {
    /// `the witness`
    pub(crate) name: &'static str,
    /// `witness=`: what stands before the place.
    pub(crate) key: &'static str,
    /// `[witness]`
    pub(crate) section: &'static str,
    /// What tells what its owner must be allowed to do.
    pub(crate) docs: &'static str,
    /// What to do where the store wants fewer requests.
    pub(crate) slower: &'static str,
    /// What a store without conditional writes cannot be.
    pub(crate) unfit: &'static str,
    /// Whether bodies are large.
    pub(crate) large: bool,
}

impl Whose {
    /// How a request failed that was answered, in words, by what the caller can do.
    pub(crate) fn refused(&self, shown: &str, answer: &Answer) -> Error {
        let (status, code) = (answer.status.as_u16(), if answer.code.is_empty() { "none" } else { &answer.code });
        let told = |what: &str| format!("{what}. {}={shown}, status={status}, code={code}", self.key);
        let (name, section) = (self.name, self.section);
        let error = match answer.status {
            // S3 and its kin sign the time, and refuse what is more than 15 minutes off.
            _ if answer.code == "RequestTimeTooSkewed" => Error::unavailable(told(&format!(
                "the clock of this machine is wrong, by what the store of {name} says"
            )))
            .hint("set the clock, and keep it with chrony or systemd-timesyncd"),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::invalid(told(&format!("the bucket of {name} refuses these credentials")))
                    .hint(format!("check the credentials file, and what its owner may do: {}", self.docs))
            }
            StatusCode::NOT_FOUND => Error::invalid(told("there is no such bucket, or no such store"))
                .hint(format!("make the bucket, or correct `url`, `endpoint` and `region` under {section}")),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Error::unavailable(told(&format!("the store of {name} wants fewer requests"))).hint(self.slower)
            }
            StatusCode::NOT_IMPLEMENTED => {
                Error::needs_operator(told(&format!("{}: it has no conditional writes", self.unfit)))
                    .hint("use another store")
            }
            status if status.is_redirection() => Error::invalid(told(&format!("the bucket of {name} is elsewhere")))
                .hint("correct `region` or `endpoint`"),
            status if status.is_client_error() => {
                Error::invalid(told(&format!("the store of {name} refuses the request")))
            }
            _ => Error::unavailable(told(&format!("the store of {name} failed"))),
        };
        if answer.message.is_empty() { error } else { error.because(answer.message.clone()) }
    }

    /// How a request failed that was not answered.
    pub(crate) fn unanswered(&self, shown: &str, why: Option<String>) -> Error {
        let error = Error::unavailable(format!("the store of {} did not answer. {}={shown}", self.name, self.key));
        match why {
            Some(why) => error.because(why),
            None => error,
        }
    }
}

/// Whether a 404 means that the bucket is there, and the object is not.
pub(crate) fn is_key_missing(answer: &Answer) -> bool {
    matches!(&*answer.code, "NoSuchKey" | "BlobNotFound" | "ResourceNotFound")
}

/// Amazon's way to say that another write was under way: this one was not done, and whether the condition held
/// was not looked at.
pub(crate) fn is_race(answer: &Answer) -> bool {
    answer.status == StatusCode::CONFLICT && matches!(&*answer.code, "ConditionalRequestConflict" | "OperationAborted")
}

/// The causes of an error, without its own words: those quote URLs, which may hold a signature.
pub(crate) fn causes(error: &object_store::Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    if text.is_empty() { "no cause is known".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_clock_that_is_wrong_is_not_taken_for_wrong_credentials() {
        let whose = Whose {
            name: "the witness",
            key: "witness",
            section: "[witness]",
            docs: "docs/witness.md",
            slower: "ask less",
            unfit: "the store cannot be a witness",
            large: false,
        };
        let said = |code: &str| {
            let answer = Answer { status: StatusCode::FORBIDDEN, code: code.into(), message: String::new() };
            whose.refused("s3://b/k", &answer)
        };
        let skewed = said("RequestTimeTooSkewed");
        assert!(skewed.kind() == ErrorKind::Unavailable && skewed.to_string().contains("clock"), "{skewed}");
        let denied = said("AccessDenied");
        assert!(denied.kind() == ErrorKind::Invalid && denied.to_string().contains("credentials"), "{denied}");
    }
}
