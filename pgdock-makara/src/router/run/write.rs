//! Statements for the primary: sent once, unless they certainly did nothing.

use std::time::Duration;

use super::attempt::{Attempt, Beside};
use super::{Error, Ran};
use crate::router::Shared;
use crate::router::error::{Failure, failure};
use crate::router::session::Writing;
use crate::router::work::Work;

impl Shared {
    /// Runs a statement on the primary. What may be a write is sent again only if it certainly did nothing.
    pub(in crate::router) async fn on_primary<W: Work>(
        &self,
        work: &W,
        limit: Duration,
        writing: Option<Writing<'_>>,
    ) -> Result<Ran<W::Output>, Error> {
        let (read, mut again) = (writing.is_none(), true);
        let beside = match &writing {
            // Behind a stream it would wait for whoever reads the stream, who is not asked to before it is here.
            Some(writing) if writing.wants_position() && !W::STREAMS => Beside::Position,
            _ => Beside::Nothing,
        };
        loop {
            let (node, lease) = match self.primary().await {
                Ok(found) => found,
                Err(error) => {
                    // Nothing was sent, or what was sent did nothing.
                    writing.into_iter().for_each(Writing::nothing);
                    return Err(error);
                }
            };
            let name = || node.name.clone();
            match self.attempt(&node, &lease, work, limit, &beside, true).await {
                Attempt::Done(output, position) => {
                    match read {
                        true => node.stats.reads.increment(),
                        false => node.stats.writes.increment(),
                    }
                    if let Some(writing) = writing {
                        writing.ended(position.and_then(|position| self.token(position)));
                    }
                    return Ok(Ran { output, lease, node });
                }
                Attempt::Unconfirmed => {
                    self.stats.unconfirmed.increment();
                    return Err(Error::NotReplicated { node: name() });
                }
                Attempt::Lost(_, sent) if (read || !sent) && again => {
                    node.stats.lost.increment();
                    self.fleet.forget(&node);
                }
                Attempt::Lost(cause, sent) => {
                    node.stats.lost.increment();
                    self.fleet.forget(&node);
                    return Err(match sent && !read {
                        true => Error::OutcomeUnknown { node: name(), cause: Some(cause) },
                        false => Error::NoConnection { node: name(), cause: cause.to_string() },
                    });
                }
                Attempt::Late(sent) => {
                    node.stats.timeouts.increment();
                    node.asked.notify_one();
                    return Err(match read || !sent {
                        true => Error::Timeout { node: name() },
                        false => Error::OutcomeUnknown { node: name(), cause: None },
                    });
                }
                // It may also be the transaction's own choice: then the same node answers the same again.
                Attempt::Refused(error) if again && failure(&error) == Failure::ReadOnly => self.fleet.forget(&node),
                Attempt::Refused(error) => return Err(Error::Postgres(error)),
                // Nobody asked.
                Attempt::Behind => {}
            }
            self.stats.retries.increment();
            again = false;
        }
    }
}
