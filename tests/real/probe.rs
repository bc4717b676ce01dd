//! [`Probe`]: a client that tries to write to one node alone, to see when that node acknowledges.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgdock_core::NodeName;
use tokio::task::JoinHandle;

use super::writer::{Ack, Route};

/// A write that one node acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Probed {
    /// When it was sent.
    pub sent: Instant,
    /// The acknowledgement.
    pub ack: Ack,
}

/// A client that tries to write to one node alone.
#[derive(Debug)]
pub struct Probe {
    found: Arc<Mutex<Vec<Probed>>>,
    stop: Arc<AtomicBool>,
    job: JoinHandle<()>,
}

impl Probe {
    /// Begins, with numbers from `first`. The table must exist.
    #[must_use]
    pub fn start(route: Route, first: i64) -> Self {
        let found = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let job = tokio::spawn(probe(route, first, Arc::clone(&found), Arc::clone(&stop)));
        Self { found, stop, job }
    }

    /// Stops, and tells what was acknowledged.
    pub async fn stop(self) -> Vec<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.job.await;
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn probe(route: Route, first: i64, found: Arc<Mutex<Vec<Probed>>>, stop: Arc<AtomicBool>) {
    let mut number = first;
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if client.is_none() {
            client = route.connect().await.ok();
        }
        let Some(connected) = &client else { continue };
        number += 1;
        let sent = Instant::now();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&number];
        let insert = connected.execute("INSERT INTO acknowledged VALUES ($1)", &params);
        match tokio::time::timeout(Duration::from_secs(1), insert).await {
            Ok(Ok(_)) => {
                let ack = Ack { number, at: Instant::now() };
                found.lock().unwrap_or_else(PoisonError::into_inner).push(Probed { sent, ack });
            }
            // A standby refuses, and the connection is as good as before.
            Ok(Err(error)) if error.as_db_error().is_some() && !connected.is_closed() => {}
            _ => client = None,
        }
    }
}

/// The pairs of nodes that acknowledged writes at the same time: while one of them was between sending
/// and acknowledgement on the first, another was on the second; or the first acknowledged one before and
/// one after it within half a second, in which no node can have lost and won the lead again.
#[must_use]
pub fn overlaps(reigns: &[(NodeName, Vec<Probed>)]) -> Vec<(NodeName, NodeName, Duration)> {
    let begin = reigns.iter().flat_map(|(_, found)| found.iter().map(|p| p.sent)).min();
    let Some(begin) = begin else { return Vec::new() };
    let mut all: Vec<(&NodeName, &Probed)> =
        reigns.iter().flat_map(|(node, found)| found.iter().map(move |p| (node, p))).collect();
    all.sort_by_key(|(_, p)| p.ack.at);
    let mut pairs = Vec::new();
    for (i, (node, p)) in all.iter().enumerate() {
        let before = all[..i].iter().rev().take_while(|(_, q)| p.ack.at - q.ack.at < Duration::from_millis(500));
        let mut other = None;
        for (earlier, q) in before {
            if earlier != node {
                if q.ack.at > p.sent {
                    pairs.push(((*earlier).clone(), (*node).clone(), p.ack.at - begin));
                }
                other = Some(*earlier);
            } else if let Some(between) = other {
                pairs.push(((*between).clone(), (*node).clone(), p.ack.at - begin));
                break;
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, sent: u64, acked: u64) -> Probed {
        let ack = Ack { number: 0, at: begin + Duration::from_millis(acked) };
        Probed { sent: begin + Duration::from_millis(sent), ack }
    }

    #[test]
    fn only_reigns_that_meet_overlap() {
        let (n1, n2) = (NodeName::new("n1").unwrap(), NodeName::new("n2").unwrap());
        let begin = Instant::now();
        let apart =
            [(n1.clone(), vec![at(begin, 0, 5), at(begin, 2000, 2005)]), (n2.clone(), vec![at(begin, 1000, 1005)])];
        assert!(overlaps(&apart).is_empty());
        let crossing = [(n1.clone(), vec![at(begin, 0, 50)]), (n2.clone(), vec![at(begin, 10, 60)])];
        assert_eq!(overlaps(&crossing).len(), 1);
        let between = [(n1, vec![at(begin, 0, 5), at(begin, 40, 45)]), (n2, vec![at(begin, 20, 25)])];
        assert_eq!(overlaps(&between).len(), 1);
    }
}
