//! Who may change anything: callers that show the token.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};

/// Lets a request through if it shows the token.
pub(super) async fn require_token(State(token): State<SecretString>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let message = match shown {
        Some(shown) if equal(shown.as_bytes(), token.expose_secret().as_bytes()) => return next.run(request).await,
        Some(_) => "the token is not that of this cluster",
        None => "this path needs a token",
    };
    let hint = "send `Authorization: Bearer TOKEN` with the token that `pgdock init` made";
    let mut response = super::error(StatusCode::UNAUTHORIZED, message, hint);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Compares in a time that tells nothing of where two texts of equal length differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    // An empty token would let everybody in.
    a.len() == b.len()
        && !a.is_empty()
        && std::hint::black_box(a.iter().zip(b).fold(0, |differs, (a, b)| std::hint::black_box(differs | (a ^ b)))) == 0
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn only_the_whole_token_is_equal() {
        assert!(equal(b"abc", b"abc"));
        for other in ["", "ab", "abd", "Abc", "abcd"] {
            assert!(!equal(other.as_bytes(), b"abc"), "{other}");
        }
        assert!(!equal(b"", b""));
    }
}
