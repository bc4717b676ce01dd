//! Results that come piece by piece, and data that goes so. They own the connection that they come over.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream};
use tokio::time::{Sleep, sleep, timeout};
use tokio_postgres::CopyInSink;

use super::connection::Lease;
use super::error::{Failure, failure};
use super::run::Ran;
use super::session::Writing;
use super::{Error, Shared};
use crate::clock;

/// The rows of a statement, one after the other.
pub type RowStream = Streaming<tokio_postgres::RowStream>;

/// The data of a `COPY … TO STDOUT`, piece by piece.
pub type CopyOut = Streaming<tokio_postgres::CopyOutStream>;

/// A stream that owns its connection, which goes back to its pool when the stream has ended. One that is dropped before
/// its end is cancelled on the server, and its connection closed.
///
/// The limit of a statement holds for each piece, not for the whole.
pub struct Streaming<S> {
    inner: Pin<Box<S>>,
    lease: Option<Lease>,
    node: String,
    /// Whether it may change something.
    writes: bool,
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> std::fmt::Debug for Streaming<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming").field("node", &self.node).field("open", &self.lease.is_some()).finish()
    }
}

impl<S> Streaming<S> {
    pub(super) fn new(ran: Ran<S>, writes: bool, limit: Duration) -> Self {
        let Ran { output, lease, node } = ran;
        Self {
            inner: Box::pin(output),
            node: node.name.clone(),
            lease: Some(lease),
            writes,
            limit,
            alarm: Box::pin(sleep(limit)),
            waiting: false,
        }
    }

    /// The node that it comes from.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    fn failed(&self, cause: Option<tokio_postgres::Error>) -> Error {
        match (self.writes, cause) {
            (true, cause) => Error::OutcomeUnknown { node: self.node.clone(), cause },
            (false, None) => Error::Timeout { node: self.node.clone() },
            (false, Some(cause)) => Error::NoConnection { node: self.node.clone(), cause: cause.to_string() },
        }
    }
}

impl<S, T> Stream for Streaming<S>
where
    S: Stream<Item = Result<T, tokio_postgres::Error>>,
{
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.lease.is_none() {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = this.inner.as_mut().poll_next(context) else {
            if !std::mem::replace(&mut this.waiting, true) {
                this.alarm.as_mut().reset(clock::after(this.limit));
            }
            ready!(this.alarm.as_mut().poll(context));
            // The lease cancels what still runs.
            this.lease = None;
            return Poll::Ready(Some(Err(this.failed(None))));
        };
        this.waiting = false;
        match next {
            Some(Ok(piece)) => Poll::Ready(Some(Ok(piece))),
            Some(Err(error)) => {
                let lease = this.lease.take();
                Poll::Ready(Some(Err(match failure(&error) {
                    Failure::Lost => {
                        lease.inspect(Lease::break_off);
                        this.failed(Some(error))
                    }
                    _ => {
                        lease.inspect(Lease::end);
                        Error::Postgres(error)
                    }
                })))
            }
            None => {
                let confirmed = this.lease.take().is_none_or(|lease| {
                    lease.end();
                    lease.is_confirmed()
                });
                match confirmed {
                    true => Poll::Ready(None),
                    false => Poll::Ready(Some(Err(Error::NotReplicated { node: this.node.clone() }))),
                }
            }
        }
    }
}

/// Data on its way into a table. Nothing of it counts before [`finish`](Self::finish): one that is dropped is undone.
pub struct CopyIn {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    lease: Lease,
    node: String,
    limit: Duration,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for CopyIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyIn").field("node", &self.node).finish_non_exhaustive()
    }
}

impl CopyIn {
    pub(super) fn new(ran: Ran<CopyInSink<Bytes>>, limit: Duration, shared: Arc<Shared>) -> Self {
        let Ran { output, lease, node } = ran;
        Self { sink: Box::pin(output), lease, node: node.name.clone(), limit, shared }
    }

    /// Sends a piece, in the format of the statement. The limit of a statement holds for each.
    ///
    /// # Errors
    ///
    /// The server refused what came before, is gone, or does not take more in time. Nothing was copied.
    pub async fn send(&mut self, piece: Bytes) -> Result<(), Error> {
        match timeout(self.limit, self.sink.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if failure(&error) == Failure::Lost => {
                self.lease.break_off();
                Err(Error::NoConnection { node: self.node.clone(), cause: error.to_string() })
            }
            Ok(Err(error)) => Err(Error::Postgres(error)),
            Err(_) => Err(Error::Timeout { node: self.node.clone() }),
        }
    }

    /// Ends the copy, and returns the number of rows. The session sticks, as after any write.
    ///
    /// # Errors
    ///
    /// As those of a write: [`Error`] says whether it may have had its effect.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let writing = Writing::begin(&self.shared.id, self.shared.sticky);
        let node = self.node.clone();
        let outcome = timeout(self.limit, self.sink.as_mut().finish()).await;
        match outcome {
            Ok(_) if !self.lease.is_confirmed() => {
                self.lease.break_off();
                self.shared.stats.unconfirmed.increment();
                Err(Error::NotReplicated { node })
            }
            Ok(Ok(rows)) => {
                self.lease.end();
                Ok(rows)
            }
            Ok(Err(error)) if failure(&error) == Failure::Lost => {
                self.lease.break_off();
                Err(Error::OutcomeUnknown { node, cause: Some(error) })
            }
            Ok(Err(error)) => {
                self.lease.end();
                writing.nothing();
                Err(Error::Postgres(error))
            }
            Err(_) => Err(Error::OutcomeUnknown { node, cause: None }),
        }
    }
}
