//! Containers as a whole: looked at, made, started, stopped, removed, and what they wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;

use super::engine::{Engine, Sending, encoded};
use crate::{Error, Result};

/// What an engine knows of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerState {
    /// Its number.
    pub id: String,
    /// Whether its first process runs.
    pub running: bool,
    /// How that process ended, if it has.
    pub exit_code: i32,
    /// The number of the image that it was made from.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    image: String,
    state: InspectedState,
    config: InspectedConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    running: bool,
    #[serde(default)]
    exit_code: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Which part of what a container wrote is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// The last so many lines; all where nothing is said.
    pub lines: Option<u32>,
    /// Go on with what it writes from now on, until it ends.
    pub follow: bool,
}

impl Engine {
    /// A container by its name. Nothing where there is none.
    ///
    /// # Errors
    /// `Unavailable` when the engine does not answer.
    pub async fn container(&self, name: &str) -> Result<Option<ContainerState>> {
        let what = "a container cannot be looked at";
        let found: Option<Inspected> = self.find(&format!("/containers/{}/json", encoded(name)), what).await?;
        Ok(found.map(|found| ContainerState {
            id: found.id,
            running: found.state.running,
            exit_code: found.state.exit_code,
            image: found.image,
            labels: found.config.labels.unwrap_or_default(),
        }))
    }

    /// Makes a container; `spec` is the body of the engine's own request. It does not run yet.
    ///
    /// # Errors
    /// `Conflict` when there is one of this name, `NotReady` when its image is missing, `Invalid` when the engine does
    /// not take it.
    pub async fn create_container(&self, name: &str, spec: &Value) -> Result<()> {
        let path = format!("/containers/create?name={}", encoded(name));
        let made = self.call(Method::POST, &path, Some(spec), "a container cannot be made").await;
        made.map(drop).map_err(|e| e.at(format_args!("container={name}")))
    }

    /// Starts a container; one that runs is left alone.
    ///
    /// # Errors
    /// `NotReady` when there is none, `Invalid` or `Unavailable` when it cannot be started.
    pub async fn start_container(&self, name: &str) -> Result<()> {
        let path = format!("/containers/{}/start", encoded(name));
        let started = self.call(Method::POST, &path, None, "a container cannot be started").await;
        started.map(drop).map_err(|e| e.at(format_args!("container={name}")))
    }

    /// Tells a container's first process to end, and kills all of it when `grace` has passed.
    ///
    /// # Errors
    /// `NotReady` when there is none.
    pub async fn stop_container(&self, name: &str, grace: Duration) -> Result<()> {
        let path = format!("/containers/{}/stop?t={}", encoded(name), grace.as_secs());
        let sending = Sending { patience: grace + Duration::from_secs(30), ..Sending::default() };
        let stopped = self.call_with(Method::POST, &path, None, sending, "a container cannot be stopped").await;
        stopped.map(drop).map_err(|e| e.at(format_args!("container={name}")))
    }

    /// Removes a container that does not run; what it has in volumes stays. With `force` one that runs is killed first.
    ///
    /// # Errors
    /// `NotReady` when there is none, `Conflict` when it runs.
    pub async fn remove_container(&self, name: &str, force: bool) -> Result<()> {
        let path = format!("/containers/{}?force={force}", encoded(name));
        let removed = self.call(Method::DELETE, &path, None, "a container cannot be removed").await;
        removed.map(drop).map_err(|e| e.at(format_args!("container={name}")))
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// `NotReady` when there is none, `Conflict` when a container uses it.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        let path = format!("/volumes/{}", encoded(name));
        let removed = self.call(Method::DELETE, &path, None, "a volume cannot be removed").await;
        removed.map(drop).map_err(|e| e.at(format_args!("volume={name}")))
    }

    /// Runs a container to its end, and removes it. Answers how it ended, and what it wrote.
    ///
    /// # Errors
    /// Those of making and starting it; `Unavailable` when `patience` passes first: then it is killed.
    pub async fn run_container(&self, name: &str, spec: &Value, patience: Duration) -> Result<(i32, String)> {
        self.create_container(name, spec).await?;
        let ran = async {
            self.start_container(name).await?;
            #[derive(Deserialize)]
            #[serde(rename_all = "PascalCase")]
            struct Waited {
                status_code: i32,
            }
            let path = format!("/containers/{}/wait", encoded(name));
            let sending = Sending { patience, ..Sending::default() };
            let what = "the end of a container was not seen";
            let answer = self.call_with(Method::POST, &path, None, sending, what).await?;
            let waited = tokio::time::timeout(patience, answer.into_body().collect()).await;
            let body = match waited {
                Ok(Ok(body)) => body.to_bytes(),
                Ok(Err(e)) => return Err(Error::unavailable(what).because(e).outcome_unknown()),
                Err(_) => return Err(Error::unavailable(format!("{what} in time. container={name}")).outcome_unknown()),
            };
            let waited: Waited = serde_json::from_slice(&body).map_err(|e| Error::internal(what).because(e))?;
            let mut said = Vec::new();
            self.logs(name, LogOptions::default(), |bytes| said.extend_from_slice(bytes)).await?;
            Ok((waited.status_code, String::from_utf8_lossy(&said).trim().to_owned()))
        };
        let ran = ran.await;
        let removed = self.remove_container(name, true).await;
        ran.and_then(|ran| removed.map(|()| ran))
    }

    /// Passes on what a container wrote, piece by piece, both outputs in the order in which they came.
    ///
    /// # Errors
    /// `NotReady` when there is none, `Unavailable` when the engine is lost.
    pub async fn logs(&self, name: &str, options: LogOptions, mut output: impl FnMut(&[u8]) + Send) -> Result<()> {
        let tail = options.lines.map_or("all".to_owned(), |lines| lines.to_string());
        let follow = options.follow;
        let path = format!("/containers/{}/logs?stdout=true&stderr=true&follow={follow}&tail={tail}", encoded(name));
        let answer = self.call(Method::GET, &path, None, "what a container wrote cannot be read").await;
        let mut body = answer.map_err(|e| super::exec::in_container(e, name))?.into_body();
        let mut held = bytes::BytesMut::new();
        let lost = || Error::unavailable(format!("the engine was lost. engine={self}, container={name}"));
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|e| lost().because(e))?.into_data() {
                held.extend_from_slice(&data);
                while let Some((_, piece)) = super::exec::take(&mut held).map_err(|e| lost().because(e))? {
                    output(&piece);
                }
            }
        }
        Ok(())
    }
}
