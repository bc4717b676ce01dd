use super::support::*;
use crate::decide::{Action, decide};
use crate::view::{Postgres, Stopped, View};

fn down() -> View {
    let mut view = standby("n2");
    view.local.postgres = Postgres::Stopped(Stopped { was_primary: false, ..stopped(true) });
    view
}

#[test]
fn postgresql_starts_in_recovery_whatever_it_was() {
    for (was_primary, clean) in [(false, true), (true, true), (true, false)] {
        let mut view = down();
        view.local.postgres = Postgres::Stopped(Stopped { was_primary, ..stopped(clean) });
        assert_eq!(decide(&view).actions, [Action::StartStandby { upstream: None }]);
    }
}

#[test]
fn without_a_document_it_stays_down() {
    let mut view = down();
    view.witness.seen = None;
    view.witness.absent = true;
    let d = decide(&view);
    assert!(!wants(&d, &Action::StartStandby { upstream: None }) && tells(&d, "nobody can tell who leads"), "{d:?}");
}

#[test]
fn one_that_was_rewound_streams_from_the_primary_or_waits_for_one() {
    let mut view = down();
    view.durable.rewound = true;
    assert_eq!(decide(&view).actions, [Action::StartStandby { upstream: Some(name("n1")) }]);
    silence(&mut view, "n1", 1500);
    assert!(tells(&decide(&view), "needs a primary to catch up from"));
}

#[test]
fn one_that_was_rewound_in_vain_is_copied_anew() {
    let mut view = down();
    view.durable.rewound = true;
    view.local.start_failures = 3;
    assert_eq!(decide(&view).actions, [Action::Clone { from: name("n1"), system_identifier: SYSTEM }]);
}
