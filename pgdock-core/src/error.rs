//! [`Error`]: what went wrong, and what the caller can do about it.

use std::time::Duration;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is wrong: correct it, then try again.
    Invalid,
    /// Something needed did not answer: try again later.
    Unavailable,
    /// Somebody else changed it first: look again, then decide anew.
    Conflict,
    /// This node has lost its right to do that: it must not be retried here.
    Fenced,
    /// It is too early: wait for the state that the message names.
    NotReady,
    /// It was refused because it could lose data, or because only a person can tell.
    NeedsOperator,
    /// A fault of ours, or of the machine.
    Internal,
}

/// An error with its kind, a message, and hints for a person.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hints: Vec<String>,
    outcome_known: bool,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a kind. The message is lower case, with values last, as `key=value`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), outcome_known: true, retry_after: None, source: None }
    }

    /// [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::NotReady`].
    pub fn not_ready(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotReady, message)
    }

    /// [`ErrorKind::NeedsOperator`].
    pub fn needs_operator(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NeedsOperator, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what a person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same error, with a place added to its message, as `key=value`.
    #[must_use]
    pub(crate) fn at(mut self, place: impl std::fmt::Display) -> Self {
        let joint = if self.message.contains('=') { ", " } else { ". " };
        self.message = format!("{}{joint}{place}", self.message);
        self
    }

    /// Says that the request may have taken effect all the same.
    #[must_use]
    pub fn outcome_unknown(mut self) -> Self {
        self.outcome_known = false;
        self
    }

    /// Says how long to wait before the same request is made again, as whoever refused it asks for.
    #[must_use]
    pub fn not_before(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Says that the request that this one was to prepare was not sent.
    #[must_use]
    pub(crate) fn before_sending(mut self) -> Self {
        self.outcome_known = true;
        self
    }

    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What a person can do, most useful first.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether it is certain that the request had no effect. Where it is not, look before trying again.
    #[must_use]
    pub fn outcome_known(&self) -> bool {
        self.outcome_known
    }

    /// How long to wait at least before the same request is made again; nothing where nobody asked for it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same request may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::NotReady)
    }

    /// The message with all its causes, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            next = error.source();
        }
        text
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
