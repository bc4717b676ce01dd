//! An exhaustive check of the rules by which pgdock fails over: every order of events in a small world, where
//! the simulator draws some orders in a large one.
//!
//! Each world has bounds, which [`checks`](check::checks) names, and within them every reachable state is
//! visited. Under all rules no property may break; without any of them one must, and the shortest way to
//! break it is printed. What is checked, and what is not, stands in `docs/ha/model.md`.

mod attempt;
pub mod check;
pub mod cluster;
pub mod explore;
mod fast_hash;
mod few;
mod known;
mod record;
pub mod sets;
pub mod timed;
