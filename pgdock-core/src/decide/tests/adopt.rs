use super::support::*;
use crate::Term;
use crate::decide::{Action, Verdict, decide};
use crate::view::{Order, Postgres, View};

/// The node of a primary that was stopped, of which there is no document yet.
fn old_primary() -> View {
    let mut view = standby("n2");
    view.witness.seen = None;
    view.witness.absent = true;
    view.local.postgres = Postgres::Stopped(stopped(true));
    view.local.system_identifier = Some(SYSTEM);
    view.order = Some(Order::Adopt { system_identifier: SYSTEM });
    view
}

fn refusal(view: &View) -> String {
    let d = decide(view);
    assert_eq!(swapped(&d), None, "{d:?}");
    match d.verdict {
        Some(Verdict::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_document_begins_where_the_primary_ended() {
    let mut view = old_primary();
    let Postgres::Stopped(stopped) = &mut view.local.postgres else { unreachable!() };
    stopped.clean = true;
    stopped.timeline = crate::TimelineId(4);
    let d = decide(&view);
    let [Action::SwapWitness { expected: None, next }] = d.actions.as_slice() else { panic!("{d:?}") };
    assert_eq!((next.term, next.leader.clone(), next.system_identifier), (Term(1), Some(name("n2")), SYSTEM));
    assert_eq!((next.timeline.0, next.acks, next.sync_set.len()), (4, 0, 0));
    assert_eq!(d.verdict, None);
}

#[test]
fn nothing_else_founds_it() {
    let mut view = old_primary();
    let Postgres::Stopped(mut found) = view.local.postgres.clone() else { unreachable!() };
    found.clean = false;
    view.local.postgres = Postgres::Stopped(found.clone());
    assert!(refusal(&view).contains("shut down in order"));

    found.clean = true;
    found.was_primary = false;
    view.local.postgres = Postgres::Stopped(found.clone());
    assert!(refusal(&view).contains("standby's"));

    found.was_primary = true;
    view.local.postgres = Postgres::Stopped(found);
    view.order = Some(Order::Adopt { system_identifier: SYSTEM + 1 });
    assert!(refusal(&view).contains("another cluster's"));

    let mut view = old_primary();
    view.local.postgres = Postgres::Empty;
    assert!(refusal(&view).contains("no data directory"));
    view.local.postgres = Postgres::Starting { primary: false };
    assert!(refusal(&view).contains("runs here"));
}

#[test]
fn where_there_is_a_cluster_already_it_is_left_alone() {
    let mut view = standby("n2");
    view.order = Some(Order::Adopt { system_identifier: SYSTEM });
    assert!(refusal(&view).contains("leader=n1"));
    let mut view = leader();
    view.order = Some(Order::Adopt { system_identifier: SYSTEM });
    assert!(matches!(decide(&view).verdict, Some(Verdict::Done(_))), "asked again, it is done");
}
