//! What to do: a pure function of the view.
//!
//! Each finding is a file: it looks at the view, and asks for at most one action in a lane that no
//! weightier finding has taken. [`decide()`] calls them in the order of their weight: first what makes the
//! node safe, then what makes the cluster available, then what keeps it tidy.
//!
//! Architecture invariant: nothing in this folder awaits, reads a clock, draws a random number, or does I/O.

use crate::view::{Postgres, View};

pub mod action;
pub mod rules;
pub mod sync_step;

mod address_astray;
mod adopt;
mod backup_claim;
mod bootstrap;
mod campaign;
mod candidate;
mod clients_kept_out;
mod commits_kept;
mod data_foreign;
mod data_missing;
mod deposed;
mod disk_low;
mod early_commits;
mod forced_failover;
mod heir;
mod leader_stopped;
mod operator;
mod patience;
mod pledge;
mod promise;
mod promote;
mod relay;
mod renew;
mod right;
mod standby_diverged;
mod standby_not_following;
mod standby_stopped;
mod suspicion;
mod swap;
mod switchover;
mod sync_set;
mod sync_target;
mod tail;
mod upkeep;
mod wal_gone;
mod witness_broken;
mod witness_stale;

pub use action::{Action, Decision, Lane, Verdict};
pub use sync_set::initial_names;

/// What to do now.
#[must_use]
pub fn decide(view: &View) -> Decision {
    let mut d = Decision::default();
    if matches!(view.local.postgres, Postgres::Unknown) {
        witness_stale::check(view, &mut d);
        return d;
    }
    // Safe first: whoever may not be primary is none.
    right::expired(view, &mut d);
    deposed::check(view, &mut d);
    // What may not be touched is not touched.
    if data_foreign::check(view, &mut d) {
        witness_stale::check(view, &mut d);
        right::deadline(view, &mut d);
        return d;
    }
    swap::settle(view, &mut d);
    // Whoever is asked to wait waits, before anything else is considered.
    promise::give(view, &mut d);
    // What an operator asked for.
    bootstrap::check(view, &mut d);
    adopt::check(view, &mut d);
    operator::check(view, &mut d);
    disk_low::check(view, &mut d);
    switchover::check(view, &mut d);
    forced_failover::check(view, &mut d);
    // Who leads.
    leader_stopped::check(view, &mut d);
    promote::check(view, &mut d);
    tail::take(view, &mut d);
    heir::check(view, &mut d);
    campaign::check(view, &mut d);
    pledge::check(view, &mut d);
    relay::make(view, &mut d);
    patience::check(view, &mut d);
    // The leader's duties.
    clients_kept_out::check(view, &mut d);
    sync_set::check(view, &mut d);
    backup_claim::check(view, &mut d);
    renew::check(view, &mut d);
    promise::ask(view, &mut d);
    relay::ask(view, &mut d);
    address_astray::check(view, &mut d);
    upkeep::check(view, &mut d);
    // The others' duties.
    data_missing::check(view, &mut d);
    standby_stopped::check(view, &mut d);
    standby_diverged::check(view, &mut d);
    wal_gone::check(view, &mut d);
    standby_not_following::check(view, &mut d);
    // Keeping informed.
    commits_kept::check(view, &mut d);
    early_commits::check(view, &mut d);
    witness_broken::check(view, &mut d);
    swap::move_on(view, &mut d);
    witness_stale::check(view, &mut d);
    right::deadline(view, &mut d);
    d
}

#[cfg(test)]
mod tests;
