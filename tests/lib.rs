//! What the tests and benchmarks of pgdock share: a real cluster on loopback addresses with a client that
//! remembers what was acknowledged, a campaign of real faults against such clusters, stores for witnesses, and a
//! simulator.

pub mod docker;
pub mod faults;
pub mod real;
pub mod signals;
pub mod simulation;
pub mod ssh;
pub mod stores;
