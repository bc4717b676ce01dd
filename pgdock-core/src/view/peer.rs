//! [`Peer`]: what a node knows of another one.

use std::time::Duration;

use crate::clock::Moment;
use crate::report::Report;
use crate::view::Had;

/// What a node knows of another one.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The last report received.
    pub report: Option<Report>,
    /// When it was received.
    pub heard_at: Option<Moment>,
    /// When its host last answered that nobody listens there (a reset, and a refusal after it).
    pub refused_at: Option<Moment>,
    /// What it has promised to this node.
    pub promised: Option<Had>,
}

/// How the connection to a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It was heard of lately.
    Up,
    /// Its host says that nobody listens: the agent is dead, the host is not.
    Refused,
    /// Nothing is heard: host, network or agent may be at fault. Silence is not death.
    Silent,
}

impl Peer {
    /// How the connection stands.
    #[must_use]
    pub fn link(&self, now: Moment, silent_after: Duration) -> Link {
        match (self.heard_at, self.refused_at) {
            (heard, Some(refused)) if heard.is_none_or(|h| refused >= h) => Link::Refused,
            (Some(heard), _) if now.since(heard) < silent_after => Link::Up,
            _ => Link::Silent,
        }
    }

    /// How long it was not heard.
    #[must_use]
    pub fn silence(&self, now: Moment) -> Duration {
        self.heard_at.map_or(Duration::MAX, |h| now.since(h))
    }
}
