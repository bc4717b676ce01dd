//! The lane that moves the failover IP, beside everything else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::failure::in_full;
use super::{Driver, Input};
use crate::clock::Moment;
use crate::decide::Action;
use crate::event::EventKind;
use crate::failover_ip::Target;
use crate::{Result, Term};

/// How often the leader looks where the failover IP points.
const ADDRESS_CHECK: Duration = Duration::from_secs(30);

impl Driver {
    pub(super) fn move_address(&mut self, action: Action) {
        let (Action::AssignAddress { term }, Some(ip)) = (action, &self.parts.failover_ip) else { return };
        // Until it is done, no other try.
        self.view.address_busy = Some(Moment(Duration::MAX));
        let (ip, inputs, target) = (Arc::clone(ip), self.inputs.clone(), self.target(term));
        tokio::spawn(async move {
            let result = ip.assign(&target).await;
            let _ = inputs.send(Input::Address { term, result });
        });
    }

    /// This node, as a target of the failover IP.
    pub(super) fn target(&self, term: Term) -> Target {
        let settings = &self.parts.hands.settings;
        let address = settings.nodes.get(&self.view.me).map(|n| n.address.clone()).unwrap_or_default();
        Target { cluster: self.view.policy.cluster.clone(), node: self.view.me.clone(), address, term }
    }

    pub(super) fn address_moved(&mut self, term: Term, result: &Result<()>) {
        match result {
            Ok(()) => {
                self.view.address_for = Some(term);
                self.view.address_busy = None;
                self.address_failures = 0;
                self.address_problem = None;
                let text = format!("the failover IP points to {}", self.view.me);
                self.parts.events.record(EventKind::AddressMoved, Some(term), text, json!({}));
            }
            Err(error) => {
                self.address_failures += 1;
                let pause = Duration::from_millis(500) * 2u32.pow(self.address_failures.min(6));
                self.view.address_busy = Some(self.view.now + pause);
                tracing::warn!(error = %error.chain(), "the failover IP was not moved; it is tried again");
                self.address_problem = Some(format!("the failover IP was not moved: {}", in_full(error)));
            }
        }
    }

    /// Looks now and then whether the failover IP still points here.
    pub(super) fn check_address(&mut self) {
        let (Some(ip), Some(term)) = (&self.parts.failover_ip, self.view.address_for) else { return };
        let due = self.address_checked.is_none_or(|at| self.view.now.since(at) >= ADDRESS_CHECK);
        if !due || !self.view.has_right() || self.view.address_busy.is_some() {
            return;
        }
        self.address_checked = Some(self.view.now);
        let (ip, inputs, target) = (Arc::clone(ip), self.inputs.clone(), self.target(term));
        tokio::spawn(async move {
            if let Ok(holder) = ip.current().await {
                let here = holder.is_some_and(|h| h.is(&target));
                let _ = inputs.send(Input::AddressSeen { term, here });
            }
        });
    }
}
