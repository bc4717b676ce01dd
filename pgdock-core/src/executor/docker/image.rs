//! Images: looked at, built, fetched.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde::Deserialize;

use super::engine::{Engine, Sending, encoded};
use crate::{Error, Result};

/// How long a build, or a registry, may be silent.
const SILENCE: Duration = Duration::from_secs(600);
/// The longest line that an engine tells of its progress.
const LINE_MAX: usize = 1 << 20;

/// What an engine knows of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageAbout {
    /// Its number, `sha256:…`.
    pub id: String,
    /// The machine that it is for, as Docker names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<InspectedConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// A line of progress.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

impl Engine {
    /// An image by its name. Nothing where there is none.
    ///
    /// # Errors
    /// `Unavailable` when the engine does not answer.
    pub async fn image(&self, name: &str) -> Result<Option<ImageAbout>> {
        let what = "an image cannot be looked at";
        let found: Option<Inspected> = self.find(&format!("/images/{}/json", path(name)), what).await?;
        Ok(found.map(|found| ImageAbout {
            id: found.id,
            architecture: found.architecture,
            labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
        }))
    }

    /// Builds an image from a tar that holds a `Dockerfile`, and names it. What the build says is passed on line by line.
    ///
    /// # Errors
    /// `Internal` with the last of what it said when a step fails; `Unavailable` when the engine is lost.
    pub async fn build_image(
        &self,
        name: &str,
        context: Bytes,
        arguments: &BTreeMap<String, String>,
        network: Option<&str>,
        said: impl FnMut(&str) + Send,
    ) -> Result<()> {
        let arguments = serde_json::to_string(arguments).unwrap_or_default();
        let network = network.map(|network| format!("&networkmode={}", encoded(network))).unwrap_or_default();
        let path =
            format!("/build?t={}&rm=true&forcerm=true&buildargs={}{network}", encoded(name), encoded(&arguments));
        let sending = Sending { patience: SILENCE, ..Sending::default() };
        let content = Some(("application/x-tar", context));
        let what = "the image cannot be built";
        let answer = self.call_with(Method::POST, &path, content, sending, what).await?;
        self.follow(answer.into_body(), &format!("{what}. engine={self}, image={name}"), said).await
    }

    /// Fetches an image from its registry.
    ///
    /// # Errors
    /// `NotReady` when there is none of this name, `Unavailable` when the registry or the engine is lost.
    pub async fn pull_image(&self, name: &str, said: impl FnMut(&str) + Send) -> Result<()> {
        let path = format!("/images/create?fromImage={}", encoded(name));
        let sending = Sending { patience: SILENCE, ..Sending::default() };
        let what = "the image cannot be fetched";
        let answer = self.call_with(Method::POST, &path, None, sending, what).await;
        let answer = answer.map_err(|e| e.at(format_args!("image={name}")))?;
        self.follow(answer.into_body(), &format!("{what}. engine={self}, image={name}"), said).await
    }

    /// Removes an image, or a name of it.
    ///
    /// # Errors
    /// `NotReady` when there is none, `Conflict` when a container uses it.
    pub async fn remove_image(&self, name: &str) -> Result<()> {
        let path = format!("/images/{}", path(name));
        let removed = self.call(Method::DELETE, &path, None, "an image cannot be removed").await;
        removed.map(drop).map_err(|e| e.at(format_args!("image={name}")))
    }

    async fn follow(
        &self,
        mut body: hyper::body::Incoming,
        what: &str,
        mut said: impl FnMut(&str) + Send,
    ) -> Result<()> {
        let lost = || Error::unavailable(format!("the engine was lost. engine={self}")).outcome_unknown();
        let mut held = Vec::new();
        let mut last = String::new();
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|e| lost().because(e))?;
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|e| lost().because(e))?.into_data() else { continue };
            held.extend_from_slice(&data);
            while let Some(end) = held.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                self.progress(&line, what, &mut last, &mut said)?;
            }
            if held.len() > LINE_MAX {
                return Err(Error::internal(format!("the engine tells a line without end. engine={self}")));
            }
        }
        self.progress(&held, what, &mut last, &mut said)
    }

    fn progress(&self, line: &[u8], what: &str, last: &mut String, said: &mut (impl FnMut(&str) + Send)) -> Result<()> {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { return Ok(()) };
        if let Some(error) = line.error {
            let error = Error::internal(what).because(error);
            return Err(if last.is_empty() { error } else { error.hint(format!("it said last: {last}")) });
        }
        for text in line.stream.iter().chain(&line.status).flat_map(|text| text.lines()).map(str::trim_end) {
            if !text.is_empty() {
                text.clone_into(last);
                said(text);
            }
        }
        Ok(())
    }
}

/// The name of an image as part of a path: its slashes stay.
fn path(name: &str) -> String {
    name.split('/').map(encoded).collect::<Vec<_>>().join("/")
}
