//! Decisions by example. The simulator shows that they are safe together; these show what each finding does.

mod support;

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
mod switchover;
mod sync_set;
mod tail;
mod upkeep;
mod wal_gone;
mod witness_broken;
mod witness_stale;

use super::decide;
use support::{leader, standby};

#[test]
fn where_all_is_well_nothing_is_done() {
    for view in [leader(), standby("n2"), standby("n3")] {
        let d = decide(&view);
        assert_eq!((d.actions, d.problems), (vec![], vec![]), "{}", view.me);
    }
}
