use super::support::*;
use crate::decide::{Action, Verdict, decide};
use crate::postgres::lsn::Lsn;
use crate::view::{Order, View};

fn ordered(view: View, allow_data_loss: bool) -> View {
    View { order: Some(Order::Failover { allow_data_loss, deadline: NOW + ms(5000) }), ..view }
}

/// `n2` in a paused cluster in `async` whose leader is gone for good.
fn paused() -> View {
    let mut view = asynchronous(standby("n2"));
    document(&mut view).paused = true;
    silence(&mut view, "n1", 10_000);
    stand(&mut view, 10_000);
    view
}

fn refusal(view: &View) -> String {
    match decide(view).verdict {
        Some(Verdict::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_order_acts_in_async_though_decisions_are_paused() {
    assert_eq!(swapped(&decide(&paused())), None);
    let mut view = ordered(paused(), false);
    let d = decide(&view);
    assert_eq!(swapped(&d).unwrap().leader, Some(name("n2")));
    assert_eq!(d.verdict, None, "it is done once this node is primary");
    // Also an order waits until the old leader's right has ended.
    stand(&mut view, 5000);
    assert_eq!(swapped(&decide(&view)), None);
}

#[test]
fn an_order_means_the_node_that_it_names_whatever_its_priority() {
    let mut view = ordered(paused(), false);
    view.policy.members.get_mut(&name("n3")).unwrap().priority = 9;
    assert!(swapped(&decide(&view)).is_some());
}

#[test]
fn a_node_that_lacks_wal_is_refused_with_the_better_ones_name() {
    let mut view = ordered(paused(), false);
    peer_report(&mut view, "n3").flushed = Lsn(1001);
    assert!(refusal(&view).contains("failover --to n3"));
    my_standby(&mut view).flushed = Lsn(800);
    assert!(refusal(&view).contains("--allow-data-loss"));
}

#[test]
fn a_node_that_may_not_lead_is_refused() {
    let mut view = ordered(paused(), false);
    view.policy.members.get_mut(&name("n2")).unwrap().failover = false;
    assert!(refusal(&view).contains("may not lead"));
}

#[test]
fn in_sync_only_a_member_of_the_sync_set_keeps_every_commit() {
    let mut view = ordered(standby("n3"), false);
    kill(&mut view, "n1");
    assert!(refusal(&view).contains("acknowledged commits may be missing"));
}

#[test]
fn a_living_primary_is_not_overthrown() {
    for allow_data_loss in [false, true] {
        assert!(refusal(&ordered(standby("n2"), allow_data_loss)).contains("switchover"));
    }
}

#[test]
fn with_data_loss_allowed_it_waits_for_the_right_to_end_detaches_and_takes_over() {
    let mut view = ordered(standby("n3"), true);
    kill(&mut view, "n1");
    let detach_first = Action::Detach { pledge: None };
    assert!(!wants(&decide(&view), &detach_first));
    stand(&mut view, 5350);
    let d = decide(&view);
    assert!(wants(&d, &detach_first) && swapped(&d).is_none(), "{d:?}");
    my_standby(&mut view).detached = true;
    let d = decide(&view);
    assert!(tells(&d, "are lost"), "{d:?}");
    assert_eq!(swapped(&d).unwrap().leader, Some(name("n3")));
}

#[test]
fn it_is_given_up_in_time() {
    let mut view = ordered(paused(), false);
    view.order = Some(Order::Failover { allow_data_loss: false, deadline: NOW });
    assert!(matches!(decide(&view).verdict, Some(Verdict::Failed(_))));
}
