//! [`Knowledge`]: what a node knows of the witness document, and what it does not know yet.

use std::time::Duration;

use crate::clock::Moment;
use crate::decide::rules::Rule;
use crate::view::{Right, View};
use crate::witness::{Record, Version};

/// What a node knows of the witness document.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// The newest document known to have been committed.
    pub seen: Option<Seen>,
    /// The witness answered that there is no document.
    pub absent: bool,
    /// Swaps of our own whose outcome is open: any of them may be in the document, or land yet.
    pub attempts: Vec<Attempt>,
    /// A request is under way. There is never more than one.
    pub in_flight: bool,
    /// When the last request was sent.
    pub sent_at: Option<Moment>,
    /// When the last request was answered.
    pub answered_at: Option<Moment>,
    /// Requests that failed since the last answer.
    pub failures: u32,
    /// Why the last request failed.
    pub error: Option<String>,
    /// The version has changed since this agent began: what an earlier life of it sent can land no more.
    pub moved: bool,
    /// The nonce of the swap that was made last on a leader's behalf, and when it was sent.
    pub relayed: Option<(String, Moment)>,
}

/// A version of the document.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The document.
    pub record: Record,
    /// What the store calls it.
    pub version: Version,
    /// When the first answer that showed this version was *received*. Patience is counted from here.
    pub since: Moment,
    /// When the last answer that showed it was received.
    pub read_at: Moment,
}

/// A swap of our own whose outcome is open.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The version that it expects; `None` to create the document.
    pub expected: Option<Version>,
    /// What it would make of the document.
    pub next: Record,
    /// When it was sent. A right that it carries counts from here.
    pub sent_at: Moment,
}

impl Knowledge {
    /// The newest document known.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.seen.as_ref().map(|seen| &seen.record)
    }

    /// The newest version known.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        self.seen.as_ref().map(|seen| &seen.version)
    }

    /// Every document that may be the present one, as far as this node's own swaps go.
    pub fn possible(&self) -> impl Iterator<Item = &Record> {
        self.record().into_iter().chain(self.attempts.iter().map(|a| &a.next))
    }

    /// Whether a swap of our own is still open.
    #[must_use]
    pub fn unsettled(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// How long ago the last request was sent.
    #[must_use]
    pub fn idle(&self, now: Moment) -> Duration {
        self.sent_at.map_or(Duration::MAX, |at| now.since(at))
    }

    /// Whether the witness answered its last request.
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.failures == 0 && self.answered_at.is_some()
    }
}

/// How a request to the witness ended.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made a few times a second, and moved at once")]
pub enum Answer {
    /// A read.
    Read(Result<Option<(Record, Version)>, String>),
    /// A swap that was committed.
    Committed(Version),
    /// A swap that found another version.
    Conflict,
    /// A swap of which nothing is known.
    Ambiguous(String),
}

impl View {
    /// Notes that a read is sent.
    pub fn read_sent(&mut self) {
        self.witness.in_flight = true;
        self.witness.sent_at = Some(self.now);
    }

    /// Notes that a swap is sent. `next` carries its nonce.
    pub fn swap_sent(&mut self, expected: Option<Version>, next: Record) {
        self.witness.in_flight = true;
        self.witness.sent_at = Some(self.now);
        self.witness.attempts.push(Attempt { expected, next, sent_at: self.now });
    }

    /// Notes that a swap of another node's is sent on its behalf. It is no attempt of this node's.
    pub fn relay_sent(&mut self, nonce: &str) {
        self.witness.in_flight = true;
        self.witness.sent_at = Some(self.now);
        self.witness.relayed = Some((nonce.to_owned(), self.now));
    }

    /// Notes how the request under way ended.
    pub fn witness_answered(&mut self, answer: Answer) {
        self.witness.in_flight = false;
        match answer {
            Answer::Read(Ok(Some((record, version)))) => self.saw(record, version),
            Answer::Read(Ok(None)) if self.witness.seen.is_none() => {
                self.witness_works();
                self.witness.absent = true;
            }
            // A document is never deleted: a store that has lost it does not keep it either.
            Answer::Read(Ok(None)) => self.witness_failed("the document that was there is gone".into()),
            Answer::Read(Err(error)) => self.witness_failed(error),
            Answer::Ambiguous(error) => {
                if !self.policy.rules.hold(Rule::Settle) {
                    // A test wants to see what happens where it is taken for lost.
                    self.witness.attempts.pop();
                }
                self.witness_failed(error);
            }
            // Only the last attempt can have been answered: requests go one by one. A peer may have told of its
            // outcome before; then none is left.
            Answer::Committed(version) => match self.witness.attempts.last() {
                Some(attempt) => self.saw(attempt.next.clone(), version),
                None => self.witness_works(),
            },
            // The document is at another version than expected. That may be an earlier attempt of our own,
            // so all stay open until a read shows whose; or that there is none any more.
            Answer::Conflict => self.witness.answered_at = Some(self.now),
        }
    }

    fn witness_failed(&mut self, error: String) {
        self.witness.failures += 1;
        self.witness.error = Some(error);
    }

    fn witness_works(&mut self) {
        self.witness.answered_at = Some(self.now);
        self.witness.failures = 0;
        self.witness.error = None;
    }

    /// Takes in what the witness shows.
    fn saw(&mut self, record: Record, version: Version) {
        if let Some(seen) = self.witness.seen.as_ref().filter(|seen| record.heartbeat < seen.record.heartbeat) {
            if self.witness.sent_at.is_some_and(|sent_at| sent_at < seen.since) {
                // A peer told of a newer one while this answer was under way.
                self.witness_works();
                return;
            }
            // A store that goes back in time, as after a restore from a copy, must not be believed.
            let older = format!("the witness showed an older document than before. heartbeat={}", record.heartbeat);
            self.witness_failed(older);
            return;
        }
        self.witness_works();
        self.witness.absent = false;
        self.learned(record, version);
    }

    /// Settles attempts by a committed document, and takes the right that it may carry.
    pub(super) fn settled_by(&mut self, record: &Record, version: &Version) {
        if let Some(won) = self.witness.attempts.iter().find(|a| a.next.nonce == record.nonce)
            && record.leader.as_ref() == Some(&self.me)
        {
            let margin = self.policy.margin;
            let until = (won.sent_at + record.ttl) - margin;
            let until = match self.right {
                Some(right) if right.term == record.term => right.until.max(until),
                _ => until,
            };
            self.right = Some(Right { term: record.term, sent_at: won.sent_at, until });
        }
        // An attempt that expects the version that stands may land yet; any other never can.
        self.witness.attempts.retain(|a| a.expected.as_ref() == Some(version));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::NodeName;
    use crate::decide::decide;
    use crate::scaffold::Scaffold;
    use crate::settings::{Files, parse};
    use crate::witness::probe::scratch_record;

    /// A node that has read a document with this heartbeat.
    fn view(heartbeat: u64) -> View {
        let node = NodeName::new("n1").unwrap();
        let text = Scaffold::new("shop", [(node.clone(), "127.0.0.1".to_owned())]).cluster_toml();
        let settings = parse(&text, Path::new("/nowhere"), Files::Ignored).unwrap();
        let mut view = View::new(node, crate::agent::policy(&settings, false));
        view.read_sent();
        view.witness_answered(read(heartbeat));
        assert_eq!(view.witness.failures, 0);
        view
    }

    fn read(heartbeat: u64) -> Answer {
        Answer::Read(Ok(Some((scratch_record(heartbeat), Version(heartbeat.to_string())))))
    }

    fn problems_after(view: &mut View, answer: impl Fn() -> Answer) -> String {
        for _ in 0..3 {
            view.read_sent();
            view.witness_answered(answer());
        }
        decide(view).problems.join("\n")
    }

    #[test]
    fn a_witness_that_lost_its_document_is_a_problem() {
        let mut view = view(7);
        let said = problems_after(&mut view, || Answer::Read(Ok(None)));
        assert!(said.contains("the document that was there is gone"), "{said}");
        assert!(!view.witness.absent, "nobody may found another cluster");
        assert_eq!(view.witness.record().map(|r| r.heartbeat), Some(7));
    }

    #[test]
    fn an_older_document_is_a_problem_until_a_newer_one_is_seen() {
        let mut view = view(7);
        let said = problems_after(&mut view, || read(6));
        assert!(said.contains("showed an older document"), "{said}");
        view.read_sent();
        view.witness_answered(read(8));
        assert!(decide(&view).problems.is_empty());
    }

    #[test]
    fn an_outage_is_told_also_while_the_next_request_is_not_due() {
        let mut view = view(7);
        let said = problems_after(&mut view, || Answer::Read(Err("no answer".into())));
        assert!(said.contains("the witness does not answer: no answer"), "{said}");
        view.read_sent();
        assert_eq!(decide(&view).problems.join("\n"), said);
    }
}
