//! [`Witness`]: the arbiter, a small document that changes only by compare-and-swap.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[cfg(feature = "bucket")]
pub mod bucket;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod faulty;
pub mod file;
#[cfg(any(feature = "bucket", feature = "etcd", feature = "registry"))]
pub mod http;
pub mod memory;
mod open;
pub mod postgres;
pub mod probe;
pub mod record;
pub mod url;

#[cfg(feature = "bucket")]
pub use bucket::BucketWitness;
#[cfg(feature = "etcd")]
pub use etcd::EtcdWitness;
pub use faulty::FaultyWitness;
pub use file::FileWitness;
pub use memory::MemoryWitness;
pub use open::{open, open_scratch};
pub use postgres::PostgresWitness;
pub use probe::{ProbeReport, Scratch, probe};
pub use record::Record;
pub use url::WitnessUrl;

/// What a store calls one state of the document (an ETag, a revision, a digest). Opaque: two of them are
/// equal or not, nothing else. Because each body carries a fresh nonce, no version ever comes back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub String);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a compare-and-swap ended.
#[derive(Debug)]
#[must_use]
pub enum Swap {
    /// The document now is what was sent, and this is its version.
    Committed(Version),
    /// The document was not in the expected state. It may be so because an earlier try of one's own
    /// landed: read, and compare the nonce.
    Conflict,
    /// Nobody knows: it may have landed, may land later, or never. Only a newer version settles it.
    Ambiguous(crate::Error),
}

/// The arbiter of a cluster.
///
/// # Contract
/// - One document. It is created once, never deleted, and changed only by
///   [`compare_and_swap`](Self::compare_and_swap), atomically, for all readers and writers anywhere.
/// - `read` returns the newest committed document (linearizable): never an older one than any answer that
///   was complete before the call began.
/// - `compare_and_swap` with `expected: None` creates the document, and conflicts if one exists.
/// - An implementation never retries a swap by itself: a lost answer is [`Swap::Ambiguous`].
/// - A document that cannot be understood (corrupt, or of a newer format) is an error of kind
///   `NeedsOperator`, and is never overwritten.
/// - Calls may be cancelled at any point; a cancelled swap is ambiguous to its caller.
///
/// The protocol depends on neither notification nor expiry in the store.
#[async_trait]
pub trait Witness: std::fmt::Debug + std::fmt::Display + Send + Sync + 'static {
    /// Reads the document and its version; `None` where none was created yet.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer, `NeedsOperator` when the document is not readable.
    async fn read(&self) -> crate::Result<Option<(Record, Version)>>;

    /// Replaces the document if its version is still `expected`.
    async fn compare_and_swap(&self, next: &Record, expected: Option<&Version>) -> Swap;

    /// What kind of store this is, in one word, for `status`.
    fn kind(&self) -> &'static str;
}

fn _object_safe(_: &dyn Witness) {}

/// A nonce for a new document: no other call, process or machine has drawn it.
#[must_use]
pub fn fresh_nonce() -> String {
    crate::dice::unique()
}
