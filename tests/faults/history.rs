//! [`History`]: all that was done and seen in a run, one JSON object a line, and in memory for the verdict.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pgdock_core::{Error, Lsn, Result, TimelineId};
use serde::Serialize;
use serde_json::json;

/// Microseconds since the run began.
pub type Micros = u64;

/// A write that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which client, by its place in [`Facts::clients`].
    pub client: u16,
    /// To which node, by its place in [`Facts::nodes`].
    pub node: u16,
    /// What was written.
    pub number: i64,
    /// When it was sent.
    pub sent: Micros,
    /// When the answer came, or was not waited for any longer.
    pub ended: Micros,
    /// What the answer was.
    pub outcome: Outcome,
}

/// What became of a write, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Acknowledged(Place),
    /// The commit was cancelled while it waited for standbys: it is on the disk of the node that it was sent to, and
    /// maybe on no other. PostgreSQL says so by a warning, and answers as if all were well.
    Cancelled,
    /// There was no answer, or one that leaves it open.
    Unknown,
}

/// Where a write took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The timeline that the node wrote on.
    pub timeline: TimelineId,
    /// A position in its WAL, not after that of the write.
    pub lsn: Lsn,
    /// The transaction.
    pub xid: u64,
}

/// What a client inside of a node's namespace sees of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// It acknowledges writes.
    Primary,
    /// It takes writes, and does not acknowledge them.
    Waiting,
    /// It refuses writes.
    Standby,
    /// It starts or shuts down.
    Starting,
    /// It refuses connections.
    Stopped,
    /// It does not answer.
    Silent,
}

/// A fault, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whom it hits: a node, or the witness.
    pub host: String,
    /// What it is.
    pub what: String,
    /// When it began.
    pub from: Micros,
    /// When it ended.
    pub to: Option<Micros>,
}

/// All that was done and seen.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The nodes.
    pub nodes: Vec<String>,
    /// The clients.
    pub clients: Vec<String>,
    /// What clients wrote, in the order in which they learned what became of it.
    pub writes: Vec<Write>,
    /// What nodes were seen to be, from a moment on.
    pub seen: Vec<(Micros, u16, Seen)>,
    /// What was done to them.
    pub spans: Vec<Span>,
    /// When all was well again.
    pub settled: Vec<Micros>,
    /// When the run ended.
    pub end: Micros,
}

/// All that was done and seen in a run.
#[derive(Debug)]
pub struct History {
    begin: Instant,
    file: Mutex<BufWriter<File>>,
    facts: Mutex<Facts>,
}

impl History {
    /// Begins one.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn begin(path: &Path, nodes: Vec<String>, clients: Vec<String>) -> Result<Self> {
        let file = File::create(path)
            .map_err(|e| Error::internal(format!("cannot make the history. path={}", path.display())).because(e))?;
        let this = Self { begin: Instant::now(), file: Mutex::new(BufWriter::new(file)), facts: Mutex::default() };
        this.line(&json!({ "nodes": nodes, "clients": clients }));
        let mut facts = this.locked();
        (facts.nodes, facts.clients) = (nodes, clients);
        drop(facts);
        Ok(this)
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Micros {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes what became of a write.
    pub fn wrote(&self, write: Write) {
        let (node, client) = {
            let mut facts = self.locked();
            facts.writes.push(write);
            (facts.nodes[usize::from(write.node)].clone(), facts.clients[usize::from(write.client)].clone())
        };
        let Write { number, sent, ended, .. } = write;
        let mut line = json!({ "write": number, "client": client, "node": node, "sent": at(sent), "ended": at(ended) });
        match write.outcome {
            Outcome::Acknowledged(Place { timeline, lsn, xid }) => {
                line["outcome"] = "acknowledged".into();
                line["timeline"] = timeline.0.into();
                line["lsn"] = lsn.to_string().into();
                line["xid"] = xid.into();
            }
            Outcome::Cancelled => line["outcome"] = "cancelled".into(),
            Outcome::Unknown => line["outcome"] = "unknown".into(),
        }
        self.line(&line);
    }

    /// Notes what a node is seen to be.
    pub fn saw(&self, node: u16, seen: Seen) {
        let now = self.now();
        let name = {
            let mut facts = self.locked();
            if facts.seen.iter().rev().find(|(_, n, _)| *n == node).is_some_and(|(_, _, last)| *last == seen) {
                return;
            }
            facts.seen.push((now, node, seen));
            facts.nodes[usize::from(node)].clone()
        };
        self.line(&json!({ "node": name, "seen": seen, "at": at(now) }));
    }

    /// Notes that a fault begins. The number is for its end.
    pub fn hurt(&self, host: &str, what: &str) -> usize {
        let now = self.now();
        self.line(&json!({ "fault": what, "host": host, "begins": at(now) }));
        let mut facts = self.locked();
        facts.spans.push(Span { host: host.into(), what: what.into(), from: now, to: None });
        facts.spans.len() - 1
    }

    /// Notes that a fault is over.
    pub fn healed(&self, number: usize) {
        let now = self.now();
        let (host, what) = {
            let mut facts = self.locked();
            let span = &mut facts.spans[number];
            span.to = Some(now);
            (span.host.clone(), span.what.clone())
        };
        self.line(&json!({ "fault": what, "host": host, "ends": at(now) }));
    }

    /// Notes that all is well again.
    pub fn settled(&self) {
        let now = self.now();
        self.line(&json!({ "settled": at(now) }));
        self.locked().settled.push(now);
    }

    /// Notes something else.
    pub fn note(&self, what: &str) {
        self.line(&json!({ "note": what, "at": at(self.now()) }));
    }

    /// The numbers of a client that were acknowledged after a moment.
    #[must_use]
    pub fn acknowledged_since(&self, since: Micros, clients: std::ops::Range<u16>) -> usize {
        let facts = self.locked();
        let recent = facts.writes.iter().rev().take_while(|w| w.ended >= since);
        let acks = recent.filter(|w| clients.contains(&w.client) && matches!(w.outcome, Outcome::Acknowledged(_)));
        acks.filter(|w| w.sent >= since).count()
    }

    /// How many writes a node acknowledged that were sent to it after a moment.
    #[must_use]
    pub fn acknowledged_by(&self, node: &str, since: Micros) -> usize {
        let facts = self.locked();
        let recent = facts.writes.iter().rev().take_while(|w| w.ended >= since);
        let acks = recent.filter(|w| facts.nodes[usize::from(w.node)] == node && w.sent >= since);
        acks.filter(|w| matches!(w.outcome, Outcome::Acknowledged(_))).count()
    }

    /// The numbers whose commits were cancelled while they waited for standbys.
    #[must_use]
    pub fn cancelled(&self) -> Vec<i64> {
        self.locked().writes.iter().filter(|w| w.outcome == Outcome::Cancelled).map(|w| w.number).collect()
    }

    /// What a node became since a moment, as the client inside of its namespace saw it, in order.
    #[must_use]
    pub fn seen_since(&self, node: &str, since: Micros) -> Vec<Seen> {
        let facts = self.locked();
        let of_node = facts.seen.iter().filter(|(_, n, _)| facts.nodes[usize::from(*n)] == node);
        of_node.filter(|(at, ..)| *at >= since).map(|(.., seen)| *seen).collect()
    }

    /// Ends it.
    #[must_use]
    pub fn end(&self) -> Facts {
        let now = self.now();
        self.line(&json!({ "end": at(now) }));
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).flush();
        let mut facts = self.locked().clone();
        facts.end = now;
        facts
    }

    fn locked(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, line: &serde_json::Value) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // The verdict rests on what is in memory; the file is for people.
        let _ = writeln!(file, "{line}");
    }
}

/// Seconds, for people.
fn at(moment: Micros) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a run lasts hours, not centuries")]
    let seconds = moment as f64 / 1e6;
    seconds
}
