//! Control of real PostgreSQL servers on loopback addresses.
//!
//! What cannot run for want of a server says so; with `PGDOCK_REAL=required` that is a failure.

mod follow;
mod lifecycle;
mod names;
mod rejoin;
mod support;
