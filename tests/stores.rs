//! Stores that witnesses are tried on.

pub mod bucket;
pub mod etcd;
pub mod postgres;

pub use bucket::TestBucket;
pub use etcd::TestEtcd;
pub use postgres::TestPostgres;

/// Says that a test cannot run here; with `PGDOCK_REAL=required` that is a failure.
pub(crate) fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var("PGDOCK_REAL").as_deref() != Ok("required"), "cannot test on real parts: {why}");
    eprintln!("skipped: {why}");
    None
}
