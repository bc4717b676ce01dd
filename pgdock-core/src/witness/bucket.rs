//! [`BucketWitness`]: a document that is an object in a bucket, so that two data nodes need no third server.
//!
//! The store compares: a create carries `If-None-Match: *`, a replacement the ETag (S3, Azure) or the
//! generation (Google) of the object that it replaces. Not every store that takes these conditions looks at
//! them, hence [`probe`](super::probe()).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion,
};

use super::{Record, Swap, Version, Witness};
use crate::bucket::wire::{Answer, Fate, Note};
pub use crate::bucket::{BucketConfig, Provider};
use crate::bucket::{Whose, causes, is_key_missing, is_race};
use crate::{Error, Result};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// More than any document: a larger object is somebody else's.
const BYTES_MAX: u64 = 4 << 20;

const WHOSE: Whose = Whose {
    name: "the witness",
    key: "witness",
    section: "[witness]",
    docs: "docs/witness.md",
    slower: "raise `heartbeat` and `ttl` under [failover]",
    unfit: "the store cannot be a witness",
    large: false,
};

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
    /// The object `key` of a bucket; it need not exist yet. Nothing is sent.
    ///
    /// # Errors
    /// `Invalid` where the configuration is not complete.
    pub fn new(config: BucketConfig, key: &str) -> Result<Self> {
        let key =
            Path::parse(key).map_err(|e| Error::invalid(format!("not the name of an object. key={key}")).because(e))?;
        let (provider, bucket) = (config.provider, config.bucket.clone());
        let store = config.client(&WHOSE)?.objects;
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

    /// How a request failed that was answered.
    fn refused(&self, answer: &Answer) -> Error {
        WHOSE.refused(&self.to_string(), answer)
    }

    /// How a request failed that was not answered.
    fn unanswered(&self, why: Option<String>) -> Error {
        WHOSE.unanswered(&self.to_string(), why)
    }

    /// What became of a swap that did not come back as committed.
    fn failed(&self, fate: Fate, error: Option<object_store::Error>, creating: bool) -> Swap {
        match fate {
            Fate::NotSent => Swap::Ambiguous(self.unanswered(error.map(|e| causes(&e)))),
            Fate::Sent(why) => Swap::Ambiguous(self.unanswered(why).outcome_unknown()),
            Fate::Answered(answer) => match answer.status {
                StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => Swap::Conflict,
                _ if is_race(&answer) => Swap::Ambiguous(Error::unavailable(format!(
                    "the store of the witness refused one of two writes at the same moment. {}",
                    self.shown()
                ))),
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
