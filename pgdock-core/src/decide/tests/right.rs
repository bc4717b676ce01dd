use super::support::*;
use crate::decide::decide;
use crate::view::{Postgres, Task};

#[test]
fn a_primary_whose_right_has_ended_is_fenced() {
    let mut view = asynchronous(leader());
    view.right.as_mut().unwrap().until = NOW + ms(1);
    assert!(!fences(&decide(&view)));
    view.right.as_mut().unwrap().until = NOW;
    let d = decide(&view);
    assert!(fences(&d) && tells(&d, "right to be primary has ended"), "{d:?}");
}

#[test]
fn so_is_one_that_never_had_a_right_and_one_on_its_way() {
    let mut view = leader();
    view.right = None;
    assert!(fences(&decide(&view)));

    let mut view = standby("n2");
    assert!(!fences(&decide(&view)), "a standby needs no right");
    view.busy = Some((Task::Promote, NOW));
    assert!(fences(&decide(&view)));
    view.busy = None;
    view.local.postgres = Postgres::Starting { primary: true };
    assert!(fences(&decide(&view)));
}

#[test]
fn while_the_sync_set_streams_the_right_outlives_the_witness() {
    let mut view = leader();
    view.right.as_mut().unwrap().until = NOW + ms(1);
    view.witness.failures = 5;
    let full = (NOW + ms(5000)) - ms(300);
    assert_eq!(decide(&view).deadline, Some(full));
    // The member that guards commits stands still.
    view.local.progress.get_mut(&member("n2")).unwrap().moved_at = ago(1000);
    assert_eq!(decide(&view).deadline, Some(NOW + ms(1)));
}

#[test]
fn a_standby_arms_nothing() {
    assert_eq!(decide(&standby("n2")).deadline, None);
}
