//! [`Faults`]: what the server does wrong, and [`Switch`], which changes it while the server runs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// What the server does wrong. [`Faults::default`] is an honest server that answers at once.
///
/// Probabilities are between 0 and 1. As JSON, for [`control`](crate::control), every field may be left out:
/// `{"latency_ms": 300, "slow_down": 0.5, "scope": "writes"}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Whether it can be reached at all.
    pub outage: Outage,
    /// How long each request waits before it is looked at, in milliseconds.
    pub latency_ms: u64,
    /// A further wait of up to this many milliseconds, drawn for each request.
    pub jitter_ms: u64,
    /// Which requests the following faults befall.
    pub scope: Scope,
    /// How probable an answer `503 SlowDown` is; nothing is done.
    pub slow_down: f64,
    /// How probable an answer `429 Too Many Requests` is; nothing is done.
    pub too_many: f64,
    /// How probable an answer `500 InternalError` is, with nothing done.
    pub lost_requests: f64,
    /// How probable it is that a request is carried out and its answer is lost.
    pub lost_answers: f64,
    /// What is seen of a lost answer.
    pub lost_answer_is: Answers,
    /// How probable it is that a conditional create is answered `409 ConditionalRequestConflict`; nothing
    /// is done.
    pub create_conflicts: f64,
    /// How probable it is that the body of an answer to a read breaks off half way.
    pub cut_bodies: f64,
    /// How probable it is that a bit is flipped in the body of an answer to a read.
    pub flipped_bits: f64,
    /// What becomes of conditions of writes.
    pub conditions: Conditions,
}

/// Whether a server can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// It can.
    #[default]
    None,
    /// Connections are closed as soon as they are made, and those that there were are cut.
    Cut,
    /// Connections are taken, and nothing is ever answered.
    Silent,
}

/// Which requests faults befall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// GET and HEAD.
    Reads,
    /// The others.
    Writes,
}

/// What is seen of a lost answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// `500 InternalError`.
    #[default]
    Error,
    /// The connection is cut.
    Cut,
    /// Nothing, for ever.
    Silent,
}

/// What becomes of `If-Match` and `If-None-Match` of writes. All but the first were seen in real products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conditions {
    /// They hold, atomically.
    #[default]
    Honoured,
    /// They are accepted, and nobody looks at them.
    Ignored,
    /// `501 NotImplemented`.
    Unsupported,
    /// They are looked at first, and the write follows afterwards: two racers both pass.
    CheckedThenSet,
}

/// How many requests came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// GET and HEAD.
    pub reads: u64,
    /// All others.
    pub writes: u64,
}

/// The present faults, shared by the server and whoever changes them.
#[derive(Debug)]
pub struct Switch {
    state: Mutex<State>,
    outage: tokio::sync::watch::Sender<Outage>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    counts: Counts,
    dice: StdRng,
}

/// What one request meets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) wait_ms: u64,
    pub(crate) answer: Option<Instead>,
    pub(crate) lost: Option<Answers>,
    pub(crate) spoil: Spoil,
}

/// What becomes of a body: where in it something happens, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spoil {
    pub(crate) cut: Option<f64>,
    pub(crate) flip: Option<f64>,
}

/// What is answered instead of doing anything.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Instead {
    SlowDown,
    TooMany,
    Failed,
}

impl Spoil {
    pub(crate) fn is_any(self) -> bool {
        self.cut.is_some() || self.flip.is_some()
    }
}

impl Switch {
    /// No faults; `seed` decides where they will strike.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { faults: Faults::default(), counts: Counts::default(), dice: StdRng::seed_from_u64(seed) };
        Self { state: Mutex::new(state), outage: tokio::sync::watch::Sender::new(Outage::None) }
    }

    /// Replaces all faults. Requests that are under way meet those that there were when they came.
    pub fn set(&self, faults: Faults) {
        self.outage.send_replace(faults.outage);
        self.state().faults = faults;
    }

    /// Changes some of them.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.get();
        change(&mut faults);
        self.set(faults);
    }

    /// The present ones.
    #[must_use]
    pub fn get(&self) -> Faults {
        self.state().faults.clone()
    }

    /// How many requests came since the start, those that met a fault among them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    pub(crate) fn outage(&self) -> tokio::sync::watch::Receiver<Outage> {
        self.outage.subscribe()
    }

    /// Counts a request, and draws what it meets.
    pub(crate) fn fate(&self, is_read: bool) -> Fate {
        let State { faults, counts, dice } = &mut *self.state();
        *(if is_read { &mut counts.reads } else { &mut counts.writes }) += 1;
        let mut fate = Fate { wait_ms: faults.latency_ms + dice.random_range(0..=faults.jitter_ms), ..Fate::default() };
        if matches!((faults.scope, is_read), (Scope::Reads, false) | (Scope::Writes, true)) {
            return fate;
        }
        let mut strikes = |probability: f64| dice.random_bool(probability.clamp(0.0, 1.0));
        if strikes(faults.slow_down) {
            fate.answer = Some(Instead::SlowDown);
        } else if strikes(faults.too_many) {
            fate.answer = Some(Instead::TooMany);
        } else if strikes(faults.lost_requests) {
            fate.answer = Some(Instead::Failed);
        } else if strikes(faults.lost_answers) {
            fate.lost = Some(faults.lost_answer_is);
        }
        if is_read {
            let (cut, flip) = (strikes(faults.cut_bodies), strikes(faults.flipped_bits));
            fate.spoil = Spoil { cut: cut.then(|| dice.random()), flip: flip.then(|| dice.random()) };
        }
        fate
    }

    pub(crate) fn create_conflicts(&self) -> bool {
        let State { faults, dice, .. } = &mut *self.state();
        dice.random_bool(faults.create_conflicts.clamp(0.0, 1.0))
    }

    pub(crate) fn conditions(&self) -> Conditions {
        self.state().faults.conditions
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
