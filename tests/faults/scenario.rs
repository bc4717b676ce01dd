//! [`Scenario`]: the acceptance scenarios. Nothing in them is drawn: each tells one story, and what has to come of it
//! is known.
//!
//! Besides what a scenario looks at itself, it is judged as any run is: nothing acknowledged is lost, no two nodes
//! acknowledge at once, all are well and have one history in the end ([`Verdict`](super::Verdict)).

mod commit;
mod machines;
mod network;
mod operator;
mod rejoin;
mod storage;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::event::{Event, EventKind};
use pgdock_core::{Error, NodeName, Result, Role, Term, TimelineId};

use super::campaign::Campaign;
use super::client::ROAMING;
use super::history::Micros;
use super::setup::{Setup, Special, libfaketime};
use crate::real::until;
pub(super) use storage::founds_nothing_on;

/// How long something may take that should take a moment, on a machine that does much else.
const SOON: Duration = Duration::from_secs(60);
/// So many acknowledgements, and clients get on.
const GETS_ON: usize = 3;

/// A story, and the cluster that it happens to.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its number.
    pub number: u8,
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens, and what has to come of it.
    pub text: &'static str,
    /// The cluster.
    pub setup: Setup,
    /// What is special about the cluster.
    pub special: Special,
    /// Whether it is among those that every change has to pass: it takes a few seconds.
    pub quick: bool,
    play: Play,
}

type Play = for<'a> fn(&'a mut Campaign, &'a Extent) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// How far those scenarios go that have no end of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How long a primary is paused, or cut off from its bucket.
    pub pause: Duration,
    /// How long a bucket is away.
    pub outage: Duration,
    /// How often the lead is handed over.
    pub switchovers: u32,
}

impl Extent {
    /// Longer than any right lasts.
    pub const SHORT: Self = Self { pause: Duration::from_secs(6), outage: Duration::from_secs(9), switchovers: 4 };
    /// As far as an operator would go: many minutes.
    pub const LONG: Self = Self { pause: Duration::from_secs(60), outage: Duration::from_secs(600), switchovers: 50 };
}

/// Nothing is special about it.
const PLAIN: Special = Special { clocks: false, settings: &[], broken_store: false, routed: false };
/// WAL is not kept for long.
const LITTLE_WAL: Special = Special {
    settings: &[
        ("postgres.settings", "max_wal_size", "\"48MB\""),
        ("postgres.settings", "wal_keep_size", "\"0\""),
        ("postgres.settings", "max_slot_wal_keep_size", "\"48MB\""),
    ],
    ..PLAIN
};

/// The leader's machine has one more address.
const ADDRESS: Special = Special {
    settings: &[("failover_ip", "kind", "\"linux\""), ("failover_ip", "address", "\"10.77.0.100\"")],
    ..PLAIN
};

/// All of them, by their numbers.
pub const ALL: [Scenario; 16] = [
    Scenario {
        number: 1,
        name: "primary-killed",
        text: "every process of the primary is killed and its address gone: writes resume, nothing acknowledged is lost",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: true,
        play: |on, _| Box::pin(machines::primary_killed(on)),
    },
    Scenario {
        number: 2,
        name: "primary-paused",
        text: "the primary is frozen for longer than any right, and thawed: it acknowledges nothing more, and rejoins",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: false,
        play: |on, extent| Box::pin(machines::primary_paused(on, extent)),
    },
    Scenario {
        number: 3,
        name: "nodes-apart",
        text: "the two nodes do not hear each other, the bucket hears both: exactly one goes on; then one timeline is left",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: true,
        play: |on, _| Box::pin(network::nodes_apart(on)),
    },
    Scenario {
        number: 4,
        name: "primary-cut-from-bucket",
        text: "the primary alone does not reach the bucket: no failover, its renewals go through the standby",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: true,
        play: |on, extent| Box::pin(network::primary_cut_from_bucket(on, extent)),
    },
    Scenario {
        number: 5,
        name: "bucket-down",
        text: "nobody reaches the bucket: nobody is demoted; the nodes do not hear each other either: nothing is lost",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: true,
        play: |on, extent| Box::pin(network::bucket_down(on, extent)),
    },
    Scenario {
        number: 6,
        name: "standby-back-alone",
        text: "the standby dies: writes resume, and it is shown that nobody guards them; the primary dies, the standby is \
               back alone: it does not promote itself, and a forced failover names what is lost",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: false,
        play: |on, _| Box::pin(operator::standby_back_alone(on)),
    },
    Scenario {
        number: 7,
        name: "host-reboot",
        text: "the primary's host fails and starts all that it had: it comes up read-only, and rejoins as a standby",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: false,
        play: |on, _| Box::pin(machines::host_reboot(on)),
    },
    Scenario {
        number: 8,
        name: "rewind-interrupted",
        text: "an old primary is killed in the midst of its rewind: its data directory is copied anew",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: false,
        play: |on, _| Box::pin(rejoin::rewind_interrupted(on)),
    },
    Scenario {
        number: 9,
        name: "standby-away-too-long",
        text: "a standby is away past max_slot_wal_keep_size: it copies the leader by itself, and has a slot again",
        setup: Setup::TwoInSync,
        special: LITTLE_WAL,
        quick: false,
        play: |on, _| Box::pin(rejoin::standby_away_too_long(on)),
    },
    Scenario {
        number: 10,
        name: "switchover-rolled-back",
        text: "the old primary does not stop within its budget: the switchover is undone, and the old primary goes on",
        setup: Setup::TwoInSync,
        special: Special { settings: &[("failover", "stop_budget", "\"2s\"")], ..PLAIN },
        quick: false,
        play: |on, _| Box::pin(operator::switchover_rolled_back(on)),
    },
    Scenario {
        number: 11,
        name: "clocks-jump",
        text: "the calendar clock of each node jumps by an hour, ahead and back: nothing happens",
        setup: Setup::TwoInSync,
        special: Special { clocks: true, ..PLAIN },
        quick: false,
        play: |on, _| Box::pin(machines::clocks_jump(on)),
    },
    Scenario {
        number: 12,
        name: "store-ignores-conditions",
        text: "the store ignores If-Match: no cluster is founded on it, and nothing is left behind",
        setup: Setup::TwoInSync,
        special: Special { broken_store: true, ..PLAIN },
        quick: false,
        play: |on, _| Box::pin(storage::store_mended(on)),
    },
    Scenario {
        number: 13,
        name: "commit-cancelled",
        text: "commits are cancelled while they wait for the standby, and their primary dies: clients were warned, and \
               none took such a commit for acknowledged",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: true,
        play: |on, _| Box::pin(commit::cancelled(on)),
    },
    Scenario {
        number: 14,
        name: "disk-full",
        text: "the disk of the primary fills up: it hands over in order before PostgreSQL panics; and where it is full at \
               once, PostgreSQL does not go on panicking",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: false,
        play: |on, _| Box::pin(storage::disk_full(on)),
    },
    Scenario {
        number: 15,
        name: "switchovers",
        text: "the lead is handed over again and again under load: no fork",
        setup: Setup::TwoInSync,
        special: PLAIN,
        quick: true,
        play: |on, extent| Box::pin(operator::switchovers(on, extent)),
    },
    Scenario {
        number: 16,
        name: "address-left-behind",
        text: "the leader's machine holds the failover address and its agent hangs: the deadman takes it off, the next \
               leader has it, and clients reach that one by it",
        setup: Setup::TwoInSync,
        special: ADDRESS,
        quick: true,
        play: |on, _| Box::pin(machines::address_left_behind(on)),
    },
];

impl Scenario {
    /// Whether it can be played here.
    ///
    /// # Errors
    /// `NotReady` with what is missing.
    pub fn possible(&self) -> Result<()> {
        if self.special.clocks { libfaketime().map(drop) } else { Ok(()) }
    }

    /// Plays it on a cluster that is well. What must not be is noted.
    ///
    /// # Errors
    /// Where it cannot go on.
    pub async fn play(&self, on: &mut Campaign, extent: &Extent) -> Result<()> {
        (self.play)(on, extent).await
    }
}

/// Who leads, by the document, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reign {
    leader: NodeName,
    term: Term,
    timeline: TimelineId,
}

/// What scenarios ask of a cluster.
impl Campaign {
    fn ttl(&self) -> Duration {
        self.ground.setup.ttl()
    }

    fn now(&self) -> Micros {
        self.ground.history.now()
    }

    /// Notes that something is wrong where a condition does not hold.
    fn expect(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.fail(what);
        }
    }

    /// The node that does not lead. There are two.
    fn other(&self, than: &NodeName) -> NodeName {
        let nodes = self.ground.cluster.nodes();
        nodes.into_iter().find(|node| node != than).expect("there are two nodes")
    }

    async fn status(&self) -> Result<ClusterStatus> {
        self.ground.cluster.cluster.status().await
    }

    async fn wait(&self, what: &str, condition: impl FnMut(&ClusterStatus) -> bool) -> Result<ClusterStatus> {
        self.ground.cluster.wait(what, SOON, condition).await
    }

    /// Waits until another node leads and is primary.
    async fn taken_over(&self, from: &NodeName) -> Result<NodeName> {
        let other = |s: &ClusterStatus| s.leader.as_ref().is_some_and(|l| l != from) && s.primary().is_some();
        let status = self.wait(&format!("another node than {from} is primary"), other).await?;
        Ok(status.leader.expect("it was just seen"))
    }

    /// Clients must be acknowledged something from now on; where they are not, that is noted.
    async fn gets_on(&mut self, when: &str) {
        let history = &self.ground.history;
        let since = history.now();
        let waited = until("clients get on", SOON, async || history.acknowledged_since(since, 0..ROAMING) >= GETS_ON);
        if waited.await.is_err() {
            self.fail(format!("clients do not get on {when}"));
        }
    }

    /// A node must have acknowledged nothing that was sent to it since a moment.
    fn acknowledged_nothing(&mut self, node: &NodeName, since: Micros, when: &str) {
        let acknowledged = self.ground.history.acknowledged_by(node.as_str(), since);
        self.expect(acknowledged == 0, format!("{node} acknowledged {acknowledged} writes {when}"));
    }

    /// A node must be a standby now.
    async fn follows(&mut self, node: &NodeName) -> Result<()> {
        let role = self.status().await?.node(node).map(|n| n.role);
        self.expect(role == Some(Role::Standby), format!("{node} is no standby in the end, but {role:?}"));
        Ok(())
    }

    /// Who leads, by the document.
    async fn reign(&self) -> Result<Reign> {
        let document = self.ground.cluster.cluster.document().await?;
        let found =
            document.and_then(|d| Some(Reign { leader: d.leader?, term: d.term, timeline: d.history.timeline }));
        found.ok_or_else(|| Error::internal("the document names no leader"))
    }

    /// The same node must lead in the same reign as before.
    async fn still_reigns(&mut self, before: &Reign, when: &str) -> Result<()> {
        let after = self.reign().await?;
        self.expect(after == *before, format!("the lead moved {when}: {before:?}, then {after:?}"));
        Ok(())
    }

    /// All that agents have told of.
    async fn events(&self) -> Result<Vec<Event>> {
        Ok(self.ground.cluster.cluster.events(None).await?.events)
    }

    /// How often a node has told of a kind of event.
    async fn told(&self, node: &NodeName, kind: EventKind) -> Result<usize> {
        Ok(self.events().await?.iter().filter(|e| e.node == *node && e.kind == kind).count())
    }

    /// How often each node has told that it lost its right, or its PostgreSQL.
    async fn upheavals(&self) -> Result<BTreeMap<(NodeName, String), usize>> {
        let mut counts = BTreeMap::new();
        for event in self.events().await? {
            if matches!(
                event.kind,
                EventKind::Fenced
                    | EventKind::Deposed
                    | EventKind::DeadmanFired
                    | EventKind::Handover
                    | EventKind::LeaderElected
                    | EventKind::Promoted
                    | EventKind::PostgresExited
            ) {
                *counts.entry((event.node, event.kind.to_string())).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_its_number_and_a_name_of_its_own() {
        assert!(ALL.iter().map(|s| s.number).eq(1..=16));
        let names: BTreeSet<_> = ALL.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|name| !["all", "quick"].contains(name)), "these words name several");
        assert!(ALL.iter().any(|s| s.quick));
    }
}
