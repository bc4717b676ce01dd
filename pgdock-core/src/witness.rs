//! [`Witness`]: the arbiter, a small document that changes only by compare-and-swap.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod faulty;
pub mod file;
pub mod memory;
pub mod probe;
pub mod record;

pub use faulty::FaultyWitness;
pub use file::FileWitness;
pub use memory::MemoryWitness;
pub use probe::{ProbeReport, Scratch, probe};
pub use record::Record;

use crate::Error;

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

/// The witness that a URL names.
///
/// `file:PATH` is a document on this machine, for clusters that live on it alone. A relative path starts at
/// `base`, the folder of `cluster.toml`. A path that ends with a slash is a folder, in which the cluster has
/// a document of its own.
///
/// # Errors
/// `Invalid` when the URL has a scheme that is not known here, or no path.
pub fn open(url: &str, base: &Path, cluster: &str) -> crate::Result<Arc<dyn Witness>> {
    let path = file::path_of(url, base, cluster)?;
    Ok(Arc::new(FileWitness::new(path)))
}

/// A document of its own in the store that a URL names, for [`probe()`]: never the cluster's.
///
/// # Errors
/// As [`open`].
pub fn open_scratch(url: &str, base: &Path, cluster: &str) -> crate::Result<Scratch> {
    let mut name = file::path_of(url, base, cluster)?.into_os_string();
    name.push(format!(".probe-{}", &fresh_nonce()[..16]));
    let witness = FileWitness::new(name);
    let path = witness.path().to_owned();
    Ok(Scratch::new(Arc::new(witness), async move { file::remove(&path).await }))
}

fn unknown_scheme(url: &str) -> Error {
    // Whatever stands between `//` and `@` may be a password.
    let shown = match (url.find("://"), url.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}://…{}", &url[..start], &url[end..]),
        _ => url.to_owned(),
    };
    Error::invalid(format!("the witness has a URL that is not understood. url={shown}, known=file:PATH"))
        .hint("write `url = \"file:PATH\"` under [witness]")
}
