//! Real PostgreSQL, real agents as processes, on loopback addresses.

pub(crate) mod bare;
mod cluster;
mod probe;
mod processes;
mod repmgr;
mod way;
mod writer;

pub use bare::{Bare, folder};
pub use cluster::{Options, RealCluster, available, healthy, program};
pub use probe::{Probe, Probed, overlaps};
pub use processes::until;
pub use repmgr::{Repmgr, repmgr_available};
pub use way::Way;
pub use writer::{Ack, Notices, Route, Writer, missing};
