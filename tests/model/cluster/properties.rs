//! What must hold in every state.

use stateright::Property;

use super::postgres::releases;
use super::state::{Node, NodeId, Run, State};
use super::{Bounds, Cluster};

/// `sync`: what was acknowledged is in the WAL of every later primary.
pub const ACKNOWLEDGED: &str = "what was acknowledged or seen, every later primary holds";
/// Two nodes can never acknowledge at once.
pub const ONE_WRITER: &str = "no two nodes can acknowledge";
/// A term has one leader.
pub const ONE_LEADER: &str = "one node is primary in a term";
/// Terms grow by one, versions too.
pub const TERMS: &str = "terms and versions grow by one";
/// A standby's WAL is one history.
pub const ONE_HISTORY: &str = "no standby follows across a divergence";
/// R5: at most |D| − a members of D lack what was acknowledged.
pub const SYNC_SET: &str = "enough of the sync set hold what was acknowledged";

/// When faults stop, one leads, all others follow, and commits are guarded.
pub const HEALS: &str = "when faults stop, the cluster heals";
/// A node that is gone for good stops nobody who may lead without it.
pub const GOES_ON: &str = "with one node gone, whoever may lead does";

/// `strict`: rather than that, they wait.
pub const NEVER_ALONE: &str = "no commit is acknowledged by the primary alone";

/// The properties. `strict`: with those that only imply that commits survive.
pub(super) fn all(strict: bool, bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut all = vec![
        Property::always(ACKNOWLEDGED, |_, s| acknowledged(s)),
        Property::always(ONE_WRITER, |_, s| one_writer(s)),
        Property::always(ONE_LEADER, |_, s: &State| s.broken != Some(ONE_LEADER)),
        Property::always(TERMS, |_, s: &State| s.broken != Some(TERMS)),
        Property::always(ONE_HISTORY, |_, s: &State| s.broken != Some(ONE_HISTORY)),
    ];
    if bounds.strict {
        all.push(Property::always(NEVER_ALONE, |_, s: &State| !s.nodes.iter().any(alone)));
    }
    if bounds.heal {
        all.push(Property::always(HEALS, |model: &Cluster, s| model.heals(s)));
        all.push(Property::always(GOES_ON, |model: &Cluster, s| model.goes_on(s)));
    }
    if strict {
        all.push(Property::always(SYNC_SET, |_, s| sync_set(s)));
    }
    all
}

fn acknowledged(s: &State) -> bool {
    let primaries = || s.nodes.iter().filter(|n| n.run == Run::Primary);
    s.acked.iter().all(|a| primaries().all(|n| n.reign < a.term || n.wal.at(a.position) == Some(a.record)))
}

/// Whether a commit made now can be acknowledged: by those that still receive it.
pub(super) fn can_acknowledge(s: &State, n: NodeId) -> bool {
    let node = s.node(n);
    node.run == Run::Primary
        && !node.stopping
        && !node.closed
        && (!node.waits || releases(node, |sender| sender.attached))
}

/// Whether commits on a node wait for nobody.
fn alone(node: &Node) -> bool {
    node.run == Run::Primary && !node.closed && !node.stopping && !node.waits
}

fn one_writer(s: &State) -> bool {
    (0..3).filter(|n| can_acknowledge(s, *n)).count() <= 1
}

fn sync_set(s: &State) -> bool {
    let may_lack = s.doc.set.len().saturating_sub(s.doc.acks);
    s.acked.iter().all(|a| {
        let lacks = |(n, life): (NodeId, u8)| {
            let node = s.node(n);
            node.life == life && node.wal.at(a.position) != Some(a.record)
        };
        s.doc.set.iter().filter(|m| lacks(*m)).count() <= usize::from(may_lack)
    })
}
