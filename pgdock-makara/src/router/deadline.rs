//! A limit for a statement, by a timer that stays with the connection.
//!
//! A timer that is made for each statement is put into the runtime's wheel and taken out again, under its lock. One that is
//! moved to a later time is not: the wheel looks at it when its first time comes, and finds it later. Nearly all statements
//! end long before their limit, so that such a timer costs an atomic exchange.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::Connection;
use crate::clock;

/// The timer of a connection, while no statement uses it. It belongs to the runtime that runs the connection, and does not
/// outlive it.
#[derive(Debug, Default)]
pub(super) struct Timer(Mutex<Option<Pin<Box<Sleep>>>>);

impl Timer {
    fn take(&self) -> Option<Pin<Box<Sleep>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The time is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Elapsed;

/// The limit of one statement. Several may be under way on one connection: the first takes its timer, others make their own.
pub(super) struct Deadline<'a> {
    home: &'a Timer,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<'a> Deadline<'a> {
    /// A limit that ends so long after `began`.
    pub(super) fn on(connection: &'a Connection, began: Instant, limit: Duration) -> Self {
        let until = clock::later(began, limit);
        let home = connection.timer();
        let sleep = match home.take() {
            Some(mut sleep) => {
                sleep.as_mut().reset(until);
                sleep
            }
            None => Box::pin(sleep_until(until)),
        };
        Self { home, sleep: Some(sleep) }
    }

    /// Runs a future until then.
    pub(super) async fn bound<F: Future>(&mut self, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let sleep = self.sleep.as_mut().expect("only `drop` takes it");
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            // However much the future does in one turn, the time is looked at.
            pin!(unconstrained(sleep.as_mut())).poll(context).map(|()| Err(Elapsed))
        })
        .await
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = self.sleep.take();
    }
}
