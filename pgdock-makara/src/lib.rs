#![doc = include_str!("../README.md")]

mod balance;
mod blacklist;
mod clock;
mod context;
mod router;
mod settings;
mod statement;

pub use balance::Balancer;
pub use blacklist::{Ban, BanPolicy, Blacklist};
pub use context::Context;
pub use router::{Error, Limits, Params, Role, Router, RouterBuilder, Session, Topology};
pub use settings::{ConnectionSettings, MakaraSettings, NodeRole, SettingsError, Strategy};
pub use statement::{Classifier, Decision, PinTo, Reason, Target, classify};
