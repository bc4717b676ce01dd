//! [`Control`]: the faults of a server in another process, through a Unix socket.
//!
//! A Unix socket is reached from every network namespace, and no outage of the network touches it. The
//! protocol is one line of JSON each way: [`Faults`] go in (an empty line changes nothing), a [`State`] or
//! `{"error": …}` comes back:
//!
//! ```console
//! $ echo '{"outage": "cut"}' | nc -UN s3.sock
//! ```

use std::io::{self, BufRead as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

use crate::faults::{Counts, Faults, Switch};

const TIMEOUT: Duration = Duration::from_secs(10);

/// How a server is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What it does wrong.
    pub faults: Faults,
    /// How many requests came.
    pub counts: Counts,
}

/// Changes the faults of a server in another process. Calls block, for a few milliseconds as a rule.
#[derive(Clone, Debug)]
pub struct Control(PathBuf);

impl Control {
    /// Of the server whose socket is at `path`; it need not run yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Replaces all faults, and says how the server is now.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn set(&self, faults: &Faults) -> io::Result<State> {
        self.ask(&serde_json::to_string(faults)?)
    }

    /// How the server is.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn state(&self) -> io::Result<State> {
        self.ask("")
    }

    fn ask(&self, line: &str) -> io::Result<State> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        std::io::BufReader::new(stream).read_line(&mut answer)?;
        serde_json::from_str(&answer).map_err(|_| io::Error::other(format!("not understood: {answer}")))
    }
}

/// Serves [`Control`] at a path, until it is dropped.
///
/// # Errors
/// When the socket cannot be made. One that an earlier server left is replaced.
pub async fn serve(path: &Path, switch: Arc<Switch>) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let switch = Arc::clone(&switch);
        tokio::spawn(async move {
            let (from, mut to) = stream.into_split();
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if to.write_all(answer(&line, &switch).as_bytes()).await.is_err() {
                    break;
                }
            }
        });
    }
}

fn answer(line: &str, switch: &Switch) -> String {
    if !line.trim().is_empty() {
        match serde_json::from_str(line) {
            Ok(faults) => switch.set(faults),
            Err(e) => return serde_json::json!({ "error": e.to_string() }).to_string() + "\n",
        }
    }
    let state = State { faults: switch.get(), counts: switch.counts() };
    serde_json::to_string(&state).expect("it is plain data") + "\n"
}
