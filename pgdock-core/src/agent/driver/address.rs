//! The lane that moves the failover IP, beside everything else, and takes it off a node that lost its right.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::failure::in_full;
use super::{Driver, Input};
use crate::clock::Moment;
use crate::decide::Action;
use crate::event::EventKind;
use crate::failover_ip::{Holder, Target};
use crate::{Error, Result, Term};

/// The first pause between two tries; each later one is twice as long, up to what the keeper likes.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// How long an agent that ends tries to take the address off its node.
const LEAVE_BUDGET: Duration = Duration::from_secs(3);

/// What is being done about the failover IP.
#[derive(Debug, Default)]
pub(super) struct AddressLane {
    /// An assignment, a look or a release. It never outlives the right that it was begun with.
    job: Option<JoinHandle<()>>,
    failures: u32,
    /// Why the failover IP is not where it should be, until it is.
    pub(super) problem: Option<String>,
    looked: Option<Moment>,
    releasing: bool,
    /// This node was seen not to hold it, since it last had the right.
    released: bool,
    release_at: Moment,
}

impl AddressLane {
    fn drop_job(&mut self) {
        if let Some(job) = self.job.take() {
            job.abort();
        }
    }

    fn is_idle(&self) -> bool {
        self.job.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How long to wait after one more failure.
    fn pause(&mut self, error: &Error, most: Duration) -> Duration {
        self.failures += 1;
        let pause = RETRY_FIRST.saturating_mul(2u32.saturating_pow(self.failures.min(16))).min(most);
        pause.max(error.retry_after().unwrap_or_default())
    }
}

impl Driver {
    pub(super) fn move_address(&mut self, action: Action) {
        let (Action::AssignAddress { term }, Some(ip)) = (action, &self.parts.failover_ip) else { return };
        // Until it is done, no other try.
        self.view.address_busy = Some(Moment(Duration::MAX));
        let (ip, inputs, target) = (Arc::clone(ip), self.inputs.clone(), self.target(term));
        // A look is of no interest any more.
        self.address.drop_job();
        self.address.job = Some(tokio::spawn(async move {
            let result = ip.assign(&target).await;
            let _ = inputs.send(Input::Address { term, result });
        }));
    }

    /// This node, as a target of the failover IP.
    pub(super) fn target(&self, term: Term) -> Target {
        let settings = &self.parts.hands.settings;
        let address = settings.nodes.get(&self.view.me).map(|n| n.address.clone()).unwrap_or_default();
        Target { cluster: self.view.policy.cluster.clone(), node: self.view.me.clone(), address, term }
    }

    pub(super) fn address_moved(&mut self, term: Term, result: &Result<()>) {
        let Some(ip) = self.parts.failover_ip.as_ref().filter(|_| self.view.has_right()) else {
            // It ended at the very moment at which the right did: what it left is seen to now.
            self.address.released = false;
            return;
        };
        match result {
            Ok(()) => {
                self.view.address_for = Some(term);
                self.view.address_busy = None;
                self.address.failures = 0;
                self.address.problem = None;
                self.address.looked = Some(self.view.now);
                let text = format!("the failover IP points to {}", self.view.me);
                self.parts.events.record(EventKind::AddressMoved, Some(term), text, json!({}));
            }
            Err(error) => {
                let pause = self.address.pause(error, ip.pace().retry_every);
                self.view.address_busy = Some(self.view.now + pause);
                tracing::warn!(error = %error.chain(), ?pause, "the failover IP was not moved; it is tried again");
                self.address.problem = Some(format!("the failover IP was not moved: {}", in_full(error)));
            }
        }
    }

    /// What a look showed.
    pub(super) fn address_seen(&mut self, term: Term, holder: Option<Holder>) {
        if self.view.address_for != Some(term) || holder.as_ref().is_some_and(|h| h.is(&self.target(term))) {
            return;
        }
        self.view.address_for = None;
        let holder = holder.map_or_else(|| "nobody".to_owned(), |holder| holder.to_string());
        self.address.problem = Some(format!("the failover IP was seen to point to {holder}"));
    }

    pub(super) fn address_released(&mut self, result: &Result<()>) {
        self.address.releasing = false;
        match result {
            Ok(()) => {
                self.address.released = true;
                self.address.failures = 0;
                self.address.problem = None;
                self.view.address_busy = None;
            }
            Err(error) => {
                let pause = self.address.pause(error, Duration::from_secs(5));
                self.address.release_at = self.view.now + pause;
                // Whoever has the right again meanwhile needs not give it up first.
                self.view.address_busy = None;
                tracing::warn!(error = %error.chain(), ?pause, "the failover IP may still be on this node");
                self.address.problem = Some(format!("the failover IP may still be on this node: {}", in_full(error)));
            }
        }
    }

    /// With the right to be primary: looks now and then whether the failover IP still points here. Without:
    /// drops what was begun with it, and takes the address off this node.
    pub(super) fn look_after_address(&mut self) {
        let Some(ip) = &self.parts.failover_ip else { return };
        let now = self.view.now;
        if self.view.has_right() {
            if !self.address.releasing {
                self.address.released = false;
            }
            let Some(term) = self.view.address_for else { return };
            let due = self.address.looked.is_none_or(|at| now.since(at) >= ip.pace().look_every);
            if !due || self.view.address_busy.is_some() || !self.address.is_idle() {
                return;
            }
            self.address.looked = Some(now);
            let (ip, inputs) = (Arc::clone(ip), self.inputs.clone());
            self.address.job = Some(tokio::spawn(async move {
                if let Ok(holder) = ip.current().await {
                    let _ = inputs.send(Input::AddressSeen { term, holder });
                }
            }));
            return;
        }
        // An agent that was started beside a primary learns from the document whether that still leads. Until
        // then the deadman watches over both.
        let undecided = self.view.right.is_some_and(|right| now < right.until) && self.view.witness.record().is_none();
        if self.address.releasing || self.address.released || undecided || now < self.address.release_at {
            return;
        }
        self.address.drop_job();
        self.view.address_for = None;
        // Whoever gets the right back waits with a new assignment until this is done.
        self.view.address_busy = Some(Moment(Duration::MAX));
        self.address.releasing = true;
        let (ip, inputs) = (Arc::clone(ip), self.inputs.clone());
        self.address.job = Some(tokio::spawn(async move {
            let _ = inputs.send(Input::AddressReleased(ip.release().await));
        }));
    }

    /// The agent ends: nothing of it may hold the address any more.
    pub(super) async fn leave_address(&mut self) {
        self.address.drop_job();
        let Some(ip) = &self.parts.failover_ip else { return };
        match tokio::time::timeout(LEAVE_BUDGET, ip.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.chain(), "the failover IP may still be on this node"),
            Err(_) => tracing::warn!("the failover IP may still be on this node: it took too long to take it off"),
        }
    }
}
