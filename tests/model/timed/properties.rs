//! What must hold in every state.

use stateright::Property;

use super::Timed;
use super::state::State;

/// Whoever is primary, or about to be one, has a right that its deadman has not seen end.
pub const ONE_RIGHT: &str = "at no moment two nodes have an unexpired right";
/// A term has one leader.
pub const ONE_LEADER: &str = "one node is primary in a term";
/// Terms grow by one, versions too.
pub const TERMS: &str = "terms and versions grow by one";
/// A failover completes.
pub const COMPLETES: &str = "with one node gone, the other leads before long if it may";

/// R7: an outage of the witness ends no reign.
pub const OUTLIVES: &str = "while both nodes live, an outage of the witness demotes nobody";

pub(super) fn all(outlives: bool) -> Vec<Property<Timed>> {
    let mut all = vec![
        Property::always(ONE_RIGHT, |_, s: &State| s.nodes.iter().filter(|n| n.may_write()).count() <= 1),
        Property::always(ONE_LEADER, |_, s: &State| s.broken != Some(ONE_LEADER)),
        Property::always(TERMS, |_, s: &State| s.broken != Some(TERMS)),
        Property::always(COMPLETES, |model: &Timed, s| model.completes(s)),
    ];
    if outlives {
        all.push(Property::always(OUTLIVES, |model: &Timed, s| model.outlives(s)));
    }
    all
}
