//! Clusters of real PostgreSQL and real agents, hurt in the ways that machines and people hurt them.
//!
//! The program is not built by this: `cargo build -p pgdock-cli` first. Each test has addresses of its own.

#[path = "real/address.rs"]
mod address;
#[path = "real/adopt.rs"]
mod adopt;
#[path = "real/archive.rs"]
mod archive;
#[path = "real/backup_create.rs"]
mod backup_create;
#[path = "real/base_backup.rs"]
mod base_backup;
#[path = "real/bucket.rs"]
mod bucket;
#[path = "real/bundles.rs"]
mod bundles;
#[path = "real/cli.rs"]
mod cli;
#[path = "real/commits.rs"]
mod commits;
#[path = "real/common.rs"]
mod common;
#[path = "real/data_dir.rs"]
mod data_dir;
#[path = "real/identity.rs"]
mod identity;
#[path = "real/membership.rs"]
mod membership;
#[path = "real/outage.rs"]
mod outage;
#[path = "real/points_in_time.rs"]
mod points_in_time;
#[path = "real/registry.rs"]
mod registry;
#[path = "real/rejoin.rs"]
mod rejoin;
#[path = "real/slots.rs"]
mod slots;
#[path = "real/state.rs"]
mod state;
#[path = "real/switchover.rs"]
mod switchover;
#[path = "real/takeover.rs"]
mod takeover;
#[path = "real/witness.rs"]
mod witness;
#[path = "real/zombie.rs"]
mod zombie;
