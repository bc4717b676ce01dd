//! [`Fault`]: what is done to a cluster, as it is drawn. Whom it hits is only known when it begins: the
//! node that is primary then, or one that is not.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::lab::How;
use super::setup::Setup;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The node that leads.
    Primary,
    /// One that does not: the first or the second of them, by name.
    Standby(usize),
}

/// What is killed, or stopped for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The postmaster when it is killed; all of PostgreSQL when it is stopped.
    Postgres,
    /// The agent.
    Agent,
    /// Agent and postmaster.
    Both,
    /// Every process of the node, the deadman too.
    Machine,
}

/// What a node does not hear any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// One other node.
    Node,
    /// All other nodes.
    Peers,
    /// The witness.
    Witness,
    /// All other nodes and the witness; clients reach it.
    Cluster,
    /// Everybody, clients too.
    Everybody,
}

/// In which direction nothing gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In both.
    Both,
    /// To the node.
    In,
    /// From the node.
    Out,
}

/// What the witness does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It takes requests and answers none.
    Hangs,
    /// It refuses connections.
    Refuses,
    /// Nothing is heard of it.
    Vanishes,
    /// It answers late.
    Slow,
    /// It wants fewer requests, and carries out few. Only where it is in a bucket.
    Overloaded,
    /// It does what it is asked to, and answers are lost. Only where it is in a bucket.
    LosesAnswers,
}

impl Trouble {
    /// What a file does.
    const OF_FILE: [Self; 4] = [Self::Hangs, Self::Refuses, Self::Vanishes, Self::Slow];
    /// What a bucket does.
    const OF_BUCKET: [Self; 6] =
        [Self::Hangs, Self::Refuses, Self::Vanishes, Self::Slow, Self::Overloaded, Self::LosesAnswers];
}

/// What is under way when somebody is shot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// A standby is promoted; it is shot.
    Promotion,
    /// A planned switchover; the old primary is shot while it stops.
    Switchover,
    /// A switchover; the heir is shot as soon as it is promoted.
    Answer,
    /// An old primary is rewound; it is shot.
    Rewind,
    /// A standby is copied anew; it is shot.
    Copy,
    /// A standby is copied anew; the primary is shot.
    CopySource,
}

/// What is done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`; what was killed is started again after a while, where it does not start by itself.
    Kill {
        /// On which node.
        whom: Whom,
        /// What.
        part: Part,
        /// How long until an agent is started again.
        down: Duration,
    },
    /// `SIGSTOP`, and `SIGCONT` after a while.
    Stop {
        /// On which node.
        whom: Whom,
        /// What.
        part: Part,
        /// For how long.
        time: Duration,
    },
    /// The network is cut.
    Cut {
        /// Which node.
        whom: Whom,
        /// Off from whom.
        from: From,
        /// In which direction.
        way: Way,
        /// How.
        how: How,
        /// For how long.
        time: Duration,
    },
    /// The witness is in trouble.
    Witness {
        /// What it does.
        trouble: Trouble,
        /// For how long.
        time: Duration,
    },
    /// A node's calendar clock jumps.
    Clock {
        /// Which node's.
        whom: Whom,
        /// By so many hours.
        hours: i8,
        /// And jumps back after this time.
        time: Duration,
    },
    /// A node's disk is full.
    DiskFull {
        /// Which node's.
        whom: Whom,
        /// For how long.
        time: Duration,
    },
    /// Somebody is killed in the midst of something.
    Shot {
        /// Of what.
        during: During,
        /// What of him.
        part: Part,
        /// How long after it began.
        delay: Duration,
    },
    /// Nothing bad: the lead is handed over on purpose.
    Switchover,
}

/// How often which kind of fault is drawn.
const WEIGHTS: [(Kind, u32); 15] = [
    (Kind::KillPostgres, 5),
    (Kind::KillAgent, 3),
    (Kind::KillBoth, 5),
    (Kind::KillMachine, 5),
    (Kind::StopAgent, 4),
    (Kind::StopPostgres, 4),
    (Kind::StopMachine, 6),
    (Kind::CutNode, 8),
    (Kind::CutFromWitness, 5),
    (Kind::CutOff, 6),
    (Kind::Witness, 6),
    (Kind::Clock, 3),
    (Kind::DiskFull, 4),
    (Kind::Shot, 14),
    (Kind::Switchover, 7),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KillPostgres,
    KillAgent,
    KillBoth,
    KillMachine,
    StopAgent,
    StopPostgres,
    StopMachine,
    CutNode,
    CutFromWitness,
    CutOff,
    Witness,
    Clock,
    DiskFull,
    Shot,
    Switchover,
}

impl Fault {
    /// Draws one.
    #[must_use]
    pub fn draw(rng: &mut StdRng, setup: Setup) -> Self {
        let all: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.random_range(0..all);
        let kind = WEIGHTS.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        // Everything is drawn for every kind, so that a change of one kind leaves the other draws as they are.
        let whom = if rng.random_bool(0.7) { Whom::Primary } else { Whom::Standby(rng.random_range(0..2)) };
        let time = span(rng, setup.ttl());
        let down = span(rng, setup.ttl());
        let how = if rng.random_bool(0.7) { How::Drop } else { How::Reset };
        let way = *pick(rng, &[Way::Both, Way::Both, Way::In, Way::Out]);
        let part = *pick(rng, &[Part::Postgres, Part::Agent, Part::Both, Part::Machine]);
        let delay = Duration::from_millis(rng.random_range(0..400));
        let off = *pick(rng, &[From::Cluster, From::Everybody]);
        let near = *pick(rng, &[From::Node, From::Peers]);
        let trouble = *pick(rng, if setup.in_bucket() { &Trouble::OF_BUCKET[..] } else { &Trouble::OF_FILE });
        let hours = *pick(rng, &[-1, 1]);
        let during = *pick(
            rng,
            &[
                During::Promotion,
                During::Promotion,
                During::Switchover,
                During::Answer,
                During::Rewind,
                During::Rewind,
                During::Copy,
                During::CopySource,
            ],
        );
        match kind.map_or(Kind::Switchover, |(kind, _)| *kind) {
            Kind::KillPostgres => Self::Kill { whom, part: Part::Postgres, down },
            Kind::KillAgent => Self::Kill { whom, part: Part::Agent, down },
            Kind::KillBoth => Self::Kill { whom, part: Part::Both, down },
            Kind::KillMachine => Self::Kill { whom, part: Part::Machine, down },
            Kind::StopAgent => Self::Stop { whom, part: Part::Agent, time },
            Kind::StopPostgres => Self::Stop { whom, part: Part::Postgres, time },
            Kind::StopMachine => Self::Stop { whom, part: Part::Machine, time },
            Kind::CutNode => Self::Cut { whom, from: near, way, how, time },
            Kind::CutFromWitness => Self::Cut { whom, from: From::Witness, way, how, time },
            Kind::CutOff => Self::Cut { whom, from: off, way, how, time },
            Kind::Witness => Self::Witness { trouble, time },
            Kind::Clock => Self::Clock { whom, hours, time },
            Kind::DiskFull => Self::DiskFull { whom, time },
            Kind::Shot => Self::Shot { during, part, delay },
            Kind::Switchover => Self::Switchover,
        }
    }
}

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// How long something lasts: a moment, about a right, or longer than any right.
fn span(rng: &mut StdRng, ttl: Duration) -> Duration {
    let factor = match rng.random_range(0..10) {
        0..3 => rng.random_range(0.05..0.5),
        3..5 => rng.random_range(0.5..1.2),
        _ => rng.random_range(1.3..2.5),
    };
    ttl.mul_f64(factor)
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Standby(i) => write!(f, "standby {}", i + 1),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Agent => "agent",
            Self::Both => "agent and PostgreSQL",
            Self::Machine => "machine",
        })
    }
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promotion => "promotion",
            Self::Switchover => "switchover",
            Self::Answer => "switchover, the heir",
            Self::Rewind => "rewind",
            Self::Copy => "copy",
            Self::CopySource => "copy, its source",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangs => "hangs",
            Self::Refuses => "refuses",
            Self::Vanishes => "vanishes",
            Self::Slow => "is slow",
            Self::Overloaded => "is overloaded",
            Self::LosesAnswers => "loses answers",
        })
    }
}

/// Without whom it hits: that is told beside it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { part, .. } => write!(f, "kill -9 {part}"),
            Self::Stop { part, .. } => write!(f, "{part} stopped"),
            Self::Cut { from, way, how, .. } => {
                let from = match from {
                    From::Node => "one node",
                    From::Peers => "the other nodes",
                    From::Witness => "witness",
                    From::Cluster => "nodes and witness",
                    From::Everybody => "everybody",
                };
                let way = match way {
                    Way::Both => "",
                    Way::In => ", incoming",
                    Way::Out => ", outgoing",
                };
                let how = if *how == How::Reset { ", reset" } else { "" };
                write!(f, "cut off from {from}{way}{how}")
            }
            Self::Witness { trouble, .. } => write!(f, "witness {trouble}"),
            Self::Clock { hours, .. } => write!(f, "clock {hours:+} h"),
            Self::DiskFull { .. } => f.write_str("disk full"),
            Self::Shot { during, part, .. } => write!(f, "{part} shot in {during}"),
            Self::Switchover => f.write_str("switchover"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_kind_is_drawn_and_a_seed_always_draws_the_same() {
        let draw = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..2000).map(|_| Fault::draw(&mut rng, Setup::TwoInSync)).collect::<Vec<_>>()
        };
        let drawn = draw(1);
        assert_eq!(drawn, draw(1));
        assert_ne!(drawn, draw(2));
        let mut texts: Vec<_> = drawn.iter().map(ToString::to_string).collect();
        texts.sort();
        texts.dedup();
        for wanted in [
            "kill -9 machine",
            "machine stopped",
            "cut off from witness, incoming, reset",
            "witness is slow",
            "clock -1 h",
            "disk full",
            "agent shot in rewind",
            "PostgreSQL shot in copy, its source",
            "switchover",
        ] {
            assert!(texts.iter().any(|text| text == wanted), "never drawn: {wanted}");
        }
        for (setup, is) in [(Setup::TwoInSync, true), (Setup::ThreeInSync, false)] {
            let mut rng = StdRng::seed_from_u64(1);
            let mut drawn = (0..2000).map(|_| Fault::draw(&mut rng, setup).to_string());
            assert_eq!(drawn.any(|text| text == "witness loses answers"), is, "{setup}: a file has no server");
        }
    }
}
