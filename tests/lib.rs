//! What the tests and benchmarks of pgdock share: a real cluster on loopback addresses with a client that
//! remembers what was acknowledged, and a simulator.

pub mod real;
pub mod simulation;
