//! The proof that the store of the witness keeps its word: before a cluster is founded, soon after the agent
//! has started, and from time to time. It runs beside the loop, on a document of its own.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Driver, Input};
use crate::clock::Moment;
use crate::event::EventKind;
use crate::settings::WitnessSettings;
use crate::view::{Order, Trust};
use crate::witness::{ProbeReport, open_scratch};
use crate::{Error, ErrorKind, Result};

/// How long one proof may take. A store that allows one write a second needs most of it.
const BUDGET: Duration = Duration::from_secs(120);
/// An agent that starts has better to do at first.
const FIRST_AFTER: Duration = Duration::from_secs(10);
/// One that could not be done, because the store did not answer, is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is needed to prove the store.
#[derive(Debug)]
pub(crate) struct Proof {
    settings: WitnessSettings,
    cluster: String,
}

impl Proof {
    pub(crate) fn new(settings: WitnessSettings, cluster: String) -> Self {
        Self { settings, cluster }
    }
}

/// When the next proof is due.
#[derive(Debug, Default)]
pub(super) struct Prover {
    running: bool,
    due: Option<Moment>,
}

impl Driver {
    /// Begins a proof, if it is time.
    pub(super) fn prove(&mut self) {
        let Some(proof) = &self.parts.proof else { return };
        let now = self.parts.clock.now();
        let due = *self.prover.due.get_or_insert(now + FIRST_AFTER);
        // Whoever founds a cluster waits for it.
        let awaited = matches!(self.view.order, Some(Order::Bootstrap | Order::Adopt { .. }))
            && self.view.trust == Trust::Untried;
        if self.prover.running || !(awaited || now >= due) {
            return;
        }
        self.prover.running = true;
        let (settings, cluster) = (proof.settings.clone(), proof.cluster.clone());
        let (clock, inputs) = (Arc::clone(&self.parts.clock), self.inputs.clone());
        tokio::spawn(async move {
            let proving = async { Ok(open_scratch(&settings, &cluster).await?.probe(clock.as_ref()).await) };
            let late = || Error::unavailable(format!("the proof of the witness was not done within {BUDGET:?}"));
            let report = tokio::time::timeout(BUDGET, proving).await.unwrap_or_else(|_| Err(late()));
            let _ = inputs.send(Input::Proved(report));
        });
    }

    pub(super) fn proved(&mut self, result: Result<ProbeReport>) {
        self.prover.running = false;
        let every = self.parts.proof.as_ref().map_or(AGAIN_AFTER, |proof| proof.settings.probe_every);
        if let Some(why) = result.as_ref().ok().and_then(|report| report.left_behind.as_ref()) {
            tracing::info!(why, "the document of a proof was left behind");
        }
        let before = matches!(self.view.trust, Trust::Proven | Trust::Unknown { before: true, .. });
        let trust = match result.and_then(ProbeReport::into_result) {
            Ok(()) => Trust::Proven,
            Err(error) if error.kind() == ErrorKind::NeedsOperator => Trust::Broken(error.chain()),
            // What was seen broken is not mended by silence.
            Err(_) if self.view.trust.is_broken() => self.view.trust.clone(),
            Err(error) => Trust::Unknown { why: error.chain(), before },
        };
        let unknown = matches!(trust, Trust::Unknown { .. });
        self.prover.due = Some(self.view.now + if unknown { AGAIN_AFTER.min(every) } else { every });
        if let Trust::Broken(how) = &trust
            && !self.view.trust.is_broken()
        {
            tracing::error!("{how}");
            let term = self.view.witness.record().map(|r| r.term);
            self.parts.events.record(EventKind::WitnessBroken, term, how.clone(), json!({}));
        }
        self.view.trust = trust;
    }
}
