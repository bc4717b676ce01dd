//! `LISTEN` that survives the loss of its server.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, Ears};
use super::fleet::Node;
use super::{Router, Shared};

/// Notifications that may wait for a slow reader.
const WAITING_MAX: usize = 1024;

/// What comes of a [`listen`](crate::Router::listen).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// From here on, notifications arrive: the first time, and after each gap. What was sent since the last
    /// notification may be missed, so look at the tables that they are about.
    Listening {
        /// The primary that is listened to.
        node: String,
    },
    /// A notification.
    Notification {
        /// Its channel.
        channel: String,
        /// Its payload.
        payload: String,
    },
}

/// Notifications of the primary, whichever it is. When it is dropped, its connection is closed.
#[derive(Debug)]
pub struct Notifications {
    heard: mpsc::Receiver<Heard>,
    task: AbortHandle,
}

impl Notifications {
    pub(super) fn start(router: Router, channels: &[&str]) -> Self {
        // A name is quoted, so that it says what it says.
        let listen: Vec<String> =
            channels.iter().map(|channel| format!("LISTEN \"{}\"", channel.replace('"', "\"\""))).collect();
        let (sender, heard) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(run(router, listen.join(";"), sender)).abort_handle();
        Self { heard, task }
    }

    /// The next thing that is heard. It never ends by itself, and can be given up at any time without a loss.
    pub async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(router: Router, listen: String, heard: mpsc::Sender<Heard>) {
    let shared = &router.shared;
    let mut changes = shared.fleet.watch();
    loop {
        let primary = shared.fleet.view().primary().cloned();
        let Some(node) = primary else {
            if changes.wait_for(|topology| topology.primary().is_some()).await.is_err() {
                return;
            }
            continue;
        };
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        match open(shared, &node, &listen, sender).await {
            Ok(connection) => {
                if heard.send(Heard::Listening { node: node.name.clone() }).await.is_err() {
                    return;
                }
                if pass_on(shared, &node, &connection, receiver, &heard).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(node = %node.name, error, "cannot listen");
                shared.fleet.forget(&node);
                sleep(shared.limits.poll).await;
            }
        }
    }
}

async fn open(
    shared: &Arc<Shared>,
    node: &Node,
    listen: &str,
    notifications: mpsc::Sender<tokio_postgres::Notification>,
) -> Result<Connection, String> {
    let (fleet, name) = (shared.fleet.clone(), node.name.clone());
    let ears =
        Ears { hot_standby: Arc::new(move |standby| fleet.heard(&name, standby)), notifications: Some(notifications) };
    let opens = async {
        let connection = shared.dial.dial(node.address.clone(), ears).await?;
        connection.batch_execute(listen).await?;
        Ok(connection)
    };
    let opened = timeout(shared.limits.connect, opens).await.map_err(|_| "no answer in time".to_owned())?;
    opened.map_err(|error: tokio_postgres::Error| error.to_string())
}

/// Passes notifications on until the connection is of no use any more. `Err` when nobody listens.
async fn pass_on(
    shared: &Shared,
    node: &Arc<Node>,
    connection: &Connection,
    mut receiver: mpsc::Receiver<tokio_postgres::Notification>,
    heard: &mpsc::Sender<Heard>,
) -> Result<(), ()> {
    let mut changes = shared.fleet.watch();
    let mut waiting = VecDeque::new();
    loop {
        tokio::select! {
            notification = receiver.recv() => match notification {
                Some(notification) => waiting.push_back(Heard::Notification {
                    channel: notification.channel().to_owned(),
                    payload: notification.payload().to_owned(),
                }),
                // The task of the connection has ended.
                None => return Ok(()),
            },
            _ = changes.changed() => {
                let view = shared.fleet.view();
                if view.primary().is_some_and(|primary| !Arc::ptr_eq(primary, node)) {
                    return Ok(());
                }
            }
            // A server that is frozen, or cut off, closes nothing.
            () = sleep(shared.limits.poll) => match timeout(shared.limits.connect, connection.check_connection()).await {
                Ok(Ok(())) => {}
                _ => return Ok(()),
            },
            () = heard.closed() => return Err(()),
        }
        while let Some(next) = waiting.pop_front() {
            heard.send(next).await.map_err(|_| ())?;
        }
    }
}
