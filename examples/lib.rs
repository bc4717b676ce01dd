//! The examples of pgdock: see `own_failover_ip.rs` and `embed_status.rs` beside this file.
