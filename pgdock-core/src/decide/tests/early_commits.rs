use super::support::*;
use crate::decide::decide;
use crate::view::View;

fn with(found: &[&str]) -> View {
    let mut view = leader();
    view.local.early_commits = Some(found.iter().map(|&f| f.to_owned()).collect());
    view
}

const TOLD: &str = "a failover may lose";

#[test]
fn a_primary_tells_for_whom_commits_do_not_wait() {
    let d = decide(&with(&["role app=off", "database \"Old\"=local"]));
    assert!(tells(&d, "for=role app=off, database \"Old\"=local"), "{d:?}");
    assert!(!tells(&decide(&with(&[])), TOLD));
    assert!(!tells(&decide(&leader()), TOLD), "nothing is known yet");
}

#[test]
fn where_no_commit_waits_it_is_no_problem() {
    assert!(!tells(&decide(&asynchronous(with(&["role app=off"]))), TOLD));
}
