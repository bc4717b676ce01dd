//! Real PostgreSQL, real agents as processes, on loopback addresses.

mod bare;
mod cluster;
mod probe;
mod processes;
mod writer;

pub use bare::Bare;
pub use cluster::{Options, RealCluster, available, healthy, program};
pub use probe::{Probe, Probed, overlaps};
pub use processes::until;
pub use writer::{Ack, Route, Writer, missing};
