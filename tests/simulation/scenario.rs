//! [`Scenario`]: what a seed decides before the run begins.

use std::collections::BTreeMap;
use std::time::Duration;

use pgdock_core::NodeName;
use pgdock_core::decide::rules::Rules;
use pgdock_core::view::{MemberPolicy, Policy};
use pgdock_core::witness::record::Durability;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::plot::Plot;

/// Microseconds of virtual time.
pub type Micros = u64;

/// A millisecond.
pub const MS: Micros = 1_000;
/// A second.
pub const SECOND: Micros = 1_000_000;

/// What a seed decides before the run begins.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// What an acknowledged commit means.
    pub durability: Durability,
    /// How many standbys shall hold each acknowledged commit.
    pub acks: u32,
    /// Whether the empty sync set is refused.
    pub strict: bool,
    /// Which rules hold.
    pub rules: Rules,
    /// How long faults happen.
    pub faults_for: Micros,
    /// The mean time between two faults.
    pub fault_every: Micros,
    /// How long the cluster may take to heal afterwards.
    pub heal_within: Micros,
    /// A message between agents is lost with this chance.
    pub loss: f64,
    /// A request to the witness, or its answer, goes wrong with this chance.
    pub witness_trouble: f64,
    /// A witness request that goes wrong may land so late.
    pub late_landing: Micros,
    /// How long a flush takes at most.
    pub fsync: Micros,
    /// How long a process may take to notice a reload.
    pub reload_lag: Micros,
    /// How much the operator does, relative to faults.
    pub operator: f64,
    /// Failovers are ordered even if they lose data.
    pub reckless: bool,
    /// The run begins with two standbys in the sync set, of which one acknowledges, and without the
    /// leader's agent for a while.
    pub wide: bool,
    /// The first node's connections come and go, the one to the witness is cut soon.
    pub flaps: bool,
    /// Nothing goes wrong but that the witness answers nobody now and then.
    pub outages_only: bool,
    /// Nothing goes wrong but that the primary's PostgreSQL crashes now and then, while the others stream.
    pub crashes_only: bool,
    /// Nothing goes wrong but what somebody plots.
    pub plot: Option<Plot>,
    /// The priorities of the nodes.
    pub priorities: Vec<u32>,
    /// Whether the last of three nodes or more may lead.
    pub last_may_lead: bool,
    /// How old an observation of PostgreSQL may be when it is used again.
    pub observed_for: Micros,
    /// The mean time between two writes to a primary.
    pub write_every: Micros,
}

impl Scenario {
    /// The scenario of a seed, under the given rules.
    #[must_use]
    pub fn of(seed: u64, rules: Rules) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5ce_a410);
        let durability = if rng.random_bool(0.65) { Durability::Sync } else { Durability::Async };
        let wide = durability == Durability::Sync && rng.random_bool(0.25);
        let drawn = Self {
            seed,
            nodes: if !wide && rng.random_bool(0.4) { 2 } else { 3 },
            durability,
            acks: u32::from(durability.is_guarded()),
            wide,
            observed_for: if rng.random_bool(0.5) { 0 } else { rng.random_range(1..150) * MS },
            outages_only: !wide && rng.random_bool(0.05),
            priorities: (0..3).map(|_| rng.random_range(99..102)).collect(),
            last_may_lead: wide || rng.random_bool(0.85),
            flaps: wide && rng.random_bool(0.5),
            reckless: rng.random_bool(0.15),
            strict: durability == Durability::Sync && rng.random_bool(0.2),
            rules,
            faults_for: rng.random_range(15..35) * SECOND,
            fault_every: rng.random_range(400..4_000) * MS,
            heal_within: 60 * SECOND,
            loss: if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.15) },
            witness_trouble: if rng.random_bool(0.4) { 0.0 } else { rng.random_range(0.0..0.3) },
            late_landing: rng.random_range(500..8_000) * MS,
            fsync: if rng.random_bool(0.7) { 3 * MS } else { 80 * MS },
            reload_lag: if rng.random_bool(0.5) { 5 * MS } else { 900 * MS },
            operator: if rng.random_bool(0.4) { 0.0 } else { rng.random_range(0.0..0.5) },
            write_every: rng.random_range(15..60) * MS,
            crashes_only: false,
            plot: None,
        };
        let drawn = match durability {
            Durability::Async => drawn.maybe_crashes(),
            _ => drawn.maybe_quorum(),
        };
        drawn.maybe_plot()
    }

    /// In a few of the runs nothing happens but a plot.
    fn maybe_plot(mut self) -> Self {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x9_1074);
        if self.wide || self.outages_only || self.crashes_only || !rng.random_bool(0.1) {
            return self;
        }
        (self.loss, self.witness_trouble, self.operator) = (0.0, 0.0, 0.0);
        (self.reckless, self.last_may_lead) = (false, true);
        if rng.random_bool(0.4) {
            self.plot = Some(Plot::OldTale);
        } else {
            self.plot = Some(Plot::EarlyReturn);
            (self.durability, self.nodes, self.acks) = (Durability::Quorum, 3, 1);
        }
        self
    }

    /// In some of the runs in `async` nothing happens but crashes.
    fn maybe_crashes(mut self) -> Self {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xc4a5);
        if !self.outages_only && rng.random_bool(0.1) {
            self.crashes_only = true;
            (self.loss, self.witness_trouble, self.operator) = (0.0, 0.0, 0.0);
            (self.reckless, self.last_may_lead) = (false, true);
        }
        self
    }

    /// Some of the runs in `sync` become runs in `quorum`, of up to five nodes.
    fn maybe_quorum(mut self) -> Self {
        // Chance of its own, so that the others stay what they were.
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x9_0041);
        if rng.random_bool(0.5) {
            return self;
        }
        self.durability = Durability::Quorum;
        self.nodes = if rng.random_bool(0.15) { self.nodes } else { rng.random_range(3..=5) };
        self.priorities.extend((3..self.nodes).map(|_| rng.random_range(99..102)));
        let standbys = self.nodes - 1 - usize::from(self.nodes > 2 && !self.last_may_lead);
        self.acks = if standbys > 1 && rng.random_bool(0.4) { 2 } else { 1 };
        self
    }

    /// The name of the node with an index.
    #[must_use]
    pub fn name(index: usize) -> NodeName {
        NodeName::new(format!("n{}", index + 1)).expect("a letter and digits")
    }

    /// Whether a node may lead.
    #[must_use]
    pub fn may_lead(&self, index: usize) -> bool {
        index < 2 || index + 1 < self.nodes || self.last_may_lead
    }

    /// What the operator wants, the same on each node.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let members: BTreeMap<_, _> = (0..self.nodes)
            .map(|i| {
                let address = format!("10.0.0.{}:5432", i + 1);
                let policy = MemberPolicy { priority: self.priorities[i], failover: self.may_lead(i), address };
                (Self::name(i), policy)
            })
            .collect();
        Policy {
            cluster: "sim".into(),
            durability: self.durability,
            acks: self.acks,
            strict: self.strict,
            heartbeat: Duration::from_secs(1),
            ttl: Duration::from_secs(5),
            margin: Duration::from_millis(300),
            silent_after: Duration::from_secs(1),
            suspect_after: Duration::from_millis(2_500),
            lag_bytes_max: 256 << 10,
            members,
            rejoin_budget: Duration::from_secs(600),
            disk_free_min: 0,
            archive: false,
            failover_ip: false,
            rules: self.rules,
        }
    }
}
