//! One request, sent again where that may help, and what became of it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::StatusCode;

use super::{BucketSink, WHOSE};
use crate::Error;
use crate::bucket::wire::{Fate, Note};
use crate::bucket::{causes, is_race};

/// Pauses before a request is sent again; the last one repeats.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(750),
    Duration::from_millis(1_500),
    Duration::from_millis(2_500),
];
/// The slowest way there that is waited for, in bytes a second.
const SLOWEST: u64 = 256 << 10;

/// A request under way.
pub(super) type Asking<'a, T> = BoxFuture<'a, object_store::Result<T>>;

/// A request that did not succeed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What became of the last try.
    pub(super) fate: Fate,
    why: String,
    /// Whether this try or one before it may have had its effect.
    pub(super) may_have_landed: bool,
}

impl Failed {
    /// What was answered.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match &self.fate {
            Fate::Answered(answer) => Some(answer.status),
            _ => None,
        }
    }

    /// Whether a condition did not hold: an object is there.
    pub(super) fn is_refused_condition(&self) -> bool {
        match &self.fate {
            Fate::Answered(answer) => match answer.status {
                StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => true,
                StatusCode::CONFLICT => !is_race(answer),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the same request may succeed in a moment.
    fn is_temporary(&self) -> bool {
        match &self.fate {
            Fate::NotSent | Fate::Sent(_) => true,
            Fate::Answered(answer) => match answer.status {
                // Another write was under way. Nothing was written, and nobody looked whether an object is there.
                StatusCode::CONFLICT => is_race(answer),
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
                // Amazon's words for a body that came too slowly.
                StatusCode::BAD_REQUEST => answer.code == "RequestTimeout",
                StatusCode::NOT_IMPLEMENTED => false,
                // An answer that was good, and was not understood to its end.
                status => status.is_server_error() || status.is_success(),
            },
        }
    }

    /// Whether it may have had its effect.
    fn is_open(&self) -> bool {
        match &self.fate {
            Fate::NotSent => false,
            Fate::Sent(_) => true,
            // Also 503: some gateways answer it after they have passed the request on.
            Fate::Answered(answer) => {
                answer.status != StatusCode::NOT_IMPLEMENTED && answer.status.is_server_error()
                    || answer.status.is_success()
            }
        }
    }
}

impl BucketSink {
    /// Sends a request, a few times where need be. Each try has a note of its own.
    pub(super) async fn asked<'a, T: Send>(
        &self,
        limit: Duration,
        request: impl Fn(Note) -> Asking<'a, T> + Send,
    ) -> Result<T, Failed> {
        let mut landed = false;
        let mut tried = 0;
        loop {
            let note = Note::default();
            let answer = tokio::time::timeout(limit, note.around(&self.bucket, request(note.clone()))).await;
            let why = match answer {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => causes(&error),
                Err(_) => format!("no answer within {limit:?}"),
            };
            let mut failed = Failed { fate: note.fate(), why, may_have_landed: landed };
            landed |= failed.is_open();
            tried += 1;
            if !failed.is_temporary() || tried >= self.tries {
                failed.may_have_landed = landed;
                return Err(failed);
            }
            tokio::time::sleep(PAUSES[(tried as usize - 1).min(PAUSES.len() - 1)]).await;
        }
    }

    /// How long a request with so many bytes may take.
    pub(super) fn limit(&self, bytes: usize) -> Duration {
        self.timeout + Duration::from_secs(bytes as u64 / SLOWEST)
    }

    /// The same in words.
    pub(super) fn error(&self, failed: Failed) -> Error {
        let error = match failed.fate {
            Fate::Answered(answer) if !answer.status.is_success() => WHOSE.refused(&self.to_string(), &answer),
            Fate::Sent(Some(why)) => WHOSE.unanswered(&self.to_string(), Some(why)),
            _ => WHOSE.unanswered(&self.to_string(), Some(failed.why)),
        };
        if failed.may_have_landed { error.outcome_unknown() } else { error }
    }
}
