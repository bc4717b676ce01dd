//! What is believed of nodes, by hand-made answers.

use tokio_postgres::NoTls;

use super::*;
use crate::router::Limits;
use crate::router::builder::{Address, node};
use crate::router::connection::{Dial, Tls};

/// A fleet of nodes that nobody reaches, and that nobody asks.
fn fleet(nodes: &[(&str, Option<&str>)], lag_max: LagMax, primary_reads: bool) -> Arc<Fleet> {
    let fleet = Arc::new(Fleet::new(Strategy::RoundRobin, lag_max, primary_reads));
    let dial: Arc<dyn Dial> = Arc::new(Tls(NoTls));
    for (name, zone) in nodes {
        let mut address = Address::new((*name).to_owned(), Config::new(), 1);
        address.zone = zone.map(str::to_owned);
        let node = Arc::new(node(address, "test", &fleet, &dial, &Limits::default(), 1).unwrap());
        fleet.add(node, BanPolicy::default(), |_| tokio::spawn(std::future::pending::<()>()).abort_handle());
    }
    fleet
}

fn by_name(fleet: &Fleet, name: &str) -> Arc<Node> {
    fleet.view().nodes.iter().find(|node| node.name == name).unwrap().clone()
}

fn answer(fleet: &Fleet, name: &str, role: Role, lsn: u64) -> bool {
    let node = by_name(fleet, name);
    let started = i64::from(name.as_bytes()[1]);
    let timeline = Some(match role {
        Role::Primary { timeline } => timeline,
        _ => 1,
    });
    let asked = fleet.now();
    fleet.answered(&node, asked, Answer { role, timeline, lsn, system: 7, question: 1, started })
}

fn primary(fleet: &Fleet) -> Option<String> {
    fleet.view().primary().map(|node| node.name.clone())
}

/// The names of those that answer reads, each once.
fn readers(fleet: &Fleet, zone: Option<&str>) -> Vec<String> {
    let view = fleet.view();
    let mut picks: Vec<_> =
        (0..20).filter_map(|_| view.pick(zone, |_| true)).map(|node| view.nodes[node].name.clone()).collect();
    picks.sort();
    picks.dedup();
    picks
}

const P1: Role = Role::Primary { timeline: 1 };
const P2: Role = Role::Primary { timeline: 2 };

#[tokio::test]
async fn reads_stay_in_their_zone_while_somebody_there_will_do() {
    let fleet = fleet(&[("n1", None), ("n2", Some("east")), ("n3", Some("west"))], LagMax::default(), false);
    assert!(readers(&fleet, None).is_empty(), "nobody has answered");
    answer(&fleet, "n1", P1, 100);
    answer(&fleet, "n2", Role::Standby, 100);
    answer(&fleet, "n3", Role::Standby, 100);
    assert_eq!(readers(&fleet, None), ["n2", "n3"]);
    assert_eq!(readers(&fleet, Some("east")), ["n2"]);
    assert_eq!(readers(&fleet, Some("north")), ["n2", "n3"]);
    fleet.ban(&by_name(&fleet, "n2"), "gone");
    assert_eq!(readers(&fleet, Some("east")), ["n3"], "rather far away than not at all");
    // When all are banned, the oldest ban is tried.
    fleet.ban(&by_name(&fleet, "n3"), "gone");
    let view = fleet.view();
    assert_eq!(view.last_resort(&fleet, |_| true).map(|node| view.nodes[node].name.as_str()), Some("n2"));
}

#[tokio::test]
async fn the_primary_takes_its_turn_where_that_is_wanted_and_is_never_banned_from_writes() {
    let fleet = fleet(&[("n1", None), ("n2", None)], LagMax::default(), true);
    answer(&fleet, "n1", P1, 100);
    answer(&fleet, "n2", Role::Standby, 100);
    assert_eq!(readers(&fleet, None), ["n1", "n2"]);
    fleet.ban(&by_name(&fleet, "n1"), "gone");
    assert_eq!(primary(&fleet).as_deref(), Some("n1"));
}

#[tokio::test]
async fn who_is_late_by_both_measures_answers_no_reads() {
    let both = LagMax { time: Some(Duration::from_secs(3600)), bytes: Some(50) };
    for (limit, late) in [
        (LagMax { time: None, bytes: Some(50) }, false),
        (LagMax { time: None, bytes: Some(500) }, true),
        (LagMax { time: Some(Duration::ZERO), bytes: None }, false),
        (both, true),
    ] {
        let fleet = fleet(&[("n1", None), ("n2", None), ("n3", None)], limit, false);
        answer(&fleet, "n2", Role::Standby, 100);
        assert_eq!(readers(&fleet, None), ["n2"], "with no primary to compare with");
        // The first makes it the primary, the second begins the account of its progress.
        answer(&fleet, "n1", P1, 200);
        answer(&fleet, "n1", P1, 200);
        // The clock has to move on between an answer of the primary and one of a standby.
        while fleet.now() == Duration::ZERO {}
        std::thread::sleep(Duration::from_millis(1));
        answer(&fleet, "n2", Role::Standby, 100);
        answer(&fleet, "n3", Role::Standby, 200);
        let expected: &[&str] = if late { &["n2", "n3"] } else { &["n3"] };
        assert_eq!(readers(&fleet, None), expected, "{limit:?}");
        assert_eq!(fleet.view().topology.node("n2").unwrap().lag_bytes, Some(100));
    }
}

#[tokio::test]
async fn a_reign_that_is_over_does_not_come_back() {
    let fleet = fleet(&[("n1", None), ("n2", None)], LagMax::default(), false);
    answer(&fleet, "n1", P1, 100);
    assert_eq!(primary(&fleet).as_deref(), Some("n1"));
    answer(&fleet, "n2", P2, 100);
    assert_eq!(primary(&fleet).as_deref(), Some("n2"));
    fleet.failed(&by_name(&fleet, "n2"), "silent");
    assert_eq!(primary(&fleet), None, "not the one before");
    answer(&fleet, "n2", P2, 100);
    assert_eq!(primary(&fleet).as_deref(), Some("n2"));
}

#[tokio::test]
async fn another_cluster_and_another_name_of_a_server_are_refused() {
    let fleet = fleet(&[("n1", None), ("n2", None), ("x1", None)], LagMax::default(), false);
    assert!(answer(&fleet, "n1", P1, 100));
    let foreign = Answer { role: P2, timeline: Some(2), lsn: 1, system: 8, question: 1, started: 99 };
    assert!(!fleet.answered(&by_name(&fleet, "n2"), fleet.now(), foreign));
    assert!(fleet.view().topology.node("n2").unwrap().banned.as_deref().unwrap().contains("another cluster"));
    // By the second letter of its name, it was started when n1 was.
    assert!(!answer(&fleet, "x1", P1, 100));
    assert_eq!(primary(&fleet).as_deref(), Some("n1"));
}

#[cfg(feature = "agents")]
#[tokio::test]
async fn an_agent_knows_better_who_leads_and_the_server_whether_it_answers() {
    let fleet = fleet(&[("n1", None), ("n2", None)], LagMax::default(), false);
    let word = |role, term| Some(Word { role, timeline: 1, term: Some(term), lsn: 1 });
    answer(&fleet, "n1", P1, 100);
    fleet.told("n1", word(Role::Unknown, 1));
    assert_eq!(primary(&fleet), None, "on its way out, whatever its server says");
    fleet.told("n1", word(P1, 1));
    assert_eq!(primary(&fleet).as_deref(), Some("n1"));
    // A standby that its agent sees, and nobody reaches from here, answers no reads.
    fleet.told("n2", word(Role::Standby, 1));
    assert!(readers(&fleet, None).is_empty());
    answer(&fleet, "n2", Role::Standby, 100);
    assert_eq!(readers(&fleet, None), ["n2"]);
    // A connection that was refused casts doubt on the word, until it is given again.
    fleet.forget(&by_name(&fleet, "n1"));
    assert_eq!(primary(&fleet), None);
    fleet.told("n1", word(P1, 1));
    assert_eq!(primary(&fleet).as_deref(), Some("n1"));
    // Without its agent, the server speaks for itself again.
    answer(&fleet, "n1", P1, 100);
    fleet.told("n1", None);
    assert_eq!(primary(&fleet).as_deref(), Some("n1"));
}
