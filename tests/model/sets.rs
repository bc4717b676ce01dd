//! R0, R4 and R5 by themselves: a leader that takes *any* step that the rules allow, whatever D and a.
//!
//! `decide` takes one of these steps at a time, and only towards the set that it aims at. Here the leader
//! wanders: it sets whatever names the guard permits, and swaps the document to whatever set is behind a
//! barrier, so that the rules are checked for every way to use them, quorum sets among them. What the rules
//! are is asked of production: [`guards`] and [`Record::pledges_needed`].
//!
//! ```text
//!   n1, the leader: commits, acknowledges by k of G, changes names (each process notices by itself), swaps
//!   n2, n3 …: stream, read, pledge and detach, attach again, swap the lead to themselves, are promoted
//!   the witness: a swap lands while its version stands, at any time after it was sent, or never;
//!                what became of it its author learns by reading, and by nothing else
//! ```
//!
//! Every reading, landing and loss may happen at any time. There is no clock: nothing here rests on one.
//! The world ends with the first other leader; [`cluster`](crate::cluster) goes on.

use std::collections::BTreeSet;

use pgdock_core::NodeName;
use pgdock_core::decide::sync_step::guards;
use pgdock_core::node::{Incarnation, Member};
use pgdock_core::view::Names as CoreNames;
use pgdock_core::witness::Record;
use stateright::{Model, Property};

use crate::explore::{Move, Tells, Told};
use crate::record::blank;

/// A set of standbys: bit i is the i-th of them.
type Set = u8;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Standbys beside the leader, at most three.
    pub standbys: usize,
    /// Commits that the leader makes at most.
    pub commits: u8,
    /// Changes of the document at most.
    pub versions: u8,
}

/// A rule that is dropped, to see that its loss is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// R5: names guard the document.
    NamesGuard,
    /// R5: the document counts only on what names guard.
    DocumentGuard,
    /// R0: names stay while a swap is open.
    NamesWaitForSwap,
    /// R5: the members of a new set have flushed past a barrier.
    Barrier,
    /// R5: a barrier is taken once every process uses the new names.
    BarrierAfterReload,
    /// R4: a pledged standby stays detached until a newer version names the old leader.
    StayDetached,
    /// R4: |D| − a + 1 members are heard.
    Pledges,
    /// R4: a pledge is for the version that is swapped.
    PledgeOfVersion,
    /// R4: who pledges has detached.
    Detach,
    /// R4: the most advanced of those that pledged takes over.
    MostAdvanced,
    /// R0: an unanswered swap is open until a newer version settles it.
    Settle,
}

/// All of them.
pub const MUTATIONS: [Dropped; 11] = [
    Dropped::NamesGuard,
    Dropped::DocumentGuard,
    Dropped::NamesWaitForSwap,
    Dropped::Barrier,
    Dropped::BarrierAfterReload,
    Dropped::StayDetached,
    Dropped::Pledges,
    Dropped::PledgeOfVersion,
    Dropped::Detach,
    Dropped::MostAdvanced,
    Dropped::Settle,
];

/// k of G, as PostgreSQL has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    g: Set,
    k: u8,
}

/// The document: who leads, and a of D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Doc {
    version: u8,
    /// 0 is the leader of the beginning.
    leader: u8,
    d: Set,
    a: u8,
}

/// A swap that was sent, and may land while the version that it expects stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Swap {
    author: u8,
    /// Its author has forgotten it.
    ghost: bool,
    next: Doc,
}

/// All that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    doc: Doc,
    names: Names,
    /// The names before, while some process still uses them.
    names_before: Option<Names>,
    /// How many commits each node holds.
    wal: [u8; 4],
    /// How many of them were acknowledged.
    acked: u8,
    /// Who streams.
    attached: Set,
    /// For which version each standby has pledged.
    pledge: [Option<u8>; 3],
    /// What was sent and may land, or whose author does not know better; in order.
    swaps: Vec<Swap>,
    /// The version that each node has read last.
    read: [u8; 4],
    /// Whether what it read names the old leader.
    read_old: [bool; 3],
    /// The old leader has read of another, and acknowledges no more.
    fenced: bool,
    /// The new leader, and what it held when it was promoted.
    won: Option<(u8, u8)>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The leader makes a commit.
    Commit(u8),
    /// And tells a client that it is safe.
    Acknowledge(u8),
    /// A standby receives and flushes all.
    Flush(u8),
    /// A node reads the document.
    Read(u8, u8),
    /// The leader reads that it is deposed.
    Fence,
    /// The leader changes names.
    SetNames(Names),
    /// The last of its processes has noticed.
    Reloaded,
    /// The leader sends a swap.
    SwapSet(Doc),
    /// A standby pledges, detached.
    Pledge(u8, u8),
    /// A standby attaches again.
    Attach(u8),
    /// A standby sends a swap that makes it leader.
    SwapLead(u8, Doc),
    /// A swap lands.
    Lands(u8, u8),
    /// An author takes its swap for lost.
    TakenForLost(u8),
    /// A standby that leads is promoted.
    Promote(u8),
}

/// The model.
#[derive(Clone, Debug)]
pub struct Sets {
    bounds: Bounds,
    dropped: Option<Dropped>,
    /// What production says of names and document: `guards[g][k][d][a]`.
    guards: Vec<bool>,
    /// And how many pledges a takeover needs: `needed[d][a]`.
    needed: Vec<u8>,
}

fn size(set: Set) -> u8 {
    u8::try_from(set.count_ones()).unwrap_or(u8::MAX)
}

fn name(node: u8) -> String {
    format!("n{}", node + 1)
}

/// The standbys of a set, as numbers of nodes.
fn nodes(set: Set) -> impl Iterator<Item = u8> {
    (0..3).filter(move |i| set & (1 << i) != 0).map(|i| i + 1)
}

fn bit(node: u8) -> Set {
    1 << (node - 1)
}

fn written(set: Set) -> String {
    format!("{{{}}}", nodes(set).map(name).collect::<Vec<_>>().join(", "))
}

/// The same set for production.
fn members(set: Set) -> BTreeSet<Member> {
    let node = |n| NodeName::new(name(n)).expect("a letter and a digit");
    nodes(set).map(|n| Member { node: node(n), incarnation: Incarnation(u32::from(n)) }).collect()
}

fn index(g: Set, k: u8, d: Set, a: u8) -> usize {
    ((usize::from(g) * 4 + usize::from(k)) * 8 + usize::from(d)) * 4 + usize::from(a)
}

impl Sets {
    /// The model within some bounds, under all rules but one.
    #[must_use]
    pub fn new(bounds: Bounds, dropped: Option<Dropped>) -> Self {
        let mut guarded = vec![false; index(7, 3, 7, 3) + 1];
        let mut needed = vec![0; 32];
        for d in 0..8u8 {
            for a in 0..4 {
                let record = Record { sync_set: members(d), acks: u32::from(a), ..blank() };
                needed[usize::from(d) * 4 + usize::from(a)] = u8::try_from(record.pledges_needed()).unwrap_or(u8::MAX);
                for g in 0..8u8 {
                    for k in 0..4 {
                        let names = CoreNames { members: members(g), count: u32::from(k) };
                        guarded[index(g, k, d, a)] = guards(&names, &members(d), u32::from(a));
                    }
                }
            }
        }
        Self { bounds, dropped, guards: guarded, needed }
    }

    fn dropped(&self, rule: Dropped) -> bool {
        self.dropped == Some(rule)
    }

    fn guards(&self, names: Names, d: Set, a: u8) -> bool {
        self.guards[index(names.g, names.k, d, a)]
    }

    fn needed(&self, d: Set, a: u8) -> u8 {
        self.needed[usize::from(d) * 4 + usize::from(a)]
    }

    fn subsets(&self) -> impl Iterator<Item = Set> + use<> {
        0..1u8 << self.bounds.standbys
    }

    /// What the old leader does, or is about to do.
    fn leader(&self, s: &State, out: &mut Vec<Move<Step, State>>) {
        let mut step = |step, to| out.push(Move { step, to });
        if s.wal[0] < self.bounds.commits {
            let mut t = s.clone();
            t.wal[0] += 1;
            step(Step::Commit(t.wal[0]), t);
        }
        for commit in s.acked + 1..=s.wal[0] {
            let holders = |names: Names| nodes(names.g).filter(|n| s.wal[usize::from(*n)] >= commit).count();
            let enough = |names: Names| holders(names) >= usize::from(names.k);
            // Whichever of its processes lets it go, by the names that it knows.
            if enough(s.names) || s.names_before.is_some_and(enough) {
                step(Step::Acknowledge(commit), State { acked: commit, ..s.clone() });
            }
        }
        for n in nodes(s.attached) {
            if s.wal[usize::from(n)] < s.wal[0] {
                let mut t = s.clone();
                t.wal[usize::from(n)] = s.wal[0];
                step(Step::Flush(n), t);
            }
        }
        if s.names_before.is_some() {
            step(Step::Reloaded, State { names_before: None, ..s.clone() });
        }
        if s.read[0] != s.doc.version {
            let mut t = s.clone();
            t.swaps.retain(|w| w.author != 0 || w.ghost);
            t.read[0] = s.doc.version;
            if s.doc.leader == 0 {
                step(Step::Read(0, s.doc.version), t);
            } else {
                step(Step::Fence, State { fenced: true, ..t });
            }
            return;
        }
        let open = s.swaps.iter().find(|w| w.author == 0 && !w.ghost);
        if let Some(open) = open {
            let loose = Names { g: open.next.d, k: open.next.a };
            if self.dropped(Dropped::NamesWaitForSwap) && loose != s.names {
                step(Step::SetNames(loose), State { names: loose, ..s.clone() });
            }
            return;
        }
        let reloading = s.names_before.is_some();
        let (d, a) = (s.doc.d, s.doc.a);
        for g in self.subsets().filter(|_| !reloading) {
            for k in 0..=size(g) {
                let names = Names { g, k };
                if names != s.names && (self.guards(names, d, a) || self.dropped(Dropped::NamesGuard)) {
                    step(Step::SetNames(names), State { names, names_before: Some(s.names), ..s.clone() });
                }
            }
        }
        if s.doc.version >= self.bounds.versions || reloading && !self.dropped(Dropped::BarrierAfterReload) {
            return;
        }
        for d in self.subsets() {
            for a in u8::from(d != 0)..=size(d) {
                let held = nodes(d).filter(|n| s.wal[usize::from(*n)] >= s.acked).count() >= usize::from(a);
                let barrier = held || self.dropped(Dropped::Barrier);
                let guarded = self.guards(s.names, d, a) || self.dropped(Dropped::DocumentGuard);
                if d == 0 || barrier && guarded {
                    let next = Doc { version: s.doc.version + 1, d, a, ..s.doc };
                    step(Step::SwapSet(next), s.with_swap(0, next));
                }
            }
        }
    }

    /// What a standby does, or is about to do.
    fn standby(&self, s: &State, n: u8, out: &mut Vec<Move<Step, State>>) {
        let mut step = |step, to| out.push(Move { step, to });
        let (i, node) = (usize::from(n - 1), usize::from(n));
        let version = s.doc.version;
        let current = s.read[node] == version;
        if !current {
            let mut t = s.clone();
            t.read[node] = version;
            t.read_old[i] = s.doc.leader == 0;
            t.swaps.retain(|w| w.author != n || w.ghost);
            step(Step::Read(n, version), t);
        }
        if s.won.is_some() {
            return;
        }
        if current && s.pledge[i] != Some(version) {
            let mut t = s.clone();
            t.pledge[i] = Some(version);
            t.attached &= if self.dropped(Dropped::Detach) { u8::MAX } else { !bit(n) };
            step(Step::Pledge(n, version), t);
        }
        let open = s.swaps.iter().any(|w| w.author == n && !w.ghost);
        if let Some(pledged) = s.pledge[i]
            && s.attached & bit(n) == 0
            && !open
            && s.read_old[i]
            && (s.read[node] > pledged || self.dropped(Dropped::StayDetached))
        {
            let mut t = s.clone();
            t.attached |= bit(n);
            t.pledge[i] = None;
            step(Step::Attach(n), t);
        }
        if s.doc.leader == 0 && s.doc.d & bit(n) != 0 && !open && version < self.bounds.versions && current {
            let needed = self.needed(s.doc.d, s.doc.a) - u8::from(self.dropped(Dropped::Pledges));
            let wins = |heard: Set| {
                let pledged = nodes(heard).all(|c| match s.pledge[usize::from(c - 1)] {
                    Some(v) => v == version || self.dropped(Dropped::PledgeOfVersion),
                    None => false,
                });
                let most = nodes(heard).all(|c| s.wal[node] >= s.wal[usize::from(c)]);
                heard & bit(n) != 0
                    && heard & !s.doc.d == 0
                    && size(heard) >= needed
                    && pledged
                    && (most || self.dropped(Dropped::MostAdvanced))
            };
            if self.subsets().any(wins) {
                let next = Doc { version: version + 1, leader: n, d: 0, a: 0 };
                step(Step::SwapLead(n, next), s.with_swap(n, next));
            }
        }
        if s.doc.leader == n && current {
            let mut t = s.clone();
            t.attached &= !bit(n);
            t.won = Some((n, s.wal[node]));
            step(Step::Promote(n), t);
        }
    }

    /// What becomes of swaps.
    fn witness(&self, s: &State, out: &mut Vec<Move<Step, State>>) {
        for (i, swap) in s.swaps.iter().enumerate() {
            if swap.next.version == s.doc.version + 1 {
                // Its author does not know: the swap stays until a read settles it.
                let t = State { doc: swap.next, ..s.clone() };
                out.push(Move { step: Step::Lands(swap.author, swap.next.version), to: t });
            }
            if self.dropped(Dropped::Settle) && !swap.ghost {
                let mut t = s.clone();
                t.swaps[i].ghost = true;
                t.swaps.sort_unstable();
                t.swaps.dedup();
                if swap.author > 0 {
                    t.pledge[usize::from(swap.author - 1)] = None;
                    t.attached |= bit(swap.author);
                }
                out.push(Move { step: Step::TakenForLost(swap.author), to: t });
            }
        }
    }
}

impl State {
    fn with_swap(&self, author: u8, next: Doc) -> Self {
        let mut swaps = self.swaps.clone();
        swaps.push(Swap { author, ghost: false, next });
        swaps.sort_unstable();
        Self { swaps, ..self.clone() }
    }
}

impl Model for Sets {
    type State = State;
    type Action = Move<Step, State>;

    /// All standbys in D, of which one acknowledges; and only the first of them.
    fn init_states(&self) -> Vec<State> {
        let all = (1u8 << self.bounds.standbys) - 1;
        [all, 1]
            .map(|d| State {
                doc: Doc { version: 0, leader: 0, d, a: 1 },
                names: Names { g: d, k: 1 },
                names_before: None,
                wal: [0; 4],
                acked: 0,
                attached: all,
                pledge: [None; 3],
                swaps: Vec::new(),
                read: [0; 4],
                read_old: [true; 3],
                fenced: false,
                won: None,
            })
            .to_vec()
    }

    fn actions(&self, s: &State, out: &mut Vec<Self::Action>) {
        if !s.fenced {
            self.leader(s, out);
        }
        for n in 1..=u8::try_from(self.bounds.standbys).unwrap_or(0) {
            self.standby(s, n, out);
        }
        self.witness(s, out);
    }

    fn next_state(&self, _: &State, action: Self::Action) -> Option<State> {
        Some(action.to)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(ACKNOWLEDGED, |_, s: &State| s.won.is_none_or(|(_, held)| held >= s.acked))]
    }
}

/// The property.
pub const ACKNOWLEDGED: &str = "what was acknowledged, the next leader holds";

impl Told for Step {
    fn told(&self) -> String {
        let set = |doc: &Doc| format!("{} of {}", doc.a, written(doc.d));
        match self {
            Self::Commit(c) => format!("n1 commits {c}"),
            Self::Acknowledge(c) => format!("n1 acknowledges {c}"),
            Self::Flush(n) => format!("{} flushes all that n1 has", name(*n)),
            Self::Read(n, v) => format!("{} reads version {v}", name(*n)),
            Self::Fence => "n1 reads that another leads, and fences itself".into(),
            Self::SetNames(n) => format!("n1 sets names: {} of {}", n.k, written(n.g)),
            Self::Reloaded => "every process of n1 uses the names".into(),
            Self::SwapSet(doc) => format!("n1 sends a swap to version {}: {}", doc.version, set(doc)),
            Self::Pledge(n, v) => format!("{} detaches, and pledges for version {v}", name(*n)),
            Self::Attach(n) => format!("{} streams from n1 again", name(*n)),
            Self::SwapLead(n, doc) => format!("{0} sends a swap to version {1}: {0} leads", name(*n), doc.version),
            Self::Lands(n, v) => format!("the swap of {} lands: version {v}", name(*n)),
            Self::TakenForLost(n) => format!("{} takes its swap for lost", name(*n)),
            Self::Promote(n) => format!("{} reads that it leads, and is promoted", name(*n)),
        }
    }
}

impl Tells for Sets {
    fn tells(&self, s: &State) -> String {
        let nodes = 0..=u8::try_from(self.bounds.standbys).unwrap_or(0);
        let held: Vec<_> = nodes.map(|n| format!("{}={}", name(n), s.wal[usize::from(n)])).collect();
        let won = s.won.map(|(n, held)| format!(", {} was promoted with {held}", name(n)));
        format!("acknowledged {}, held {}{}", s.acked, held.join(" "), won.unwrap_or_default())
    }
}
