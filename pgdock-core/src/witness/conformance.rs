//! What every [`Witness`] must do. Run it on yours:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use pgdock_core::witness::{MemoryWitness, Witness, conformance};
//! # async fn test() {
//! // Each call gives a new document, here with a single handle to it. Give several where your
//! // implementation can be opened more than once.
//! conformance::run(async || vec![Arc::new(MemoryWitness::new()) as Arc<dyn Witness>]).await;
//! # }
//! ```
//!
//! Every function panics with what it saw. Answers may get lost: the suite settles them by reading, as the
//! contract says, so that it also runs on a store behind a bad network.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::probe::scratch_record;
use super::{Record, Swap, Version, Witness, fresh_nonce};
use crate::NodeName;

/// Handles to one document.
pub type Handles = Vec<Arc<dyn Witness>>;

/// After this many lost answers in a row a store counts as dead.
const TRIES: usize = 2_000;
const RACERS: usize = 8;

/// The whole suite. Each call of `fresh` gives handles, at least one, to a document that does not exist yet.
pub async fn run(fresh: impl AsyncFn() -> Handles) {
    starts_without_a_document(&fresh().await).await;
    creates_once(&fresh().await).await;
    refuses_stale_versions(&fresh().await).await;
    reads_what_was_committed(&fresh().await).await;
    keeps_every_field(&fresh().await).await;
    one_racer_creates(&fresh().await).await;
    one_racer_replaces(&fresh().await).await;
    never_repeats_a_version(&fresh().await).await;
    survives_cancelled_calls(&fresh().await).await;
    concurrent_writers_lose_nothing(&fresh().await, 8, 5).await;
    concurrent_writers_lose_nothing(&fresh().await, 64, 1).await;
}

/// Before it is created there is no document, and no version of it to replace.
pub async fn starts_without_a_document(handles: &Handles) {
    for witness in handles {
        assert!(read(witness).await.is_none(), "{witness}: a new document exists before it was created");
        assert!(!witness.kind().is_empty() && !witness.to_string().is_empty(), "a witness must have a name");
    }
    let nowhere = Version("no such version".to_owned());
    let swapped = settle(&handles[0], &scratch_record(1), Some(&nowhere)).await;
    assert!(swapped.is_none(), "{}: a document that does not exist was replaced", handles[0]);
    assert!(read(&handles[0]).await.is_none(), "{}: a refused swap made a document", handles[0]);
}

/// A document is created once.
pub async fn creates_once(handles: &Handles) {
    let first = scratch_record(0);
    let version = create(handles, &first).await;
    for witness in handles {
        let again = settle(witness, &scratch_record(0), None).await;
        assert!(again.is_none(), "{witness}: the document was created twice");
        let (record, read) = read(witness).await.expect("the document exists");
        assert_eq!(record.system_identifier, first.system_identifier);
        assert_eq!(read, version, "{witness}: a refused creation changed the document");
    }
}

/// Only the present version can be replaced.
pub async fn refuses_stale_versions(handles: &Handles) {
    let mut stale = vec![create(handles, &scratch_record(0)).await];
    for heartbeat in 1..6 {
        let present = stale.last().expect("one was created").clone();
        let writer = &handles[heartbeat as usize % handles.len()];
        let next = settle(writer, &scratch_record(heartbeat), Some(&present)).await;
        let next = next.unwrap_or_else(|| panic!("{writer}: the present version was refused"));
        for old in &stale {
            for witness in handles {
                let swapped = settle(witness, &scratch_record(99), Some(old)).await;
                assert!(swapped.is_none(), "{witness}: a stale version was replaced. stale={old}, present={next}");
                assert_eq!(read(witness).await.expect("it exists").1, next, "{witness}: a refused swap changed it");
            }
        }
        stale.push(next);
    }
}

/// A read that begins after a commit was answered shows it, through every handle.
pub async fn reads_what_was_committed(handles: &Handles) {
    let mut present = create(handles, &scratch_record(0)).await;
    for heartbeat in 1..20 {
        let writer = &handles[heartbeat as usize % handles.len()];
        let next = scratch_record(heartbeat);
        present = settle(writer, &next, Some(&present)).await.unwrap_or_else(|| panic!("{writer}: refused"));
        for witness in handles {
            let (record, version) = read(witness).await.expect("it exists");
            assert_eq!(record.heartbeat, heartbeat, "{witness}: an older document was read");
            assert_eq!(version, present, "{witness}: a read and a commit name one document differently");
        }
    }
}

/// What is read is what was written, to the last field.
pub async fn keeps_every_field(handles: &Handles) {
    let mut record = scratch_record(u64::MAX);
    record.system_identifier = u64::MAX;
    record.leader = Some(name(1));
    record.members = (0..16).map(|i| (name(i), format!("[2001:db8::{i}]:5432"))).collect();
    record.cluster = "näme \"with\" \\ odd\u{1F418}\ncharacters".to_owned();
    record.sync_set = (0..3).map(|i| format!("n{i}:0000000{i}").parse().expect("a member")).collect();
    record.acks = 2;
    record.handoff_to = Some(name(2));
    record.bundle = (0..16).map(|i| (name(i), "sha256:".to_owned() + &"a1".repeat(2_000))).collect();
    create(handles, &record).await;
    for witness in handles {
        let (mut read, _) = read(witness).await.expect("it exists");
        read.nonce.clone_from(&record.nonce);
        assert_eq!(read, record, "{witness}: the document was changed on its way");
    }
}

/// Of many who create at once, one does.
pub async fn one_racer_creates(handles: &Handles) {
    race(handles, None, 0).await;
}

/// Of many who replace the same version at once, one does.
pub async fn one_racer_replaces(handles: &Handles) {
    let mut present = create(handles, &scratch_record(0)).await;
    for round in 1..6 {
        present = race(handles, Some(&present), round).await;
    }
}

/// No version comes back, also where the documents are the same but for the nonce.
pub async fn never_repeats_a_version(handles: &Handles) {
    let mut present = create(handles, &scratch_record(0)).await;
    let mut seen = BTreeSet::from([present.clone()]);
    for turn in 0..20 {
        let writer = &handles[turn % handles.len()];
        present =
            settle(writer, &scratch_record(0), Some(&present)).await.unwrap_or_else(|| panic!("{writer}: refused"));
        assert!(seen.insert(present.clone()), "{writer}: a version came back. version={present}");
    }
}

/// A call that its caller gave up leaves the old document or the new one, and the next caller goes on.
pub async fn survives_cancelled_calls(handles: &Handles) {
    create(handles, &scratch_record(0)).await;
    for heartbeat in 1..20 {
        let writer = &handles[heartbeat as usize % handles.len()];
        let (before, version) = read(writer).await.expect("it exists");
        let given_up = scratch_record(heartbeat);
        // Polled once, so that it is under way, then dropped.
        let _ = writer.compare_and_swap(&given_up, Some(&version)).now_or_never();
        let _ = writer.read().now_or_never();
        let (record, _) = read(writer).await.expect("a cancelled call lost the document");
        assert!(
            record.nonce == before.nonce || record.nonce == given_up.nonce,
            "{writer}: a cancelled call left a document that nobody wrote"
        );
        // It may land still. Whoever replaces the document settles that.
        let mut settled = false;
        for _ in 0..TRIES {
            let (record, version) = read(writer).await.expect("it exists");
            if settle(writer, &record.successor(), Some(&version)).await.is_some() {
                settled = true;
                break;
            }
        }
        assert!(settled, "{writer}: after a cancelled call nobody can write");
        let (record, _) = read(writer).await.expect("it exists");
        assert_ne!(
            record.nonce, given_up.nonce,
            "{writer}: a cancelled swap landed on a version that it did not expect"
        );
    }
}

/// Writers that add to the same document at once count exactly what they added: none is lost, none is
/// counted twice, whatever answers got lost.
pub async fn concurrent_writers_lose_nothing(handles: &Handles, writers: usize, additions: u64) {
    create(handles, &scratch_record(0)).await;
    let running = (0..writers).map(|i| {
        let witness = Arc::clone(&handles[i % handles.len()]);
        tokio::spawn(async move {
            for _ in 0..additions {
                add_one(&witness, &name(i)).await;
            }
        })
    });
    for ended in join_all(running).await {
        ended.expect("a writer failed");
    }
    let (record, _) = read(&handles[0]).await.expect("it exists");
    for i in 0..writers {
        let counted = count_of(&record, &name(i));
        assert_eq!(counted, additions, "{}: writer {i} made {additions} additions, {counted} were kept", handles[0]);
    }
}

/// Adds one to a writer's own count, exactly once.
///
/// After an ambiguous answer the writer reads until the version has moved, moving it itself where nobody
/// else does. Only then does it know: its nonce, kept beside its count, is there, or can never come.
async fn add_one(witness: &Arc<dyn Witness>, who: &NodeName) {
    for _ in 0..TRIES {
        let (present, version) = read(witness).await.expect("it exists");
        let mut next = present.successor();
        next.nonce = fresh_nonce();
        next.members.insert(who.clone(), (count_of(&present, who) + 1).to_string());
        next.bundle.insert(who.clone(), next.nonce.clone());
        match witness.compare_and_swap(&next, Some(&version)).await {
            Swap::Committed(_) => return,
            Swap::Conflict => continue,
            Swap::Ambiguous(_) => {}
        }
        let moved = moved_from(witness, &version).await;
        if moved.bundle.get(who) == Some(&next.nonce) {
            return;
        }
    }
    panic!("{witness}: a writer never came through");
}

/// Waits until a version is no longer the present one, and pushes.
async fn moved_from(witness: &Arc<dyn Witness>, version: &Version) -> Record {
    for _ in 0..TRIES {
        let (present, now) = read(witness).await.expect("it exists");
        if now != *version {
            return present;
        }
        let mut push = present.successor();
        push.nonce = fresh_nonce();
        let _ = witness.compare_and_swap(&push, Some(version)).await;
    }
    panic!("{witness}: the document never moved");
}

async fn race(handles: &Handles, expected: Option<&Version>, heartbeat: u64) -> Version {
    let racers = (0..RACERS).map(|i| {
        let (witness, expected) = (Arc::clone(&handles[i % handles.len()]), expected.cloned());
        tokio::spawn(async move { settle(&witness, &scratch_record(heartbeat), expected.as_ref()).await })
    });
    let won: Vec<_> = join_all(racers).await.into_iter().filter_map(|r| r.expect("a racer failed")).collect();
    assert_eq!(won.len(), 1, "{}: {} of {RACERS} racers won, not one", handles[0], won.len());
    for witness in handles {
        assert_eq!(read(witness).await.expect("it exists").1, won[0], "{witness}: it is not the winner's document");
    }
    won[0].clone()
}

async fn create(handles: &Handles, record: &Record) -> Version {
    let version = settle(&handles[0], record, None).await;
    version.unwrap_or_else(|| panic!("{}: the document could not be created", handles[0]))
}

/// Reads; lost answers are asked for again.
async fn read(witness: &Arc<dyn Witness>) -> Option<(Record, Version)> {
    let mut last = None;
    for _ in 0..TRIES {
        match witness.read().await {
            Ok(document) => return document,
            Err(error) if error.kind() == crate::ErrorKind::Unavailable => last = Some(error),
            Err(error) => panic!("{witness}: cannot be read: {}", error.chain()),
        }
    }
    panic!("{witness}: does not answer: {}", last.map(|e| e.chain()).unwrap_or_default());
}

/// Swaps until it is known how that ended: the new version, or nothing if another one holds.
///
/// Each try carries a nonce of its own. All of them expect one version, so that at most one can land.
async fn settle(witness: &Arc<dyn Witness>, next: &Record, expected: Option<&Version>) -> Option<Version> {
    let mut nonces = BTreeSet::new();
    for _ in 0..TRIES {
        let next = Record { nonce: fresh_nonce(), ..next.clone() };
        nonces.insert(next.nonce.clone());
        match witness.compare_and_swap(&next, expected).await {
            Swap::Committed(version) => return Some(version),
            Swap::Conflict if nonces.len() == 1 => return None,
            Swap::Conflict | Swap::Ambiguous(_) => {}
        }
        let present = read(witness).await;
        match &present {
            Some((record, version)) if nonces.contains(&record.nonce) => return Some(version.clone()),
            _ if present.as_ref().map(|(_, version)| version) != expected => return None,
            _ => {}
        }
    }
    panic!("{witness}: a swap stayed ambiguous for {TRIES} tries");
}

fn count_of(record: &Record, who: &NodeName) -> u64 {
    record.members.get(who).and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn name(i: usize) -> NodeName {
    NodeName::new(format!("w{i}")).expect("a valid name")
}
