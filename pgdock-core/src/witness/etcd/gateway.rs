//! etcd's JSON gateway: what is sent, what comes back, and what an error of it means.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::witness::http;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Another member may answer.
    pub(super) elsewhere: bool,
    /// The token is no longer good.
    pub(super) stale_token: bool,
}

impl Failure {
    /// Of a request that came before the one that was meant: whatever became of it, that one was not sent.
    pub(super) fn before(self) -> Self {
        Self { error: self.error.before_sending(), ..self }
    }
}

/// Nothing came back in time.
pub(super) fn silent(limit: Duration) -> Failure {
    let error = Error::unavailable("etcd did not answer").because(format!("no answer within {limit:?}"));
    Failure { error: error.outcome_unknown(), elsewhere: true, stale_token: false }
}

#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) cluster_id: String,
    #[serde(default)]
    pub(super) revision: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Range {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    pub(super) mod_revision: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Txn {
    pub(super) header: Header,
    /// Left out where it is false.
    #[serde(default)]
    pub(super) succeeded: bool,
}

#[derive(Deserialize)]
pub(super) struct Token {
    /// A secret, to be wrapped as one.
    pub(super) token: String,
}

/// What a gateway says of a failure: a code of gRPC, and etcd's own words.
#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error: String,
}

/// Sends one request to one endpoint, once.
pub(super) async fn post<T: DeserializeOwned>(
    client: &reqwest::Client,
    endpoint: &str,
    url: &str,
    body: &Value,
    token: Option<&SecretString>,
    limit: Duration,
) -> Result<T, Failure> {
    let mut request = client.post(url).timeout(limit).body(body.to_string()).header("content-type", "application/json");
    if let Some(token) = token {
        let mut value = reqwest::header::HeaderValue::from_str(token.expose_secret())
            .map_err(|_| unknown("etcd gave a token that cannot be sent".into(), endpoint))?;
        value.set_sensitive(true);
        request = request.header("authorization", value);
    }
    let response = request.send().await.map_err(|e| {
        let nobody = e.is_connect();
        let error = Error::unavailable(format!("etcd did not answer. endpoint={endpoint}")).because(http::shown(e));
        let error = if nobody { error } else { error.outcome_unknown() };
        Failure { error, elsewhere: true, stale_token: false }
    })?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(|e| unknown(http::shown(e), endpoint))?;
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|e| unknown(format!("not understood: {e}"), endpoint));
    }
    let said: Said = serde_json::from_slice(&bytes).unwrap_or_default();
    Err(refused(status, &said, endpoint))
}

fn unknown(why: String, endpoint: &str) -> Failure {
    let error = Error::unavailable(format!("etcd gave no usable answer. endpoint={endpoint}")).because(why);
    Failure { error: error.outcome_unknown(), elsewhere: true, stale_token: false }
}

/// What an error of etcd means. The words are of etcd's `api/v3rpc/rpctypes`; the codes alone do not tell a
/// request that was never proposed from one that may be decided yet.
fn refused(status: StatusCode, said: &Said, endpoint: &str) -> Failure {
    let words = if said.message.is_empty() { &said.error } else { &said.message };
    let told = |what: &str| format!("{what}. endpoint={endpoint}, status={}, said={words:?}", status.as_u16());
    let says = |part: &str| words.contains(part);
    let failure = |error, elsewhere| Failure { error, elsewhere, stale_token: false };
    if says("invalid auth token") || says("revision of auth store is old") || says("auth store is old") {
        let error = Error::unavailable(told("etcd takes the token for old"));
        return Failure { error, elsewhere: false, stale_token: true };
    }
    if says("no leader") || says("too many requests") || says("not capable") {
        return failure(Error::unavailable(told("this member of etcd takes no requests")), true);
    }
    if says("space exceeded") {
        let error = Error::unavailable(told("etcd is full")).hint("compact and defragment etcd, then disarm its alarm");
        return failure(error, false);
    }
    match said.code {
        // Unauthenticated, PermissionDenied.
        7 | 16 => failure(
            Error::invalid(told("etcd refuses these credentials"))
                .hint("check ETCD_USER and ETCD_PASSWORD in the credentials file, and what that user may do"),
            false,
        ),
        // InvalidArgument, NotFound, FailedPrecondition, Unimplemented.
        3 | 5 | 9 | 12 => failure(
            Error::invalid(told("etcd refuses the request"))
                .hint("it must be etcd 3.4 or newer; where it asks for a user, set ETCD_USER and ETCD_PASSWORD"),
            false,
        ),
        _ if status == StatusCode::NOT_FOUND => {
            failure(Error::invalid(told("there is no JSON gateway of etcd 3.4 or newer")), false)
        }
        // Timed out, leader changed, stopped: it may be decided yet.
        _ => failure(Error::unavailable(told("etcd did not do what was asked")).outcome_unknown(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, code: u32, message: &str) -> Failure {
        let said = Said { code, message: message.to_owned(), ..Said::default() };
        refused(StatusCode::from_u16(status).unwrap(), &said, "h:2379")
    }

    #[test]
    fn only_what_was_never_proposed_is_known_not_to_have_landed() {
        for (status, code, said) in [
            (503, 14, "etcdserver: no leader"),
            (429, 8, "etcdserver: too many requests"),
            (401, 16, "etcdserver: invalid auth token"),
            (400, 3, "etcdserver: user name is empty"),
            (403, 7, "etcdserver: permission denied"),
            (429, 8, "etcdserver: mvcc: database space exceeded"),
        ] {
            assert!(of(status, code, said).error.outcome_known(), "{said}");
        }
        for (status, code, said) in [
            (503, 14, "etcdserver: request timed out"),
            (503, 14, "etcdserver: request timed out, possibly due to previous leader failure"),
            (503, 14, "etcdserver: leader changed"),
            (503, 14, "etcdserver: server stopped"),
            (500, 2, "context deadline exceeded"),
            (502, 0, ""),
        ] {
            assert!(!of(status, code, said).error.outcome_known(), "{said}");
        }
    }

    #[test]
    fn an_answer_is_read_also_where_what_is_nought_is_left_out() {
        let txn: Txn = serde_json::from_str(r#"{"header":{"cluster_id":"1","revision":"7"}}"#).unwrap();
        assert!(!txn.succeeded && txn.header.revision == "7");
        let range: Range = serde_json::from_str(r#"{"header":{"cluster_id":"1"}}"#).unwrap();
        assert!(range.kvs.is_empty());
    }
}
