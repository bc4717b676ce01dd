// What clippy.toml forbids the library, its tests may do.
#![cfg_attr(test, allow(clippy::disallowed_methods))]
//! A highly available PostgreSQL on your own servers, as a library.
//!
//! [`Cluster`] is the handle that an application or an operator's tool holds;
//! `Agent` runs on each node. Every plug point is a trait with its contract on it:
//! [`Executor`], [`FailoverIp`], [`BackupSink`], [`Witness`], [`Clock`]. Beside each trait lie its
//! implementations, a `faulty` one that loses answers by a seed, and, behind the feature `conformance`, the
//! suite that every implementation passes, also a user's own.
//!
//! The agent repeats **observe → view → decide → act**. `view` is plain data, `decide` is a pure
//! function of it: the same code runs in the agent, in the simulator and in the model checker.

pub mod adopt;
pub mod agent;
pub mod backup;
pub mod backup_sink;
#[cfg(feature = "bucket")]
pub mod bucket;
pub mod bundle;
pub mod clock;
pub mod cluster;
pub mod decide;
#[cfg(feature = "docker")]
pub mod deploy;
mod dice;
mod durable;
pub mod error;
pub mod event;
pub mod executor;
pub mod export;
pub mod failover_ip;
mod fnv;
pub mod node;
pub mod postgres;
pub mod report;
pub mod role;
pub mod scaffold;
pub mod secrets;
pub mod settings;
mod store_url;
pub mod term;
pub mod view;
pub mod witness;

pub use backup_sink::BackupSink;
pub use clock::Clock;
pub use cluster::Cluster;
pub use error::{Error, ErrorKind, Result};
pub use executor::Executor;
pub use export::Export;
pub use failover_ip::FailoverIp;
pub use node::NodeName;
pub use postgres::lsn::Lsn;
pub use postgres::timeline::{History, TimelineId};
pub use role::Role;
pub use settings::Settings;
pub use term::Term;
pub use witness::Witness;
