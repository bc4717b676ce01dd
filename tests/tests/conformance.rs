//! Every implementation of a plug point, run through the suite of its trait.

#[path = "conformance/backup_sink.rs"]
mod backup_sink;
#[path = "conformance/backup_sink_bucket.rs"]
mod backup_sink_bucket;
#[path = "conformance/executor.rs"]
mod executor;
#[path = "conformance/executor_docker.rs"]
mod executor_docker;
#[path = "conformance/executor_ssh.rs"]
mod executor_ssh;
#[path = "conformance/failover_ip.rs"]
mod failover_ip;
#[path = "conformance/failover_ip_keepers.rs"]
mod failover_ip_keepers;
#[path = "conformance/failover_ip_linux.rs"]
mod failover_ip_linux;
#[path = "conformance/machine.rs"]
mod machine;
#[path = "conformance/witness.rs"]
mod witness;
#[path = "conformance/witness_bucket.rs"]
mod witness_bucket;
#[path = "conformance/witness_etcd.rs"]
mod witness_etcd;
#[path = "conformance/witness_postgres.rs"]
mod witness_postgres;
