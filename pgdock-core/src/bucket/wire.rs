//! What became of one request to the store, as seen on the wire.
//!
//! `object_store` folds answers into few kinds of errors: a refused condition and a write that lost against
//! another one at the same moment look the same. Whoever rests on conditions must tell them apart, so that
//! each request carries a note, on which its fate is written.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use crate::witness::http::{self as shared, Tls};

/// What an error says is not longer than this.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The fate of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note(Arc<Mutex<Fate>>);

/// See [`Note`].
#[derive(Clone, Debug, Default)]
pub(crate) enum Fate {
    /// It never left this machine.
    #[default]
    NotSent,
    /// It may have arrived, and nothing came back.
    Sent(Option<String>),
    /// It was answered.
    Answered(Answer),
}

/// An answer of the store.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// What the store calls the error, such as `NoSuchKey`. Empty where it does not say.
    pub(crate) code: String,
    /// What it says to a person.
    pub(crate) message: String,
}

tokio::task_local! {
    /// For requests that cannot carry one: whose path names this bucket.
    static NOTE: (Note, String);
}

impl Note {
    /// Runs what sends requests that cannot carry a note, such as a deletion: those for the bucket are noted, the
    /// last one lastingly.
    pub(crate) async fn around<T>(&self, bucket: &str, requests: impl Future<Output = T>) -> T {
        NOTE.scope((self.clone(), bucket.to_owned()), requests).await
    }

    pub(crate) fn fate(&self) -> Fate {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, fate: Fate) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fate;
    }
}

/// Makes clients that write notes.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) tls: Tls,
    pub(crate) pinned: Option<(String, SocketAddr)>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Instance metadata is served without TLS, within the host.
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let tls = Tls { allow_plain: self.tls.allow_plain || plain, ..self.tls.clone() };
        let client = shared::client(&tls, self.pinned.as_ref())
            .map_err(|e| object_store::Error::Generic { store: "bucket", source: e.chain().into() })?;
        Ok(HttpClient::new(Wire(client)))
    }
}

#[derive(Debug)]
struct Wire(reqwest::Client);

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let carried = request.extensions().get::<Note>().cloned();
        // Those that ask for credentials go elsewhere.
        let around = || NOTE.try_with(|(note, bucket)| names(&request, bucket).then(|| note.clone())).ok().flatten();
        let Some(note) = carried.or_else(around) else {
            return self.0.call(request).await;
        };
        note.write(Fate::Sent(None));
        let response = self.0.call(request).await.inspect_err(|e| {
            let nobody = e.kind() == HttpErrorKind::Connect;
            note.write(if nobody { Fate::NotSent } else { Fate::Sent(Some(chain(e))) });
        })?;
        let (parts, body) = response.into_parts();
        let mut answer = Answer { status: parts.status, code: String::new(), message: String::new() };
        if parts.status.is_success() {
            note.write(Fate::Answered(answer));
            return Ok(HttpResponse::from_parts(parts, body));
        }
        note.write(Fate::Answered(answer.clone()));
        let text = Limited::new(body, ERROR_BYTES_MAX).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let said = String::from_utf8_lossy(&text);
        let header = parts.headers.get("x-ms-error-code").and_then(|v| v.to_str().ok());
        answer.code = header.map_or_else(|| element(&said, "Code"), str::to_owned);
        answer.message = element(&said, "Message");
        note.write(Fate::Answered(answer));
        Ok(HttpResponse::from_parts(parts, text.into()))
    }
}

/// Whether a request is for a bucket, by host or by path.
fn names(request: &HttpRequest, bucket: &str) -> bool {
    let uri = request.uri();
    let host = uri.host().is_some_and(|host| host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.')));
    host || uri.path().split('/').any(|part| part == bucket)
}

/// The text of an XML element without any within it: all that errors of these stores consist of.
fn element(text: &str, name: &str) -> String {
    let inner = text.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<'));
    inner.map(|(inner, _)| inner.trim().chars().take(300).collect()).unwrap_or_default()
}

fn chain(error: &HttpError) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = if text.is_empty() { cause.to_string() } else { format!("{text}: {cause}") };
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_read() {
        let said = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message> Not here.\n</Message></Error>";
        assert_eq!((element(said, "Code").as_str(), element(said, "Message").as_str()), ("NoSuchKey", "Not here."));
        for odd in ["", "<Code>", "nginx", "<Code></Code>"] {
            assert_eq!(element(odd, "Code"), "", "{odd}");
        }
    }
}
