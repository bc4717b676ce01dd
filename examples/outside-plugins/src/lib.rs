//! Plugins that pgdock knows nothing of: how to move an address, how to reach a node.
//!
//! Each implements a trait of `pgdock-core` and passes the suite that pgdock's own implementations pass; see
//! `tests/conformance.rs`. An agent gets such an address by `Agent::builder(…).failover_ip(ZoneFile::new(…))`.

mod gently;
mod zone_file;

pub use gently::Gently;
pub use zone_file::ZoneFile;
