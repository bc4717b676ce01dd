//! R5: which standbys should guard the leader's commits, and how many of them each commit.
//!
//! A standby *serves* that streams, gets on, and could take over. One that does not serve is replaced as soon as
//! another can; where none can it keeps its place until it is *lost*: commits that wait for it would hang.

use std::collections::BTreeSet;

use super::action::Decision;
use crate::node::Member;
use crate::report::{Report, State};
use crate::view::{Link, Primary, View};
use crate::witness::Record;
use crate::witness::record::Durability;

/// "a of D" as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// D.
    pub(super) sync_set: BTreeSet<Member>,
    /// a.
    pub(super) acks: u32,
}

/// What should guard commits now. `sync` has one standby, `quorum` all that serve; of each commit as many as the
/// operator wants, or as there are.
pub(super) fn target(view: &View, record: &Record, primary: &Primary) -> Target {
    if !record.durability.is_guarded() {
        return Target::default();
    }
    // Who may not lead guards nothing: a takeover could need what it alone holds.
    let serving = primary.senders.keys().filter(|m| serves(view, primary, m) && view.may_lead(&m.node));
    let serving: BTreeSet<&Member> = match record.durability {
        Durability::Sync => {
            let best = |m: &&Member| (record.sync_set.contains(*m), view.rank(&m.node), primary.senders[*m].flushed);
            serving.max_by_key(best).into_iter().collect()
        }
        _ => serving.collect(),
    };
    let count = |set: &BTreeSet<&Member>| u32::try_from(set.len()).unwrap_or(u32::MAX);
    let wanted = view.policy.acks.max(1);
    if count(&serving) >= wanted {
        return Target { sync_set: serving.into_iter().cloned().collect(), acks: wanted };
    }
    // Fewer than wanted: what guards commits already goes on doing so, as long as it is not lost.
    let keeps = record.sync_set.iter().filter(|m| view.may_lead(&m.node) && !lost(view, primary, m));
    let all: BTreeSet<&Member> = serving.iter().copied().chain(keeps).collect();
    let acks = wanted.min(count(&all)).min(record.acks.max(count(&serving)));
    Target { sync_set: all.into_iter().cloned().collect(), acks }
}

/// Asks to be called again when a standby becomes silent, should nothing be heard of it until then.
pub(super) fn watch(view: &View, record: &Record, primary: &Primary, d: &mut Decision) {
    let members: BTreeSet<&Member> = record.sync_set.iter().chain(primary.senders.keys()).collect();
    for member in members {
        let moved = view.local.progress.get(member).map(|p| p.moved_at);
        let heard = view.peers.get(&member.node).and_then(|p| p.heard_at);
        for since in [moved, heard, view.local.primary_since].into_iter().flatten() {
            d.wake(view.now, since + view.policy.silent_after);
        }
    }
}

/// It streams and moves, and its agent is up, in the same life, so that it could take over.
fn serves(view: &View, primary: &Primary, member: &Member) -> bool {
    let agent = view.report(&member.node).is_some_and(|r| r.member().as_ref() == Some(member) && r.pledge.is_none());
    agent && primary.senders.get(member).is_some_and(|s| s.streaming) && moves(view, member)
}

/// Its disk took something in lately, or lacks nothing.
fn moves(view: &View, member: &Member) -> bool {
    view.local.progress.get(member).is_some_and(|p| view.now.since(p.moved_at) < view.policy.silent_after)
}

/// Commits that wait for it hang: it is not connected, and is known not to be about to; or it has not moved for as
/// long as makes a peer silent.
fn lost(view: &View, primary: &Primary, member: &Member) -> bool {
    let connected = primary.senders.contains_key(member);
    let down = match view.link(&member.node) {
        Link::Refused => view.peers.get(&member.node).is_some_and(|p| p.heard_at.is_some()),
        Link::Up => view.report(&member.node).is_some_and(|r| says_down(r, member)),
        Link::Silent => false,
    };
    // A primary that just began gives it the time to connect.
    let waited = view.local.primary_since.is_some_and(|at| view.now.since(at) >= view.policy.silent_after);
    !connected && down || !moves(view, member) && waited
}

/// Its agent says that its PostgreSQL does not run, or that its data directory is another one by now.
fn says_down(report: &Report, member: &Member) -> bool {
    let gone = matches!(
        report.state,
        State::Stopped | State::Empty | State::Cloning | State::Rewinding | State::Failed | State::Promoting
    );
    gone || report.member().as_ref() != Some(member)
}
