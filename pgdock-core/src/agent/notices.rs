//! Which changes become events: what is different between two decisions.

use std::collections::BTreeSet;

use serde_json::json;

use crate::decide::Decision;
use crate::event::{EventKind, EventLog};
use crate::node::Member;
use crate::view::View;
use crate::{NodeName, Role, Term};

/// What was last told of.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    term: Option<Term>,
    leader: Option<NodeName>,
    sync_set: BTreeSet<Member>,
    paused: bool,
    role: Role,
    witness_lost: bool,
    campaigning: bool,
    problems: BTreeSet<String>,
    /// The WAL that is kept here; `None` before it was looked for.
    kept: Option<BTreeSet<String>>,
}

/// The part of a problem that stays the same while its numbers change.
fn gist(problem: &str) -> &str {
    problem.split('.').next().unwrap_or(problem)
}

impl Notices {
    /// Writes down what has changed.
    pub(crate) fn tell(&mut self, view: &View, d: &Decision, events: &EventLog) {
        let term = view.witness.record().map(|r| r.term);
        let tell = |kind, message: String| events.record(kind, term, message, json!({}));
        if let Some(record) = view.witness.record() {
            if Some(record.term) != self.term || record.leader != self.leader {
                match &record.leader {
                    Some(leader) => tell(EventKind::LeaderElected, format!("{leader} leads term {}", record.term)),
                    None => {
                        let heir = record.handoff_to.as_ref().map_or("nobody", NodeName::as_str);
                        tell(EventKind::Handover, format!("the lead is handed to {heir}"));
                    }
                }
                (self.term, self.leader) = (Some(record.term), record.leader.clone());
            }
            if record.sync_set != self.sync_set {
                let members: Vec<_> = record.sync_set.iter().map(ToString::to_string).collect();
                let text = if members.is_empty() { "nobody".into() } else { members.join(", ") };
                tell(EventKind::SyncSetChanged, format!("{} of {{{text}}} guard commits", record.acks));
                self.sync_set = record.sync_set.clone();
            }
            if record.paused != self.paused {
                let (kind, what) =
                    if record.paused { (EventKind::Paused, "paused") } else { (EventKind::Resumed, "resumed") };
                tell(kind, format!("automatic decisions are {what}"));
                self.paused = record.paused;
            }
        }
        let role = view.local.postgres.role();
        if role != self.role && role != Role::Unknown {
            if role == Role::Primary {
                tell(EventKind::Promoted, format!("{} is primary", view.me));
            }
            self.role = role;
        }
        let lost = view.witness.failures >= 3;
        if lost != self.witness_lost {
            if lost {
                tell(EventKind::WitnessLost, view.witness.error.clone().unwrap_or_default());
            } else {
                tell(EventKind::WitnessBack, "the witness answers again".into());
            }
            self.witness_lost = lost;
        }
        if d.campaign.is_some() != self.campaigning {
            self.campaigning = d.campaign.is_some();
            if self.campaigning {
                tell(EventKind::Suspected, format!("the leader is taken for dead; {} campaigns", view.me));
            }
        }
        if let Some(kept) = &view.local.kept {
            // What was there when the agent began was told by its earlier life.
            let known = self.kept.get_or_insert_with(|| kept.iter().map(|k| k.id.clone()).collect());
            for new in kept.iter().filter(|k| !known.contains(&k.id)) {
                let transactions = new.transactions.map_or_else(|| "?".to_owned(), |n| n.to_string());
                let message = format!(
                    "WAL that nobody else has is kept as {}/{}. timeline={}, from={}, to={}, transactions={transactions}",
                    new.node, new.id, new.timeline, new.from, new.to
                );
                events.record(EventKind::Diverged, term, message, json!(new));
            }
            *known = kept.iter().map(|k| k.id.clone()).collect();
        }
        let problems: BTreeSet<String> = d.problems.iter().map(|p| gist(p).to_owned()).collect();
        for problem in d.problems.iter().filter(|p| !self.problems.contains(gist(p))) {
            tell(EventKind::Problem, problem.clone());
        }
        for gone in self.problems.difference(&problems) {
            tell(EventKind::ProblemCleared, gone.clone());
        }
        self.problems = problems;
    }
}
