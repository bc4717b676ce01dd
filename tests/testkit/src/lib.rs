//! Parts that tests need and that no package of a system brings: an S3 server that honours conditions, and
//! that fails on demand; the keepers of failover addresses.

pub mod control;
pub mod faults;
pub mod keeper;
pub mod server;
mod spoilt;
mod store;

pub use control::Control;
pub use faults::{Answers, Conditions, Faults, Outage, Scope};
pub use server::{Keys, S3Server};
