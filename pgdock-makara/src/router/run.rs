//! One statement, from its text to its result: which node, what an error means, where to go next.

use std::sync::PoisonError;

use deadpool_postgres::{Object, PoolError};
use tokio::time::timeout;
use tokio_postgres::Row;

use super::{Error, Failure, Params, Shared, failure, session};
use crate::{Target, clock};

/// What a statement is for: to bring rows, or to change some. It may be run on several nodes, one after the other.
pub(super) trait Work: Sync {
    type Output: Send;

    fn run(&self, client: &Object) -> impl Future<Output = Result<Self::Output, tokio_postgres::Error>> + Send;
}

/// A statement for its rows.
pub(super) struct Query<'a> {
    pub(super) sql: &'a str,
    pub(super) params: &'a Params<'a>,
}

/// A statement for the number of rows that it touches.
pub(super) struct Execute<'a> {
    pub(super) sql: &'a str,
    pub(super) params: &'a Params<'a>,
}

impl Work for Query<'_> {
    type Output = Vec<Row>;

    async fn run(&self, client: &Object) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = client.prepare_cached(self.sql).await?;
        client.query(&statement, self.params).await
    }
}

impl Work for Execute<'_> {
    type Output = u64;

    async fn run(&self, client: &Object) -> Result<u64, tokio_postgres::Error> {
        let statement = client.prepare_cached(self.sql).await?;
        client.execute(&statement, self.params).await
    }
}

/// How one attempt on one node ended.
enum Attempt<T> {
    Done(T),
    Refused(tokio_postgres::Error),
    /// The connection is gone.
    Lost(tokio_postgres::Error),
    Late,
}

/// Why there is no connection.
struct NoClient {
    /// The node is at fault, rather than the load on it.
    gone: bool,
    cause: String,
}

impl Shared {
    /// Runs a statement where it belongs.
    pub(super) async fn run<W: Work>(&self, sql: &str, work: &W) -> Result<W::Output, Error> {
        let decision = self.classifier.classify(sql);
        match decision.target {
            Target::Replica if !session::is_stuck(&self.id) => self.read(work).await,
            Target::Replica => self.on_primary(work, true).await,
            Target::Primary => {
                if decision.sticks() {
                    // Before it runs: even if it fails, it may have had its effect.
                    self.stick();
                }
                self.on_primary(work, false).await
            }
            Target::All | Target::Pin(_) => Err(Error::Pinned(decision.reason)),
        }
    }

    /// Tries standbys one after the other, each once, and then the primary.
    async fn read<W: Work>(&self, work: &W) -> Result<W::Output, Error> {
        let mut tried = vec![false; self.nodes.len()];
        while let Some(node) = self.pick(&tried) {
            tried[node] = true;
            let client = match self.connect(node).await {
                Ok(client) => client,
                Err(_) => continue,
            };
            match self.attempt(client, work).await {
                Attempt::Done(result) => return Ok(result),
                Attempt::Lost(error) => self.ban(node, &error.to_string()),
                Attempt::Late => {
                    self.ban(node, "a statement took too long");
                    // The time of the caller is over as well.
                    return Err(Error::Timeout { node: self.nodes[node].name.clone() });
                }
                Attempt::Refused(error) => match failure(&error) {
                    Failure::Conflict => {}
                    // It was no read after all, and a standby does nothing that it refuses.
                    Failure::ReadOnly => {
                        tracing::warn!(node = %self.nodes[node].name, "a standby refused what was taken for a read");
                        self.stick();
                        return self.on_primary(work, false).await;
                    }
                    _ => return Err(Error::Postgres(error)),
                },
            }
        }
        self.on_primary(work, true).await
    }

    /// The standby whose turn it is.
    fn pick(&self, tried: &[bool]) -> Option<usize> {
        let topology = self.topology.borrow();
        let bans = self.bans();
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = |node: usize| !tried[node] && topology.is_standby(node) && bans.is_usable(node);
        replicas.pick(usable, |node| {
            let status = self.nodes[node].pool.status();
            u32::try_from(status.size.saturating_sub(status.available) + status.waiting).unwrap_or(u32::MAX)
        })
    }

    /// Runs a statement on the primary. What may be a write is sent again only if it certainly did nothing.
    async fn on_primary<W: Work>(&self, work: &W, read: bool) -> Result<W::Output, Error> {
        let mut again = true;
        loop {
            let (node, client) = self.primary().await?;
            let name = || self.nodes[node].name.clone();
            match self.attempt(client, work).await {
                Attempt::Done(result) => return Ok(result),
                Attempt::Lost(_) if read && again => self.forget(node),
                Attempt::Lost(cause) => {
                    self.forget(node);
                    return Err(Error::OutcomeUnknown { node: name(), cause: Some(cause) });
                }
                Attempt::Late => {
                    self.asked[node].notify_one();
                    return Err(match read {
                        true => Error::Timeout { node: name() },
                        false => Error::OutcomeUnknown { node: name(), cause: None },
                    });
                }
                Attempt::Refused(error) if again && failure(&error) == Failure::ReadOnly => {
                    // It may also be the transaction's own choice: then the same node answers the same again.
                    self.forget(node);
                }
                Attempt::Refused(error) => return Err(Error::Postgres(error)),
            }
            again = false;
        }
    }

    /// A connection to the primary, once there is one.
    pub(super) async fn primary(&self) -> Result<(usize, Object), Error> {
        let wait = self.limits.failover_wait;
        let mut changes = self.topology.subscribe();
        let mut last = None;
        let found = timeout(wait, async {
            loop {
                let primary = match changes.wait_for(|topology| topology.primary().is_some()).await {
                    Ok(topology) => topology.primary(),
                    // The sender lives as long as the router.
                    Err(_) => None,
                };
                let Some(node) = primary else { continue };
                match self.connect(node).await {
                    Ok(client) => return (node, client),
                    Err(NoClient { gone, cause }) => {
                        last = Some((node, cause));
                        if gone {
                            // Wait until another, or the same, says that it is the primary.
                            self.forget(node);
                        }
                    }
                }
            }
        })
        .await;
        found.map_err(|_| match last {
            Some((node, cause)) => Error::NoConnection { node: self.nodes[node].name.clone(), cause },
            None => Error::NoPrimary { waited: wait },
        })
    }

    /// Takes a connection from the pool, whose own limits bound the wait.
    async fn connect(&self, node: usize) -> Result<Object, NoClient> {
        self.nodes[node].pool.get().await.map_err(|error| {
            let busy = matches!(error, PoolError::Timeout(deadpool_postgres::TimeoutType::Wait));
            let cause = if busy { "all connections are in use".to_owned() } else { error.to_string() };
            if !busy {
                self.ban(node, &cause);
            }
            NoClient { gone: !busy, cause }
        })
    }

    async fn attempt<W: Work>(&self, client: Object, work: &W) -> Attempt<W::Output> {
        match timeout(self.limits.statement, work.run(&client)).await {
            Ok(Ok(result)) => Attempt::Done(result),
            Ok(Err(error)) if failure(&error) == Failure::Lost => {
                drop(Object::take(client));
                Attempt::Lost(error)
            }
            Ok(Err(error)) => Attempt::Refused(error),
            Err(_) => {
                // The next to borrow this connection would wait for what still runs on it.
                (self.cancel)(client.cancel_token());
                drop(Object::take(client));
                Attempt::Late
            }
        }
    }

    fn ban(&self, node: usize, error: &str) {
        self.bans().failed(node, self.clock.now(), clock::chance(), error);
        self.asked[node].notify_one();
    }

    /// A node is not what it was thought to be.
    fn forget(&self, node: usize) {
        self.learn(node, super::Role::Unknown);
        self.asked.iter().for_each(tokio::sync::Notify::notify_one);
    }
}
