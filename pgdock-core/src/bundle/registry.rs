//! [`Registry`]: images in a registry (OCI distribution specification 1.1), so that they are kept elsewhere, and reach other
//! operators.
//!
//! What has a digest goes first, and is not sent again where it is there already; the tag comes last. So a push that was
//! interrupted leaves nothing that counts, and the next one goes on from there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::digest::Digest;
use super::image::{Image, JSON_MAX, MANIFEST};
use super::store::check_tag;
use super::tar::ARCHIVE_MAX;
use crate::witness::http::{Tls, client, shown};
use crate::{Error, Result};

/// How long one exchange may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often an exchange is tried that got no answer, or one of a server in trouble.
const TRIES: u32 = 4;
/// How long to wait before the second try; doubled after each.
const PAUSE: Duration = Duration::from_millis(250);
/// How often one is sent elsewhere to fetch something.
const HOPS_MAX: u32 = 3;

/// Where images are kept, and how to get there.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Host, port and name, such as `registry.example.com:5000/team/pgdock`.
    pub repository: String,
    /// Whom to trust; whether to go without TLS.
    pub tls: Tls,
    /// User and password, where it asks for them.
    pub user: Option<(String, SecretString)>,
}

/// A registry.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    base: Url,
    config: RegistryConfig,
    /// What the registry's keeper of tokens gave last.
    token: Mutex<Option<SecretString>>,
}

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// How many bytes were sent; what was there already was not.
    pub bytes: u64,
    /// Whether the tag stood for this image already.
    pub unchanged: bool,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl Registry {
    /// A registry. Asks it nothing yet.
    ///
    /// # Errors
    /// `Invalid` when the repository's name or the authority is not usable.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        let named = &config.repository;
        let odd = || {
            Error::invalid(format!("this is no repository of a registry. found={named:?}"))
                .hint("write host, port and name: registry.example.com:5000/team/pgdock")
        };
        let (host, name) = named.split_once('/').ok_or_else(odd)?;
        let fits = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        if host.is_empty() || host.contains('@') || !name.split('/').all(fits) {
            return Err(odd());
        }
        let scheme = if config.tls.allow_plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{name}/")).map_err(|e| odd().because(e))?;
        Ok(Self { client: client(&config.tls, None)?, base, config, token: Mutex::default() })
    }

    /// Sends an image, and has a tag stand for it.
    ///
    /// # Errors
    /// `Invalid` when the registry refuses it, `Unavailable` when it does not answer: what arrived until then need not be
    /// sent again.
    pub async fn push(&self, image: &Image, tag: &str) -> Result<Pushed> {
        check_tag(tag)?;
        let mut bytes = 0;
        for part in [image.bundle.archive().as_ref(), image.config()] {
            bytes += self.push_part(part).await?;
        }
        let here = self.ask(Method::GET, &format!("manifests/{tag}"), |r| r.header(ACCEPT, MANIFEST)).await?;
        if here.status() == StatusCode::OK && self.body(here, JSON_MAX).await? == image.manifest() {
            return Ok(Pushed { bytes, unchanged: true });
        }
        let put = |r: RequestBuilder| r.header(CONTENT_TYPE, MANIFEST).body(image.manifest().to_vec());
        let answer = self.ask(Method::PUT, &format!("manifests/{tag}"), put).await?;
        if !answer.status().is_success() {
            return Err(self.refused("the registry does not take the image", answer).await);
        }
        Ok(Pushed { bytes: bytes + image.manifest().len() as u64, unchanged: false })
    }

    async fn push_part(&self, part: &[u8]) -> Result<u64> {
        let digest = Digest::of(part);
        if self.ask(Method::HEAD, &format!("blobs/{digest}"), |r| r).await?.status() == StatusCode::OK {
            return Ok(0);
        }
        let begun = self.ask(Method::POST, "blobs/uploads/", |r| r.header("Content-Length", "0")).await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(self.refused("the registry does not take a part of the image", begun).await);
        }
        let mut place = self.location(&begun)?;
        place.query_pairs_mut().append_pair("digest", digest.as_str());
        let send = |r: RequestBuilder| r.header(CONTENT_TYPE, "application/octet-stream").body(part.to_vec());
        let ended = self.ask_at(Method::PUT, place, send).await?;
        if ended.status() == StatusCode::CREATED {
            return Ok(part.len() as u64);
        }
        // Sent twice, because the first answer was lost, it is refused though it is there.
        if self.ask(Method::HEAD, &format!("blobs/{digest}"), |r| r).await?.status() == StatusCode::OK {
            return Ok(part.len() as u64);
        }
        Err(self.refused("the registry does not take a part of the image", ended).await)
    }

    /// Fetches the image of a tag, every byte checked.
    ///
    /// # Errors
    /// `Invalid` when there is none, or it is no image of a bundle; `Unavailable` when the registry does not answer.
    pub async fn pull(&self, tag: &str) -> Result<Image> {
        check_tag(tag)?;
        let answer = self.ask(Method::GET, &format!("manifests/{tag}"), |r| r.header(ACCEPT, MANIFEST)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(Error::invalid(format!(
                "the registry has no image of this tag. repository={}, tag={tag}",
                self.config.repository
            ))
            .hint("`pgdock config push` sends one"));
        }
        if answer.status() != StatusCode::OK {
            return Err(self.refused("the registry does not give the image", answer).await);
        }
        let manifest = self.body(answer, JSON_MAX).await?;
        Image::unpack(manifest, async |what| {
            let mut answer = self.ask(Method::GET, &format!("blobs/{}", what.digest), |r| r).await?;
            for _ in 0..HOPS_MAX {
                if !answer.status().is_redirection() {
                    break;
                }
                // Elsewhere nobody is to see who we are.
                let place = self.location(&answer)?;
                answer = self.client.get(place).timeout(LIMIT).send().await.map_err(|e| self.silent(e))?;
            }
            if answer.status() != StatusCode::OK {
                return Err(self.refused("the registry does not give a part of the image", answer).await);
            }
            self.body(answer, ARCHIVE_MAX).await
        })
        .await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let url = self.base.join(path).map_err(|e| Error::internal("not a path of a registry").because(e))?;
        self.ask_at(method, url, fill).await
    }

    /// Sends a request; again where there was no answer, or the server was in trouble, or wants to know who asks.
    async fn ask_at(
        &self,
        method: Method,
        url: Url,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let ours = url.origin() == self.base.origin();
        let mut pause = PAUSE;
        let (mut tries, mut shown_who) = (0, false);
        loop {
            tries += 1;
            let mut request = fill(self.client.request(method.clone(), url.clone())).timeout(LIMIT);
            if ours {
                request = self.signed(request);
            }
            match request.send().await {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && ours && !shown_who => {
                    shown_who = true;
                    self.introduce(&answer).await?;
                }
                Ok(answer) if answer.status().is_server_error() && tries < TRIES => {}
                Ok(answer) => return Ok(answer),
                Err(_) if tries < TRIES => {}
                Err(error) => return Err(self.silent(error)),
            }
            if !shown_who || tries > 1 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (token, &self.config.user) {
            (Some(token), _) => request.bearer_auth(token.expose_secret()),
            (None, Some((user, password))) => request.basic_auth(user, Some(password.expose_secret())),
            (None, None) => request,
        }
    }

    /// Finds out what the registry wants to see; where that is a token, fetches one.
    async fn introduce(&self, answer: &Response) -> Result<()> {
        let wanted = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let Some(wanted) = wanted.strip_prefix("Bearer ") else {
            return if self.config.user.is_some() { Ok(()) } else { Err(self.unknown()) };
        };
        let wanted: BTreeMap<&str, &str> = wanted
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='))
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect();
        let odd = || Error::invalid(format!("the registry asks for a token in an odd way. host={}", self.host()));
        let mut realm = Url::parse(wanted.get("realm").copied().unwrap_or_default()).map_err(|e| odd().because(e))?;
        if realm.scheme() != "https" && !self.config.tls.allow_plain {
            return Err(odd().hint("its keeper of tokens is reached without TLS: nobody is shown a password there"));
        }
        for name in ["service", "scope"] {
            if let Some(value) = wanted.get(name) {
                realm.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = self.client.get(realm).timeout(LIMIT);
        if let Some((user, password)) = &self.config.user {
            request = request.basic_auth(user, Some(password.expose_secret()));
        }
        let answer = request.send().await.map_err(|e| self.silent(e))?;
        if !answer.status().is_success() {
            return Err(self.unknown());
        }
        let token: Token = serde_json::from_slice(&self.body(answer, JSON_MAX).await?).map_err(|_| odd())?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.token.into());
        Ok(())
    }

    fn location(&self, answer: &Response) -> Result<Url> {
        let place = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok());
        place
            .and_then(|place| answer.url().join(place).ok())
            .filter(|url| url.scheme() == "https" || self.config.tls.allow_plain)
            .ok_or_else(|| {
                Error::unavailable(format!("the registry does not say where to go on. host={}", self.host()))
            })
    }

    async fn body(&self, mut answer: Response, max: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.silent(e))? {
            if body.len() + chunk.len() > max {
                return Err(Error::invalid(format!(
                    "the registry answers with too much. host={}, max={max}",
                    self.host()
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn host(&self) -> &str {
        self.config.repository.split('/').next().unwrap_or_default()
    }

    fn silent(&self, error: reqwest::Error) -> Error {
        Error::unavailable(format!("the registry does not answer. host={}: {}", self.host(), shown(error)))
            .hint("try again: what has arrived is not sent again")
    }

    fn unknown(&self) -> Error {
        Error::invalid(format!("the registry wants to know who asks. repository={}", self.config.repository))
            .hint("write REGISTRY_USER and REGISTRY_PASSWORD into secrets/registry.env")
    }

    async fn refused(&self, what: &str, answer: Response) -> Error {
        let status = answer.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Error::invalid(format!(
                "{what}: it does not accept who asks. repository={}",
                self.config.repository
            ))
            .hint("correct REGISTRY_USER and REGISTRY_PASSWORD in secrets/registry.env");
        }
        let said = self.body(answer, JSON_MAX).await.unwrap_or_default();
        let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(300).collect();
        let message = format!("{what}. repository={}, status={status}, said={said}", self.config.repository);
        if status.is_server_error() { Error::unavailable(message) } else { Error::invalid(message) }
    }
}
