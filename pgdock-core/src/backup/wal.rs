//! The archive of WAL: what brings it there, and what gives it back.
//!
//! ```text
//!            leader                          sink                        standby
//!  pg_wal ──▶ archiver ── put if absent ──▶ wal/… ◀── is it there? ── archiver ◀── pg_wal
//!                                            │
//!                    fetch ◀─────────────────┘  for recoveries
//! ```
//!
//! PostgreSQL runs with `archive_mode = always`, so that standbys ask as well whether they may give WAL up. They may once it
//! is in the archive, and not before: whoever takes over then still has what the old leader had not archived ([`duty`]).

pub mod archiver;
pub mod client;
mod duty;
pub mod fetch;
mod file;
pub mod gaps;
mod ready;
pub mod socket;
mod store;

pub use archiver::{ArchiveStatus, Archiver, Situation};
pub use duty::{Duty, Standing, duty};
pub use fetch::Fetcher;
pub use file::{Segment, WalFile};
pub use ready::{Ready, ready};
pub use store::WalStore;
