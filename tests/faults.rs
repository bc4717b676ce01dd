//! A campaign of real faults against real PostgreSQL and real agents, each node in a network of its own.
//!
//! ```text
//!   seed ──▶ Plan: faults, drawn ──▶ inflicted on ──▶ nodes in network namespaces, a witness in another
//!                                                       ▲                 ▲
//!              clients of every node, clients ──────────┴─────────────────┘
//!              inside of each namespace that write to that node alone,
//!              and tasks behind the router of pgdock-makara
//!                       │ sent, acknowledged, unknown
//!                       ▼
//!                   History ──▶ Verdict: nothing lost, one primary at a time, one history in the end
//!                       └─────▶ a picture, for a person
//! ```
//!
//! All of it runs in an [enclosure]: namespaces of networks, mounts and processes that end with the test,
//! whatever ends it. So nothing is left behind, and nothing outside is touched.

pub mod campaign;
pub mod client;
pub mod enclosure;
pub mod fault;
pub mod history;
mod hook;
mod hurt;
mod lab;
pub mod picture;
pub mod plan;
pub mod routed;
pub mod scenario;
mod setup;
pub mod store;
pub mod verdict;

pub use campaign::Campaign;
pub use fault::Fault;
pub use history::History;
pub use lab::{Block, How, Lab, WITNESS};
pub use plan::{Mode, Plan};
pub use scenario::Scenario;
pub use setup::{Setup, Special};
pub use verdict::Verdict;
