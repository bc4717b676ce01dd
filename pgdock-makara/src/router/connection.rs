//! One connection, what the server says on it beside results, and who may have it next.
//!
//! ```text
//!   server ──▶ task: polls the socket ──▶ results ──▶ whoever borrowed the connection
//!                      ├─ notice: a commit that no standby confirmed ──▶ counted, read after each statement
//!                      ├─ `in_hot_standby` ──▶ the node's role
//!                      └─ notifications ──▶ a listener, if there is one
//! ```
//!
//! The server sends a notice before the end of the statement that it belongs to, and the task takes both in this order:
//! who sees the end of a statement sees the count of its notices.

use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use deadpool::managed;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::DbError;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Error, Notification, Socket, Statement};

use super::deadline::Timer;

/// Statements that a connection keeps prepared, at most. An application has fewer texts; one that writes values into
/// its texts would fill the server's memory.
const STATEMENTS_MAX: usize = 512;

/// A future behind a pointer.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the task of a connection reports to others.
#[derive(Clone)]
pub(super) struct Ears {
    /// Called when the server says that it is, or is no longer, in recovery. Servers before version 14 never do.
    pub(super) hot_standby: Arc<dyn Fn(bool) + Send + Sync>,
    /// Where notifications go.
    pub(super) notifications: Option<mpsc::Sender<Notification>>,
}

/// Opens connections, and cancels what runs on them. It hides the type of the TLS connector.
pub(super) trait Dial: Send + Sync {
    fn dial(&self, address: Config, ears: Ears) -> Boxed<'_, Result<Connection, Error>>;

    /// Asks the server to give up what runs on a connection, in the background.
    fn cancel(&self, token: CancelToken, within: Duration);
}

/// [`Dial`] with a TLS connector.
pub(super) struct Tls<T>(pub(super) T);

impl<T> Dial for Tls<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn dial(&self, address: Config, ears: Ears) -> Boxed<'_, Result<Connection, Error>> {
        let tls = self.0.clone();
        Box::pin(async move {
            let (client, mut socket) = address.connect(tls).await?;
            let unconfirmed = Arc::new(AtomicU32::new(0));
            let (counter, mut standby) = (unconfirmed.clone(), None);
            let task = tokio::spawn(poll_fn(move |context| {
                loop {
                    match socket.poll_message(context) {
                        // All that has come was read.
                        Poll::Pending => {
                            let says = socket.parameter("in_hot_standby").map(|value| value == "on");
                            if says != standby {
                                standby = says;
                                says.into_iter().for_each(|says| (ears.hot_standby)(says));
                            }
                            return Poll::Pending;
                        }
                        Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                            if is_unconfirmed(&notice) {
                                counter.fetch_add(1, Ordering::Release);
                            }
                            tracing::debug!(code = notice.code().code(), "notice: {}", notice.message());
                        }
                        Poll::Ready(Some(Ok(AsyncMessage::Notification(notification)))) => {
                            if let Some(listener) = &ears.notifications
                                && listener.try_send(notification).is_err()
                            {
                                // Whoever does not keep up begins anew, and so knows that there is a gap.
                                return Poll::Ready(());
                            }
                        }
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(error))) => {
                            tracing::debug!(%error, "a connection broke");
                            return Poll::Ready(());
                        }
                        Poll::Ready(None) => return Poll::Ready(()),
                    }
                }
            }));
            let (statements, timer) = Default::default();
            Ok(Connection { client, statements, timer, unconfirmed, epoch: 0, since: 0, task })
        })
    }

    fn cancel(&self, token: CancelToken, within: Duration) {
        let tls = self.0.clone();
        // The statement is given up either way; this only frees the server from it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = timeout(within, token.cancel_query(tls)).await;
            });
        }
    }
}

/// Whether a notice says that a commit ended its wait for standbys before any confirmed it. The text is translated;
/// the name of the function that waits is not.
fn is_unconfirmed(notice: &DbError) -> bool {
    notice.code().code() == "01000" && notice.routine() == Some("SyncRepWaitForLSN")
}

/// What is prepared on a connection: by text, and by the types that were asked for.
type Prepared = HashMap<Box<str>, Vec<(Box<[Type]>, Statement)>>;

/// An open connection, with the statements that are prepared on it.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    statements: Mutex<Prepared>,
    timer: Timer,
    unconfirmed: Arc<AtomicU32>,
    epoch: u64,
    since: u64,
    task: JoinHandle<()>,
}

impl Connection {
    /// The statement, prepared on this connection now or before. Without types, the server finds them.
    pub(super) async fn prepared(&self, sql: &str, types: &[Type]) -> Result<Statement, Error> {
        if let Some(known) = self.statements().get(sql)
            && let Some((_, statement)) = known.iter().find(|(wanted, _)| **wanted == *types)
        {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare_typed(sql, types).await?;
        let mut statements = self.statements();
        if statements.len() >= STATEMENTS_MAX {
            statements.clear();
        }
        statements.entry(sql.into()).or_default().push((types.into(), statement.clone()));
        Ok(statement)
    }

    /// Waits until the server has closed it.
    pub(super) async fn closed(&mut self) {
        // However it ended: nothing comes from there any more.
        let _ = (&mut self.task).await;
    }

    /// What bounds its statements in time.
    pub(super) fn timer(&self) -> &Timer {
        &self.timer
    }

    /// Forgets what is prepared: the server may have, too.
    pub(super) fn forget_statements(&self) {
        self.statements().clear();
    }

    fn statements(&self) -> MutexGuard<'_, Prepared> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was open before a question for the node's role was asked, by the number of the question. Then the
    /// server has not restarted since it answered: that would have closed the connection.
    pub(super) fn was_open(&self, question: u64) -> bool {
        self.since < question
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Fills the pool of one node.
pub(super) struct Manager {
    pub(super) address: Config,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) ears: Ears,
    /// Grows when connections of before are not to be used any more.
    pub(super) epoch: AtomicU64,
    /// Counts the questions for the node's role, to tell which connections are older than an answer.
    pub(super) questions: AtomicU64,
}

pub(super) type Pool = managed::Pool<Manager>;
pub(super) type PoolError = managed::PoolError<Error>;

impl managed::Manager for Manager {
    // The pool moves it about.
    type Type = Box<Connection>;
    type Error = Error;

    async fn create(&self) -> Result<Box<Connection>, Error> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let mut connection = self.dial.dial(self.address.clone(), self.ears.clone()).await?;
        connection.epoch = epoch;
        connection.since = self.questions.load(Ordering::SeqCst);
        Ok(Box::new(connection))
    }

    async fn recycle(&self, connection: &mut Box<Connection>, _: &managed::Metrics) -> managed::RecycleResult<Error> {
        if connection.is_closed() {
            Err(managed::RecycleError::message("the connection is closed"))
        } else if connection.epoch != self.epoch.load(Ordering::Relaxed) {
            Err(managed::RecycleError::message("the node has changed since"))
        } else {
            Ok(())
        }
    }
}

/// A borrowed connection. While something runs on it, it cannot go back: whoever borrowed it next would wait for that,
/// or get its answer. So a statement that is given up (its time is over, its future was dropped) is cancelled on the
/// server, and its connection closed.
pub(super) struct Lease {
    object: Option<managed::Object<Manager>>,
    dial: Arc<dyn Dial>,
    within: Duration,
    /// How many statements are under way.
    busy: AtomicU32,
    broken: AtomicBool,
    unconfirmed: u32,
}

impl Lease {
    pub(super) fn new(object: managed::Object<Manager>, dial: Arc<dyn Dial>, within: Duration) -> Self {
        let unconfirmed = object.unconfirmed.load(Ordering::Acquire);
        let (busy, broken) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { object: Some(object), dial, within, busy, broken, unconfirmed }
    }

    /// Whether every commit since it was borrowed was confirmed by as many standbys as it had to wait for.
    pub(super) fn is_confirmed(&self) -> bool {
        self.deref().unconfirmed.load(Ordering::Acquire) == self.unconfirmed
    }

    /// From here on, one statement more runs.
    pub(super) fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended, and its answer was read.
    pub(super) fn end(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// The connection is to be closed instead of given back.
    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.object.as_deref().expect("only `drop` takes it")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (busy, broken) = (*self.busy.get_mut() > 0, *self.broken.get_mut());
        if let Some(object) = self.object.take()
            && (busy || broken)
        {
            if !broken {
                self.dial.cancel(object.cancel_token(), self.within);
            }
            drop(managed::Object::take(object));
        }
    }
}
