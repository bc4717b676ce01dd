//! What was decided of a text stays decided: an application runs the same texts again and again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::{Classifier, Decision};

/// A shorter text is classified faster than it is found.
const TEXT_BYTES_MIN: usize = 32;
/// A longer one is not worth its memory.
const TEXT_BYTES_MAX: usize = 2048;
const SHARDS: usize = 16;
/// An application that writes values into its texts would fill any memory: a full part is emptied.
const SHARD_TEXTS_MAX: usize = 64;

/// The decisions on texts that came before, by one classifier. At most 2 MiB of texts.
#[derive(Debug, Default)]
pub(super) struct Memo {
    shards: [Mutex<HashMap<Box<str>, Decision>>; SHARDS],
}

impl Memo {
    /// The classifier's decision.
    pub(super) fn decide(&self, classifier: &Classifier, sql: &str) -> Decision {
        if !(TEXT_BYTES_MIN..=TEXT_BYTES_MAX).contains(&sql.len()) {
            return classifier.classify(sql);
        }
        let shard = &self.shards[shard(sql)];
        if let Some(decision) = shard.lock().unwrap_or_else(PoisonError::into_inner).get(sql) {
            return *decision;
        }
        let decision = classifier.classify(sql);
        let mut known = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SHARD_TEXTS_MAX {
            known.clear();
        }
        known.insert(sql.into(), decision);
        decision
    }
}

/// Spreads texts, so that tasks seldom wait for each other. Texts of one length often differ in their middle.
fn shard(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let sampled = [bytes.len() / 2, bytes.len() - 2].map(|at| usize::from(bytes[at]));
    (bytes.len() + 5 * sampled[0] + 3 * sampled[1]) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reason, Target};

    #[test]
    fn it_decides_as_its_classifier_does_the_first_time_and_later() {
        let classifier = Classifier::new().primary_relation("cache");
        let memo = Memo::default();
        for sql in [
            "select 1",
            "select id, name, balance from accounts where id = $1",
            "select id, name, balance from cache where id = $1 limit 1",
            "insert into accounts select a, 'somebody' from generate_series(1, 9) a",
            &format!("select '{}'", "x".repeat(TEXT_BYTES_MAX)),
        ] {
            for _ in 0..3 {
                assert_eq!(memo.decide(&classifier, sql), classifier.classify(sql), "{sql}");
            }
        }
        let sql = "select id, name, balance from cache where id = $1 limit 1";
        let decision = memo.decide(&classifier, sql);
        assert_eq!((decision.target, decision.reason), (Target::Primary, Reason::ListedRelation));
        assert_eq!(decision.culprit(sql), Some("cache"));
    }

    #[test]
    fn texts_without_end_do_not_fill_the_memory() {
        let (memo, classifier) = (Memo::default(), Classifier::new());
        for id in 0..10_000 {
            let _ = memo.decide(&classifier, &format!("select * from accounts where id = {id:08}"));
        }
        let known = |shard: &Mutex<HashMap<Box<str>, Decision>>| shard.lock().unwrap().len();
        let kept: Vec<_> = memo.shards.iter().map(known).collect();
        assert!(kept.iter().all(|kept| *kept <= SHARD_TEXTS_MAX), "{kept:?}");
        assert!(kept.iter().any(|kept| *kept > 0), "{kept:?}");
    }
}
