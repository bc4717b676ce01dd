//! Every implementation of a plug point, run through the suite of its trait.

#[path = "conformance/backup_sink.rs"]
mod backup_sink;
#[path = "conformance/executor.rs"]
mod executor;
#[path = "conformance/failover_ip.rs"]
mod failover_ip;
#[path = "conformance/witness.rs"]
mod witness;
