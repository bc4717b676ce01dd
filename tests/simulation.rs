//! A seeded simulator: the `View` and `decide` of production in a world that is made of chance.
//!
//! ```text
//!   seed ──► scenario ──► world ──► events in virtual time ──► invariants after each of them
//!                           ├─ node       the driver: observe → view → decide → act
//!                           ├─ postgres   model PostgreSQL: WAL as records, names, promotion, rewind
//!                           ├─ replication  streams between PostgreSQLs
//!                           ├─ witness    the document: compare-and-swap, lost and late answers
//!                           ├─ network    delays, losses, partitions of one or both directions
//!                           └─ actor      faults, operators, clients
//! ```
//!
//! A run has two phases: faults happen while the invariants are watched; then all faults stop, and the
//! cluster must heal. The same seed gives the same run, so that a failure prints the line that replays it.

pub mod actor;
pub mod invariants;
pub mod job;
pub mod network;
pub mod node;
pub mod observe;
pub mod plot;
pub mod postgres;
pub mod rejoin;
pub mod replication;
pub mod scenario;
pub mod trace;
pub mod witness;
pub mod world;

pub use invariants::Violation;
pub use scenario::Scenario;
pub use world::{Outcome, World};

/// Runs one seed to its end, or to the first violation.
#[must_use]
pub fn run(scenario: Scenario, verbose: bool) -> Outcome {
    World::new(scenario, verbose).run()
}
