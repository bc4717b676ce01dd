//! What operators ask for, and the end of the agent.

use std::time::Duration;

use serde_json::json;

use super::Driver;
use super::lanes::words;
use crate::agent::api::{OrderRequest, PendingOrder};
use crate::agent::configuration::Wanted;
use crate::bundle::ledger::How;
use crate::clock::Moment;
use crate::decide::{Action, Verdict};
use crate::event::EventKind;
use crate::view::{Order, Postgres, Task};

/// How long a handed-over lead may take when the agent is told to stop.
const PARTING_BUDGET: Duration = Duration::from_secs(8);

impl Driver {
    pub(super) async fn accept(&mut self, pending: PendingOrder) {
        self.view.now = self.parts.clock.now();
        if let OrderRequest::Stop { hand_over } = pending.request {
            let _ = pending.answer.send(Verdict::Done("the agent stops".into()));
            if self.parting.is_none() {
                self.part(hand_over);
            }
            return;
        }
        if pending.request == OrderRequest::BeginAnew {
            let verdict = self.may_begin_anew();
            self.begins_anew = matches!(verdict, Verdict::Done(_));
            let _ = pending.answer.send(verdict);
            return;
        }
        // An order is given up in time to tell so.
        let budget = self.parts.hands.settings.failover.stop_budget;
        let deadline = (self.view.now + budget * 2).min(pending.deadline - Duration::from_millis(500));
        self.parts.hands.configuration.want(match &pending.request {
            OrderRequest::UseBundle { digest, tag, rollback } => Some(Wanted {
                digest: digest.clone(),
                tag: tag.clone(),
                how: if *rollback { How::Rollback } else { How::Update },
            }),
            _ => None,
        });
        let order = into_order(pending.request, deadline);
        if order == Order::Reclone && !self.view.am_leader() {
            if let Err(error) = self.parts.hands.state.update(|d| d.reclone = true).await {
                let _ = pending.answer.send(Verdict::Failed(error.chain()));
                return;
            }
            self.view.durable = self.parts.hands.state.get();
        }
        let term = self.view.witness.record().map(|r| r.term);
        self.parts.events.record(EventKind::Order, term, format!("an operator orders: {order:?}"), json!({}));
        // Before an order is acted upon, PostgreSQL is looked at again: what was seen before it may be old.
        self.epoch += 1;
        self.observe_at = self.view.now;
        self.waiting = Some(order);
        self.asked = Some(pending.answer);
    }

    /// Whether this life of the agent can be left as it is, and a next one would come about.
    fn may_begin_anew(&self) -> Verdict {
        let refused = |why: String| Verdict::Refused(why);
        if !self.parts.can_begin_anew {
            return refused("this agent is a part of another program: restart that one".into());
        }
        if let Some((task, _)) = self.view.busy {
            return refused(format!("something is under way: {}", words(task)));
        }
        if self.view.order.is_some() || self.waiting.is_some() || self.parting.is_some() {
            return refused("another order is under way".into());
        }
        match self.parts.hands.configuration.next() {
            Ok(_) => Verdict::Done("the agent begins anew, and PostgreSQL goes on".into()),
            Err(error) => refused(format!("it could not begin with the settings as they are now: {}", error.chain())),
        }
    }

    /// A bundle is switched to also where PostgreSQL does not run: the next start uses it.
    pub(super) fn take_bundle_at_rest(&mut self) {
        let rests =
            matches!(self.view.local.postgres, Postgres::Stopped(_) | Postgres::Empty | Postgres::Unusable { .. });
        let asked = self.view.order == Some(Order::Reload) && self.parts.hands.configuration.is_wanted();
        if rests && asked && self.view.busy.is_none() {
            self.begin(Action::Reload, Task::Reload);
        }
    }

    pub(super) fn end_order(&mut self, verdict: Verdict) {
        let term = self.view.witness.record().map(|r| r.term);
        self.parts.events.record(EventKind::Order, term, format!("the order ended: {verdict:?}"), json!({}));
        self.view.order = None;
        if let Some(asked) = self.asked.take() {
            let _ = asked.send(verdict);
        }
    }

    /// Told to stop: a leader with an heir hands over first.
    pub(super) fn part(&mut self, hand_over: bool) {
        self.view.now = self.parts.clock.now();
        let deadline = self.view.now + PARTING_BUDGET;
        self.parting = Some(deadline + Duration::from_secs(2));
        let others = self.view.reports().any(|r| r.role == crate::Role::Standby);
        if hand_over && others && self.view.has_right() && self.view.order.is_none() {
            self.view.order = Some(Order::Switchover { to: None, deadline });
        } else if self.asked.is_none() {
            self.view.order = None;
        }
    }
}

/// What the loop makes of a request.
fn into_order(request: OrderRequest, deadline: Moment) -> Order {
    match request {
        OrderRequest::Bootstrap => Order::Bootstrap,
        OrderRequest::Adopt { system_identifier } => Order::Adopt { system_identifier },
        OrderRequest::Switchover { to } => Order::Switchover { to, deadline },
        OrderRequest::Failover { allow_data_loss } => Order::Failover { allow_data_loss, deadline },
        OrderRequest::Pause => Order::Pause(true),
        OrderRequest::Resume => Order::Pause(false),
        OrderRequest::Restart => Order::Restart { stopped: false },
        OrderRequest::Reload | OrderRequest::UseBundle { .. } => Order::Reload,
        OrderRequest::Reclone => Order::Reclone,
        OrderRequest::Rejoin => Order::Rejoin,
        OrderRequest::BeginAnew | OrderRequest::Stop { .. } => unreachable!("handled before"),
    }
}
