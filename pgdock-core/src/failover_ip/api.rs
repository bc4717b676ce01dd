//! What the keepers of addresses that are reached by HTTP have in common: one request, bounded in time and size,
//! and nothing taken from the environment.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};

use crate::{Error, Result};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer may be dead, and nobody says so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// More than any answer.
const BYTES_MAX: usize = 1 << 20;
/// How much of what a keeper says is kept in an error.
const SAID_MAX: usize = 400;

/// An HTTP client for requests to one keeper.
#[derive(Clone, Debug)]
pub(super) struct Api {
    client: reqwest::Client,
    endpoint: String,
    /// Who is asked, as errors name him.
    keeper: &'static str,
}

/// What a keeper answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The header `Retry-After`, where it is a number of seconds.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

impl Api {
    /// A client; `endpoint` is a URL without a slash at its end. Without TLS only where the URL says so.
    pub(super) fn new(keeper: &'static str, endpoint: &str) -> Result<Self> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let client = reqwest::Client::builder()
            .user_agent(concat!("pgdock/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // What is sent twice may have its effect twice, the second time when another leads.
            .retry(reqwest::retry::never())
            .http1_only()
            .https_only(!endpoint.starts_with("http://"))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|e| Error::invalid(format!("there is no usable HTTP client. keeper={keeper}")).because(e))?;
        Ok(Self { client, endpoint, keeper })
    }

    #[cfg(feature = "aws")]
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    #[cfg(feature = "hetzner")]
    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.endpoint))
    }

    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.endpoint))
    }

    /// Sends a request and takes in the whole answer.
    ///
    /// # Errors
    /// `Unavailable`; its outcome is unknown unless no connection was made.
    pub(super) async fn send(&self, request: RequestBuilder, timeout: Duration) -> Result<Answer> {
        let mut response = request.timeout(timeout).send().await.map_err(|e| self.lost(e))?;
        let status = response.status();
        let seconds = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.lost(e))? {
            if body.len() + chunk.len() > BYTES_MAX {
                return Err(self.strange("it is longer than any answer").outcome_unknown());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, retry_after: seconds.map(Duration::from_secs), body })
    }

    fn lost(&self, error: reqwest::Error) -> Error {
        let before_sending = error.is_connect() || error.is_builder();
        let failed =
            Error::unavailable(format!("the keeper of the failover IP does not answer. keeper={}", self.keeper))
                .because(shown(error));
        if before_sending { failed } else { failed.outcome_unknown() }
    }

    /// An answer that nobody expects.
    pub(super) fn strange(&self, why: &str) -> Error {
        Error::unavailable(format!("the answer of {} is not understood: {why}", self.keeper))
    }

    /// What a refusal means that is not particular to one keeper. `what` describes the request, as `key=value`.
    pub(super) fn refused(&self, answer: &Answer, code: &str, message: &str, what: &str) -> Error {
        let told = |text: &str| {
            let code = if code.is_empty() { "none" } else { code };
            format!("{text}. {what}, keeper={}, status={}, code={code}", self.keeper, answer.status.as_u16())
        };
        let error = match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::invalid(told("the keeper of the failover IP refuses these credentials"))
                    .hint("check the credentials, and what they may do: docs/failover-ip.md")
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Error::unavailable(told("the keeper of the failover IP wants fewer requests"))
            }
            StatusCode::SERVICE_UNAVAILABLE => Error::unavailable(told("the keeper of the failover IP is closed")),
            status if status.is_client_error() => {
                Error::invalid(told("the keeper of the failover IP refuses the request"))
            }
            _ => Error::unavailable(told("the keeper of the failover IP failed")).outcome_unknown(),
        };
        let error = if message.is_empty() { error } else { error.because(short(message)) };
        match answer.retry_after {
            Some(pause) => error.not_before(pause),
            None => error,
        }
    }
}

/// What a keeper said, on one line, cut where it is long.
fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= SAID_MAX { line } else { line.chars().take(SAID_MAX).chain(['…']).collect() }
}

/// A body of `application/x-www-form-urlencoded`.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
            out
        })
    };
    let pairs: Vec<_> = fields.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

/// An error with all its causes, on one line.
fn shown(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded() {
        assert_eq!(form(&[("a b", "1&2=3"), ("ip", "2001:db8::1")]), "a%20b=1%262%3D3&ip=2001%3Adb8%3A%3A1");
    }

    #[test]
    fn what_a_keeper_says_stays_on_one_line() {
        assert_eq!(short("a\nb\r\tc"), "a b  c");
        assert_eq!(short(&"x".repeat(1000)).chars().count(), SAID_MAX + 1);
    }
}
