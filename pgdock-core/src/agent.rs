//! What runs on each node.

pub mod api;
mod archive;
mod backup;
pub mod client;
mod configuration;
pub mod deadman;
mod dial;
mod driver;
mod hands;
pub mod home;
mod lock;
mod notices;
pub mod peers;
mod policy;
mod publish;
mod start;
mod state;
pub mod tls;

pub(crate) use backup::best;
pub use backup::{BackupEnded, BackupRunning, BackupStatus, Backups, BackupsKept};
pub use configuration::Applied;
pub use driver::Ended;
pub use policy::policy;
pub use start::{Agent, AgentBuilder, host_port};
