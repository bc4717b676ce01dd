#![doc = include_str!("../README.md")]

mod balance;
mod blacklist;
mod clock;
mod context;
mod router;
mod settings;
mod statement;
#[cfg(feature = "tower")]
mod web;

pub use balance::Balancer;
pub use blacklist::{Ban, BanPolicy, Blacklist};
pub use context::Context;
#[cfg(feature = "agents")]
pub use router::Agents;
pub use router::{
    Client, CommitToken, CopyIn, CopyOut, DecisionCount, Error, Heard, Limits, Memory, NodeCounts, NodeState,
    Notifications, Params, Reads, Role, Router, RouterBuilder, RowStream, Session, Sql, Statement, Stats, Sticky,
    Streaming, TokenError, Topology, Transaction, TransactionBuilder, on_primary, without_sticking,
};
pub use settings::{ConnectionSettings, MakaraSettings, NodeRole, SettingsError, Strategy};
pub use statement::{Classifier, Decision, PinTo, Reason, Target, classify};
#[cfg(feature = "tower")]
pub use web::{HEADER, Key, KeyError, SessionFuture, SessionLayer, SessionService};
