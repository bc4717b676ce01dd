//! Nodes that are found out.

use std::time::Duration;

use pgdock_makara::{Error, Limits, Role, Router, Topology};
use tokio_postgres::{Config, NoTls};

use super::cluster::{Cluster, HOSTS};
use super::{answered_by, leader, until};

fn template() -> Config {
    "user=postgres dbname=postgres".parse().unwrap()
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.poll = Duration::from_millis(100);
    limits
}

fn both(topology: &Topology) -> bool {
    topology.primary().is_some() && topology.standbys().count() == 1
}

#[tokio::test]
async fn nodes_are_found_by_one_of_them_and_by_name() {
    let Some(cluster) = Cluster::start() else { return };
    let [primary, standby] = HOSTS.map(|host| format!("{host}:{}", cluster.port));
    // A standby tells whom it follows, and a seed that is gone keeps nobody from asking it. (The other direction shows the address that a standby connects from, which on a
    // loopback device is not the one that it listens on.)
    let router = Router::builder()
        .discover(["nowhere.invalid:5432", &standby], template())
        .limits(limits())
        .build(NoTls)
        .unwrap();
    until(&router, "both nodes", both).await;
    assert_eq!(leader(&router.topology()), Some(primary.as_str()));
    let named = |name: &str| router.topology().nodes.iter().filter(|node| node.name == name).count();
    assert_eq!((named(&primary), named(&standby)), (1, 1), "each once: {:?}", router.topology());
    assert_eq!(answered_by(&router).await, HOSTS[1]);

    // A name of one address, and the same server under another name.
    let router =
        Router::builder().dns(&primary, template(), Duration::from_millis(100)).limits(limits()).build(NoTls).unwrap();
    until(&router, "the primary", |topology| topology.primary().is_some()).await;
    assert_eq!(leader(&router.topology()), Some(primary.as_str()));
    let twice = Router::builder().node("a", cluster.address(0), 1).node("b", cluster.address(0), 1);
    let twice = twice.limits(limits()).build(NoTls).unwrap();
    until(&twice, "one of the two", |topology| {
        topology.primary().is_some() && topology.nodes.iter().any(|node| node.banned.is_some())
    })
    .await;
    assert_eq!(twice.topology().nodes.iter().filter(|node| node.role != Role::Unknown).count(), 1);

    for builder in [
        Router::builder().dns("no port", template(), Duration::from_secs(1)),
        Router::builder().dns(&primary, cluster.address(0), Duration::from_secs(1)),
        Router::builder().discover([] as [&str; 0], template()),
    ] {
        assert!(matches!(builder.build(NoTls), Err(Error::Settings(_))));
    }
}
