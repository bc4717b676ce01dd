//! States that no decision and no property can tell apart become one.

use super::state::{Job, Node, Run, State, Version};
use crate::attempt::Fate;

/// Makes it that one.
pub(super) fn canonical(s: &mut State, nodes: usize) {
    s.acknowledge();
    for node in &mut s.nodes {
        tidy(node);
    }
    // What was taken of a crash counts until PostgreSQL runs again.
    if !s.nodes.iter().any(|n| n.run == Run::Stopped && n.was_primary) {
        for node in &mut s.nodes {
            node.agent.took = false;
        }
    }
    let doc = s.doc.version;
    for node in &mut s.nodes {
        // A pledge is shown as long as it is for the version that its giver saw last, and that only grows.
        let seen = node.agent.seen.map_or(doc, |d| d.version);
        if node.pledge.is_some_and(|p| p.version < seen) {
            node.pledge = None;
        }
    }
    // What all disks hold cannot be lost any more: whoever is copied holds it.
    let wals = s.nodes.map(|n| n.wal);
    s.acked.retain(|a| wals[..nodes].iter().any(|wal| wal.at(a.position) != Some(a.record)));
    s.acked.sort_unstable();
    s.ghosts.sort_unstable();
    s.ghosts.dedup();
    versions(s);
}

/// What lies on the disk and is overwritten before it is used again.
fn tidy(node: &mut Node) {
    if node.run != Run::Stopped {
        node.was_primary = false;
        node.agent.saw_end = false;
        if let Some(right) = &mut node.agent.right {
            right.after_end = false;
        }
        for attempt in node.agent.attempts.iter_mut().flatten() {
            attempt.after_end = false;
        }
    }
    if node.run == Run::Stopped {
        node.upstream = None;
    }
    let leads = node.run == Run::Primary || node.promoting.is_some();
    if !leads {
        node.reign = 0;
        node.began = 0;
        node.closed = false;
        if node.run == Run::Standby || !node.was_primary {
            node.names = Default::default();
        }
    }
    if node.run != Run::Primary {
        node.agent.barrier = None;
    } else {
        node.upstream = None;
    }
    if !node.clean {
        node.checkpoint = 0;
    }
    if node.senders.iter().flatten().all(|s| !s.old_names) {
        node.names_before = Default::default();
        if matches!(node.agent.job, Some(Job::SetNames(_))) {
            // All processes are seen to use them: that is the end of it.
            node.agent.job = None;
        }
    }
    // A right is for a term; of an earlier one it is worth nothing to whoever is no primary.
    if !leads
        && let (Some(right), Some(seen)) = (node.agent.right, node.agent.seen)
        && right.term < seen.term
    {
        node.agent.right = None;
    }
}

/// Versions are numbered anew: only those count to which somebody refers, and their order.
fn versions(s: &mut State) {
    let mut used = [false; 256];
    each_version(s, &mut |v| used[usize::from(*v)] = true);
    let mut renamed = [0; 256];
    let mut next = 0;
    for (old, used) in used.iter().enumerate() {
        if *used {
            renamed[old] = next;
            next += 1;
        }
    }
    each_version(s, &mut |v| *v = renamed[usize::from(*v)]);
    // Swaps are of the version that their author saw, whatever became of them.
    for node in &mut s.nodes {
        let seen = node.agent.seen.map_or(0, |d| d.version);
        for attempt in node.agent.attempts.iter_mut().flatten() {
            attempt.next.version = seen + 1;
        }
    }
    for ghost in s.ghosts.iter_mut() {
        ghost.version = s.doc.version + 1;
    }
}

fn each_version(s: &mut State, f: &mut impl FnMut(&mut Version)) {
    f(&mut s.doc.version);
    for node in &mut s.nodes {
        if let Some(seen) = &mut node.agent.seen {
            f(&mut seen.version);
        }
        if let Some(pledge) = &mut node.pledge {
            f(&mut pledge.version);
        }
        for attempt in node.agent.attempts.iter_mut().flatten() {
            // The version that it made, which its author may be told of.
            if attempt.fate == Fate::Landed {
                f(&mut attempt.next.version);
            }
        }
    }
    if let Some((_, report)) = &mut s.late {
        if let Some((version, _)) = &mut report.seen {
            f(version);
        }
        if let Some(pledge) = &mut report.pledge {
            f(&mut pledge.version);
        }
    }
}
