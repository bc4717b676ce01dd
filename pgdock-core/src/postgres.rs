//! What pgdock knows of PostgreSQL: its types, files, commands and processes.

pub mod command;
pub mod conf_file;
pub(crate) mod conf_grammar;
pub mod conninfo;
pub mod control_data;
pub mod diverged;
pub mod instance;
mod limits;
pub mod lsn;
pub mod os_user;
pub mod process;
pub(crate) mod reserved;
pub mod session;
pub mod timeline;
pub(crate) mod trial;
pub mod version;
pub mod wal_aside;
pub mod wal_changes;
pub mod wal_tail;

pub use instance::{Instance, InstanceConfig, Secrets};
