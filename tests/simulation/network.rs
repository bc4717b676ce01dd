//! [`Network`]: which messages pass, and how long they take.

use rand::Rng;
use rand::rngs::StdRng;

use super::scenario::{MS, Micros};

/// Two nodes have two kinds of connections, and both reach the witness by a third: each direction of each
/// may be cut.
#[derive(Debug)]
pub struct Network {
    agents: Vec<Vec<bool>>,
    postgres: Vec<Vec<bool>>,
    witness: Vec<bool>,
    /// Whether everything is slow at present.
    pub slow: bool,
}

impl Network {
    /// A network without faults.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let whole = vec![vec![true; nodes]; nodes];
        Self { agents: whole.clone(), postgres: whole, witness: vec![true; nodes], slow: false }
    }

    /// Opens or cuts one direction between two nodes, for agents, for PostgreSQL, or for both.
    pub fn set(&mut self, from: usize, to: usize, open: bool, agents: bool, postgres: bool) {
        if agents {
            self.agents[from][to] = open;
        }
        if postgres {
            self.postgres[from][to] = open;
        }
    }

    /// Opens or cuts a node's way to the witness.
    pub fn set_witness(&mut self, node: usize, open: bool) {
        self.witness[node] = open;
    }

    /// Opens everything.
    pub fn heal(&mut self) {
        *self = Self::new(self.witness.len());
    }

    /// Whether agents' messages pass.
    #[must_use]
    pub fn agents(&self, from: usize, to: usize) -> bool {
        self.agents[from][to]
    }

    /// Whether replication passes.
    #[must_use]
    pub fn postgres(&self, from: usize, to: usize) -> bool {
        self.postgres[from][to]
    }

    /// Whether the witness can be reached.
    #[must_use]
    pub fn witness(&self, node: usize) -> bool {
        self.witness[node]
    }

    /// How long a message takes.
    pub fn delay(&self, rng: &mut StdRng) -> Micros {
        let base = rng.random_range(200..2_000);
        let tail = if rng.random_bool(0.01) { rng.random_range(10 * MS..150 * MS) } else { 0 };
        base + tail + if self.slow { rng.random_range(20 * MS..300 * MS) } else { 0 }
    }
}
