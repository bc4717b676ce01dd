//! URLs of stores, as `cluster.toml` has them: what those of witnesses and of backups have in common.
//!
//! A URL holds no secret, and what is wrong with one is told without repeating it: it may hold one by mistake.

use std::path::{Path, PathBuf};

/// What the names of objects begin with, where the URL does not say.
const PREFIX: &str = "pgdock";

/// Whose interface a bucket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// Amazon's S3, and the many that are like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    /// What a URL begins with.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// What is wrong with a URL. Nothing of the URL but its scheme is repeated: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlFault {
    pub(crate) found: String,
    pub(crate) remedy: String,
}

impl UrlFault {
    pub(crate) fn new(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { found: found.into(), remedy: remedy.into() }
    }
}

/// A URL in its parts.
pub(crate) enum Split<'a> {
    /// `file:PATH`, without the scheme.
    File(&'a str),
    /// `SCHEME://USER@PLACE/PATH`
    Parts(Parts<'a>),
}

/// See [`Split`].
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) place: &'a str,
    pub(crate) path: &'a str,
}

/// A bucket, and what the names of objects in it begin with.
pub(crate) struct BucketUrl {
    pub(crate) provider: Provider,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

/// Takes a URL apart. `secrets` is the file where a password belongs.
pub(crate) fn split<'a>(url: &'a str, secrets: &str) -> Result<Split<'a>, UrlFault> {
    let fault = |found: &str, remedy: &str| Err(UrlFault::new(found, remedy));
    let Some((scheme, rest)) = url.split_once(':') else {
        return fault("a URL without scheme", "begin it with file: where it is a path");
    };
    if scheme == "file" {
        return Ok(Split::File(rest));
    }
    let Some(rest) = rest.strip_prefix("//") else {
        return fault(&known(scheme), "correct it");
    };
    if rest.contains(['?', '#']) {
        return fault(
            &format!("{scheme}://… with ? or #"),
            "take it off; what else there is to say has keys of its own",
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    // A password may hold any of the characters that separate.
    if user.is_some_and(|user| user.contains(':')) || rest.matches('@').count() > 1 || path.contains('@') {
        return fault(
            &format!("{scheme}://… with a password in it"),
            &format!("write it into {secrets}, and take it off the URL: this file is no place for secrets"),
        );
    }
    Ok(Split::Parts(Parts { scheme, user, place, path }))
}

/// The path of a `file:` URL; a relative one begins at `base`. A slash at its end, which says that it is a folder,
/// stays.
pub(crate) fn file(rest: &str, base: &Path) -> Result<PathBuf, UrlFault> {
    // `file://HOST/…` means another machine; `file:///…` is a path of this one.
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || rest.starts_with("//") && !path.starts_with('/') {
        return Err(UrlFault::new("file: without a path of this machine", "write file:PATH; it may be relative"));
    }
    let clean = base.join(path).components().filter(|c| c.as_os_str() != ".").collect::<PathBuf>();
    Ok(if path.ends_with('/') { clean.join("") } else { clean })
}

impl Parts<'_> {
    /// Of a URL whose scheme is that of a bucket.
    pub(crate) fn bucket(&self, secrets: &str) -> Result<BucketUrl, UrlFault> {
        let Self { scheme, user, place, path } = *self;
        if user.is_some() {
            return Err(UrlFault::new(
                format!("{scheme}://… with a user"),
                format!("write credentials into {secrets}"),
            ));
        }
        let provider = match scheme {
            "s3" => Provider::S3,
            "gs" => Provider::Gcs,
            "az" => Provider::Azure,
            other => return Err(UrlFault::new(known(other), "correct it")),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if place.is_empty() || !place.chars().all(fits) {
            return Err(UrlFault::new(
                format!("{scheme}:// without the name of a bucket"),
                "write the bucket after //",
            ));
        }
        Ok(BucketUrl { provider, bucket: place.to_owned(), prefix: prefix(scheme, path)? })
    }
}

/// A scheme, as far as it can be one.
pub(crate) fn known(scheme: &str) -> String {
    let is_scheme = scheme.len() <= 16 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-'));
    if is_scheme { format!("{scheme}:…") } else { "a URL without scheme".to_owned() }
}

/// What names begin with.
pub(crate) fn prefix(scheme: &str, path: &str) -> Result<String, UrlFault> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(PREFIX.to_owned());
    }
    let fits = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '='))
    };
    if path.len() <= 512 && path.split('/').all(fits) {
        Ok(path.to_owned())
    } else {
        Err(UrlFault::new(
            format!("{scheme}://… with a prefix of other characters than a-z, A-Z, 0-9, - _ . = and /"),
            "choose another prefix",
        ))
    }
}
