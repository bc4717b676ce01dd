//! The layer for tower, and so for axum.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::Key;
use crate::{Memory, Session, clock};

/// The header in which clients without cookies send back what they were sent.
pub const HEADER: &str = "x-pgdock-session";

/// Makara's cookies last this much longer than what they are about.
const GRACE: Duration = Duration::from_secs(5);

/// Decides for a path whether requests to it have no session.
type Skip = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Runs each request in a [`Session`] that goes on with that of the client's last one, by a signed cookie, or by the
/// header [`HEADER`] for clients that keep none. Where something is to be remembered, the response has both.
///
/// Times to live count from when the handler has answered. What a handler writes later, while its body is streamed, is
/// not remembered: the headers are gone by then. A text that was forged, or signed with another key, is ignored, and
/// counted ([`forged`](Self::forged)).
///
/// ```no_run
/// # fn handler() {}
/// use pgdock_makara::{Key, SessionLayer};
///
/// let key = Key::new(b"at least 32 bytes from a source of randomness")?;
/// let layer = SessionLayer::new(key).skip(|path| path.starts_with("/assets/"));
/// let app: axum::Router = axum::Router::new().layer(layer);
/// # Ok::<(), pgdock_makara::KeyError>(())
/// ```
#[derive(Clone)]
pub struct SessionLayer {
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    key: Key,
    cookie: String,
    secure: bool,
    ttl_max: Duration,
    skip: Option<Skip>,
    forged: Arc<AtomicU64>,
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").field("cookie", &self.settings.cookie).finish_non_exhaustive()
    }
}

impl SessionLayer {
    /// A layer that signs with this key.
    #[must_use]
    pub fn new(key: Key) -> Self {
        let settings = Settings {
            key,
            cookie: "_pgdock_stck".to_owned(),
            secure: true,
            ttl_max: Duration::from_secs(3600),
            skip: None,
            forged: Arc::default(),
        };
        Self { settings: Arc::new(settings) }
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Arc::unwrap_or_clone(self.settings);
        change(&mut settings);
        Self { settings: Arc::new(settings) }
    }

    /// The name of the cookie. Default: `_pgdock_stck`.
    #[must_use]
    pub fn cookie(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|settings| settings.cookie = name)
    }

    /// Whether the cookie is for HTTPS alone. Default: yes.
    #[must_use]
    pub fn secure(self, secure: bool) -> Self {
        self.with(|settings| settings.secure = secure)
    }

    /// The longest time that a session is believed to last, whatever it says. Default: one hour.
    #[must_use]
    pub fn ttl_max(self, ttl: Duration) -> Self {
        self.with(|settings| settings.ttl_max = ttl)
    }

    /// Paths whose requests have no session, such as those of assets.
    #[must_use]
    pub fn skip(self, skip: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.skip = Some(Arc::new(skip)))
    }

    /// How many requests brought a session that nobody here has signed.
    #[must_use]
    pub fn forged(&self) -> u64 {
        self.settings.forged.load(Ordering::Relaxed)
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { inner, settings: self.settings.clone() }
    }
}

/// A service whose requests run in sessions. Made by [`SessionLayer`].
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").finish_non_exhaustive()
    }
}

/// The response of a [`SessionService`].
pub type SessionFuture<B, E> = Pin<Box<dyn Future<Output = Result<Response<B>, E>> + Send>>;

impl<S, A, B> Service<Request<A>> for SessionService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = SessionFuture<B, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let settings = self.settings.clone();
        if settings.skip.as_ref().is_some_and(|skip| skip(request.uri().path())) {
            return Box::pin(self.inner.call(request));
        }
        let session = Session::resumed(settings.remembered(request.headers()));
        let response = session.enter(|| self.inner.call(request));
        Box::pin(async move {
            let mut response = session.scope(response).await?;
            if let Some(memory) = session.commit() {
                settings.remember(&memory, response.headers_mut());
            }
            Ok(response)
        })
    }
}

impl Settings {
    /// What the client was told to remember. The header wins, since who sends it means it.
    fn remembered(&self, headers: &HeaderMap) -> Memory {
        let header = headers.get(HEADER).and_then(|value| value.to_str().ok());
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let sealed = header.or_else(|| cookies.find(|(name, _)| *name == self.cookie).map(|(_, value)| value));
        let Some(sealed) = sealed.filter(|sealed| !sealed.is_empty()) else { return Memory::default() };
        self.key.open(sealed, clock::wall(), self.ttl_max).unwrap_or_else(|| {
            self.forged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("a request brought a session that was not signed here");
            Memory::default()
        })
    }

    /// Tells the client what to remember, or that there is nothing any more.
    fn remember(&self, memory: &Memory, headers: &mut HeaderMap) {
        let (sealed, age) = match memory.until() {
            Some(until) => {
                let left = until.duration_since(clock::wall()).unwrap_or_default();
                (self.key.seal(memory), left.as_secs() + u64::from(left.subsec_nanos() > 0) + GRACE.as_secs())
            }
            None => (String::new(), 0),
        };
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{}={sealed}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}", self.cookie);
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(SET_COOKIE, cookie);
        }
        if let Ok(value) = HeaderValue::from_str(&sealed) {
            headers.insert(HEADER, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A handler that does something in its session.
    struct Handler(fn(&Session));

    impl Service<Request<()>> for Handler {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<()>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            let work = self.0;
            Box::pin(async move {
                Session::current().inspect(work);
                Ok(Response::new(()))
            })
        }
    }

    fn layer() -> SessionLayer {
        SessionLayer::new(Key::new(&[7; 32]).unwrap()).skip(|path| path.starts_with("/assets/"))
    }

    fn stick(session: &Session) {
        session.stick_to_primary("app", Duration::from_secs(10));
    }

    fn is_stuck(session: &Session) {
        assert!(session.is_stuck("app"));
    }

    fn is_free(session: &Session) {
        assert!(!session.is_stuck("app"));
    }

    async fn call(layer: &SessionLayer, work: fn(&Session), headers: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::get("/").body(()).unwrap();
        for (name, value) in headers {
            let name = http::HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        layer.layer(Handler(work)).call(request).await.unwrap().into_parts().0.headers
    }

    #[tokio::test]
    async fn the_next_request_goes_on_where_this_one_ended() {
        let layer = layer();
        let headers = call(&layer, stick, &[]).await;
        let cookie = headers[SET_COOKIE].to_str().unwrap();
        assert!(cookie.starts_with("_pgdock_stck=1|"), "{cookie}");
        assert!(cookie.ends_with("; Path=/; Max-Age=15; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        let value = cookie.split(';').next().unwrap();
        let headers = call(&layer, is_stuck, &[("cookie", &format!("other=1; {value}; more=2"))]).await;
        assert!(headers.is_empty(), "nothing new: {headers:?}");

        let sealed = value.split_once('=').unwrap().1;
        call(&layer, is_stuck, &[(HEADER, sealed)]).await;
        let headers = call(&layer, |session| session.release("app"), &[("cookie", value)]).await;
        assert!(headers[SET_COOKIE].to_str().unwrap().contains("=; Path=/; Max-Age=0;"));
        assert_eq!(layer.forged(), 0);
    }

    #[tokio::test]
    async fn a_forged_session_is_ignored_and_counted() {
        let layer = layer();
        for forged in ["_pgdock_stck=app:9999999999", "_pgdock_stck=1|YXBw~9999999999999|AAAA"] {
            assert!(call(&layer, is_free, &[("cookie", forged)]).await.is_empty());
        }
        assert_eq!(layer.forged(), 2);
        call(&layer, is_free, &[("cookie", "_pgdock_stck=; broken"), ("cookie", "=")]).await;
        assert_eq!(layer.forged(), 2);
    }

    #[tokio::test]
    async fn paths_can_be_without_a_session() {
        let request = Request::get("/assets/a.js").body(()).unwrap();
        let response = layer().layer(Handler(|_| panic!("there is a session"))).call(request).await.unwrap();
        assert!(response.headers().is_empty());
    }
}
