use super::support::*;
use crate::decide::{Action, Verdict, decide};
use crate::view::{Order, Postgres, Trust, View};

fn broken(view: View) -> View {
    View { trust: Trust::Broken("the store lets two racers win".into()), ..view }
}

#[test]
fn a_store_that_broke_its_word_is_a_problem_and_the_leader_goes_on() {
    for view in [leader(), standby("n2")] {
        let d = decide(&broken(view));
        assert!(d.problems.iter().any(|p| p.starts_with("the store lets two racers win; no node")), "{:?}", d.problems);
        assert!(!d.actions.iter().any(|a| matches!(a, Action::Fence { .. })), "{:?}", d.actions);
    }
}

#[test]
fn a_planned_switchover_is_refused() {
    let order = Some(Order::Switchover { to: Some(name("n2")), deadline: NOW + ms(5000) });
    assert!(decide(&View { order: order.clone(), ..leader() }).verdict.is_none());
    let d = decide(&broken(View { order, ..leader() }));
    assert!(matches!(&d.verdict, Some(Verdict::Refused(why)) if why.contains("two racers")), "{d:?}");
}

#[test]
fn a_cluster_is_founded_on_a_proven_store_alone() {
    let founder = |trust: Trust| {
        let mut view = View { trust, order: Some(Order::Bootstrap), ..standby("n2") };
        view.witness.seen = None;
        view.witness.absent = true;
        view.local.postgres = Postgres::Empty;
        view.local.system_identifier = None;
        decide(&view)
    };
    assert!(wants(&founder(Trust::Proven), &Action::Bootstrap));
    assert!(wants(&founder(Trust::Assumed), &Action::Bootstrap));
    let waits = founder(Trust::Untried);
    assert!(waits.verdict.is_none() && !wants(&waits, &Action::Bootstrap), "{waits:?}");
    for trust in [Trust::Broken("it ignores versions".into()), Trust::Unknown { why: "silence".into(), before: false }]
    {
        let d = founder(trust);
        assert!(d.verdict.is_some() && !wants(&d, &Action::Bootstrap), "{d:?}");
    }
}

#[test]
fn nobody_takes_over_by_himself_and_an_operator_can_make_him() {
    let mut view = standby("n2");
    kill(&mut view, "n1");
    assert!(decide(&view).campaign.is_some());
    let d = decide(&broken(view.clone()));
    assert!(d.campaign.is_none() && d.actions.iter().all(|a| !matches!(a, Action::Detach { .. })), "{d:?}");
    detach(&mut view);
    assert!(swapped(&decide(&view)).is_some());
    assert_eq!(swapped(&decide(&broken(view.clone()))), None);
    let order = Some(Order::Failover { allow_data_loss: false, deadline: NOW + ms(5000) });
    assert!(swapped(&decide(&broken(View { order, ..view }))).is_some());

    let mut view = asynchronous(standby("n2"));
    silence(&mut view, "n1", 5350);
    stand(&mut view, 5350);
    assert!(swapped(&decide(&view)).is_some());
    assert_eq!(swapped(&decide(&broken(view))), None);
}
