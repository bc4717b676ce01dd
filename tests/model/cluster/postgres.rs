//! What PostgreSQL does by itself, and what is done to it.

use super::properties;
use super::state::{Acked, Job, Kind, NOBODY, NODES, Names, Node, NodeId, Record, Run, Sender, State};
use super::told::Step;

/// The steps of a node's PostgreSQL.
pub(super) fn steps(s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
    match s.node(n).run {
        Run::Primary => primary(s, n, add),
        Run::Standby => standby(s, n, add),
        Run::Stopped => {}
    }
    if s.node(n).run != Run::Stopped && s.left.crashes > 0 {
        let mut t = *s;
        t.left.crashes -= 1;
        t.end_server(n);
        add(Step::Crash(n), t);
    }
}

fn primary(s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
    let node = s.node(n);
    if !node.stopping && !node.closed && s.left.commits > 0 {
        let mut t = *s;
        t.left.commits -= 1;
        let record = Record::new(n, node.wal.timeline(), Kind::Commit);
        t.node_mut(n).wal.append(record);
        add(Step::Commit(n, node.wal.end() + 1), t);
    }
    if node.waits != (node.names.count > 0) {
        let mut t = *s;
        t.node_mut(n).waits = node.names.count > 0;
        add(Step::NoticeCheckpointer(n), t);
    }
    for (peer, sender) in (0u8..).zip(&node.senders) {
        let Some(sender) = sender else { continue };
        let i = usize::from(peer);
        if sender.old_names {
            let mut t = *s;
            if let Some(sender) = &mut t.node_mut(n).senders[i] {
                sender.old_names = false;
            }
            add(Step::NoticeSender(n, peer), t);
        }
        if !sender.attached {
            let mut t = *s;
            t.node_mut(n).senders[i] = None;
            add(Step::Close(n, peer), t);
        } else if sender.flushed < node.wal.end() {
            let mut t = *s;
            t.node_mut(peer).wal = node.wal;
            if let Some(sender) = &mut t.node_mut(n).senders[i] {
                sender.flushed = node.wal.end();
            }
            add(Step::Flush(peer, n), t);
        }
    }
    if node.stopping && !node.clean {
        let mut t = *s;
        let end = node.wal.end();
        let record = Record::new(n, node.wal.timeline(), Kind::Shutdown);
        let node = t.node_mut(n);
        node.clean = true;
        node.checkpoint = end;
        node.wal.append(record);
        add(Step::ShutDown(n), t);
    } else if node.stopping && node.senders.iter().flatten().all(|s| s.flushed == node.wal.end()) {
        let mut t = *s;
        t.end_server(n);
        add(Step::Stopped(n), t);
    }
}

/// Whether commits up to a position are let go: because nobody waits, or by a WAL sender, under the names
/// that it knows.
pub(super) fn lets_go(node: &Node, position: u8) -> bool {
    !node.waits || releases(node, |sender| sender.flushed >= position)
}

/// Whether a WAL sender finds enough that `count`, under the names that it knows.
pub(super) fn releases(node: &Node, counts: impl Fn(&Sender) -> bool) -> bool {
    let senders = || (0u8..).zip(&node.senders).filter_map(|(peer, s)| s.as_ref().map(|s| (peer, s)));
    senders().any(|(peer, by)| {
        let names = if by.old_names { node.names_before } else { node.names };
        let named = |peer: u8, s: &Sender| names.members.has(peer, s.life);
        let enough = senders().filter(|(p, s)| named(*p, s) && counts(s)).count();
        names.count > 0 && named(peer, by) && enough >= usize::from(names.count)
    })
}

fn standby(s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
    let node = s.node(n);
    if let Some((_, timeline)) = node.promoting {
        let mut t = *s;
        let node = t.node_mut(n);
        node.upstream = None;
        node.wal.append(Record::new(n, timeline, Kind::Promotion));
        node.promoting = None;
        if matches!(node.agent.job, Some(Job::Promote(..))) {
            node.agent.job = None;
        }
        t.becomes_primary(n);
        add(Step::Promoted(n, timeline), t);
        return;
    }
    let Some(upstream) = node.upstream else { return };
    let source = s.node(upstream);
    let connected = source.senders[usize::from(n)].is_some();
    if connected || source.run != Run::Primary || source.stopping {
        return;
    }
    // PostgreSQL's own checks: the position lies on the upstream's history, and not past its end.
    let end = node.wal.end();
    let timeline = node.wal.timeline();
    let on_history =
        timeline == source.wal.timeline() || source.wal.forks().any(|(forked, fork)| forked == timeline && end <= fork);
    if on_history && end <= source.wal.end() {
        let mut t = *s;
        if !node.wal.leads_to(&source.wal) {
            t.broken = Some(properties::ONE_HISTORY);
        }
        let sender = Sender { life: node.life, flushed: end, attached: true, old_names: false };
        t.node_mut(upstream).senders[usize::from(n)] = Some(sender);
        add(Step::Connect(n, upstream), t);
    }
}

impl State {
    /// A node.
    pub(super) fn node(&self, n: NodeId) -> &Node {
        &self.nodes[usize::from(n)]
    }

    /// A node, to change it.
    pub(super) fn node_mut(&mut self, n: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(n)]
    }

    /// A server ends.
    pub(super) fn end_server(&mut self, n: NodeId) {
        self.leave(n);
        let node = self.node_mut(n);
        node.was_primary = node.run == Run::Primary;
        node.run = Run::Stopped;
        for sender in &mut node.senders {
            *sender = None;
        }
        node.promoting = None;
        node.stopping = false;
        node.waits = false;
        let agent = &mut node.agent;
        agent.saw_end = true;
        agent.barrier = None;
        if matches!(agent.job, Some(Job::Promote(..) | Job::Stop)) {
            agent.job = None;
        }
        if let Some(right) = &mut agent.right {
            right.after_end = false;
        }
        for attempt in agent.attempts.iter_mut().flatten() {
            attempt.after_end = false;
        }
    }

    /// A standby's WAL receiver ends. Its sender may not notice for a while.
    pub(super) fn leave(&mut self, n: NodeId) {
        for other in 0..NODES {
            if let Some(sender) = &mut self.nodes[other].senders[usize::from(n)] {
                sender.attached = false;
            }
        }
    }

    /// A server starts as a primary, or leaves recovery.
    pub(super) fn becomes_primary(&mut self, n: NodeId) {
        let node = self.node_mut(n);
        node.run = Run::Primary;
        node.waits = node.names.count > 0;
        node.began = node.wal.end();
        node.clean = false;
        let reign = usize::from(node.reign);
        let before = self.reigns[reign];
        if before == NOBODY {
            self.reigns[reign] = n;
        } else if before != n {
            self.broken = Some(properties::ONE_LEADER);
        }
    }

    /// Clients are told of all commits that are let go. That they are told later changes nothing: what could
    /// be acknowledged counts as acknowledged.
    pub(super) fn acknowledge(&mut self) {
        for node in self.nodes {
            if node.run != Run::Primary || node.stopping || node.closed {
                continue;
            }
            let upto = (node.began + 1..=node.wal.end()).rev().find(|at| lets_go(&node, *at));
            // What was recovered can be read by now, whether it was acknowledged or not.
            for position in 1..=upto.unwrap_or(node.began) {
                let record = node.wal.at(position).unwrap_or_default();
                let acked = Acked { position, record, term: node.reign };
                let known = self.acked.iter().any(|a| a.position == position && a.record == record);
                if record.is_commit() && !known {
                    self.acked.push(acked);
                }
            }
        }
    }

    /// A data directory is made anew from a primary's.
    pub(super) fn take_from(&mut self, n: NodeId, from: NodeId) -> bool {
        let source = *self.node(from);
        if source.run != Run::Primary || source.stopping {
            return false;
        }
        let node = self.node_mut(n);
        node.wal = source.wal;
        node.life += 1;
        node.was_primary = false;
        node.clean = false;
        node.upstream = None;
        node.names = Names::default();
        node.rewinding = false;
        true
    }
}
