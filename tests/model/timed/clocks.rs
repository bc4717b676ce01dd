//! Clocks that tick, each for itself, and drift apart no faster than they may.
//!
//! In a *round* each clock ticks once, in any order, and anything may happen between. So two clocks that are equally
//! fast count one tick more or less over the same time at either of its ends. Besides, a clock may *slip*: it ticks
//! twice in a round, or not at all. One slip is what the hundredth of the ttl in R3, rounded up to a tick, allows for.

use super::Timed;
use super::state::{MARGIN, PATIENCE, State, TTL};
use super::told::Step;
use crate::cluster::state::NodeId;

/// The next tick of a node's clock, and its slips.
pub(super) fn steps(s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
    if s.ticked & (1 << n) != 0 {
        return;
    }
    let mut once = *s;
    once.tick(n);
    add(Step::Tick(n), once.round(n));
    if s.left.slips > 0 {
        let mut twice = once;
        twice.tick(n);
        let mut never = *s;
        for t in [&mut twice, &mut never] {
            t.left.slips -= 1;
        }
        add(Step::TickTwice(n), twice.round(n));
        add(Step::Skip(n), never.round(n));
    }
}

impl State {
    /// Notes that a clock has had its turn.
    fn round(mut self, n: NodeId) -> Self {
        self.ticked |= 1 << n;
        if Timed::nodes().all(|n| self.ticked & (1 << n) != 0) {
            self.ticked = 0;
        }
        self
    }

    /// A tick of a node's clock: whatever was noted by it is a tick older. The deadman looks first.
    pub(super) fn tick(&mut self, n: NodeId) {
        let older = |age: &mut u8, most: u8| *age = (*age + 1).min(most);
        let node = self.node_mut(n);
        older(&mut node.ended, PATIENCE);
        older(&mut node.agent.since, PATIENCE);
        for attempt in node.agent.attempts.iter_mut().flatten() {
            older(&mut attempt.age, TTL - MARGIN);
        }
        let less = |left: &mut u8| *left = left.saturating_sub(1);
        if let Some(right) = &mut node.agent.right {
            older(&mut right.sent, TTL - MARGIN);
            less(&mut right.left);
        }
        node.agent.given.iter_mut().for_each(|given| less(&mut given.left));
        node.agent.had.iter_mut().for_each(|had| less(&mut had.left));
        node.agent.heard = None;
        node.deadman = node.deadman.map(|left| left.saturating_sub(1));
        if node.deadman == Some(0) {
            node.deadman = None;
            if node.may_write() {
                node.end_server();
            }
        }
        self.each_plea(n, |plea| older(&mut plea.age, TTL - MARGIN));
    }
}
