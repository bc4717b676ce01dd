//! Backups and the archive of WAL: what lies in a [`BackupSink`](crate::BackupSink), and how it is written and read.
//!
//! ```text
//! base/<label>/begun             who began a backup, and when        written first
//! base/<label>/data/<n>          packs: the content of many files
//! base/<label>/index/<n>         which file lies where in which pack
//! base/<label>/manifest          what the backup is                  written last: without it there is no backup
//! wal/<system>/<timeline>/<name> the archive of WAL
//! verified/<label>/<time>        what a verification found
//! ```
//!
//! Every object is immutable and has one format ([`frame`]): content in compressed frames, sealed where the archive is
//! encrypted, and digests at its end, by which each flipped bit and each truncation is found. [`layout`] knows the names.

pub mod base;
pub mod catalog;
pub mod cipher;
pub mod digest;
pub mod expire;
pub mod frame;
pub mod index;
pub mod label;
pub mod layout;
pub mod manifest;
pub mod object;
mod open;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod verify;
pub mod wal;

pub use catalog::Catalog;
pub use cipher::Cipher;
pub use digest::Digest;
pub use frame::{Codec, Decoder, Encoded, Encoder};
pub use label::Label;
pub use layout::Name;
pub use manifest::Manifest;
pub use object::Stored;
pub use open::Repository;
pub use schedule::Schedule;
