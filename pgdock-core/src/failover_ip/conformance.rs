//! What every [`FailoverIp`] must do. Run it on yours, with two nodes that the address may point to:
//!
//! ```no_run
//! # use pgdock_core::{NodeName, Term};
//! # use pgdock_core::failover_ip::{MemoryFailoverIp, Target, conformance};
//! # async fn test(one: Target, two: Target) {
//! conformance::run(&MemoryFailoverIp::new(), &one, &two).await;
//! # }
//! ```
//!
//! Every function panics with what it saw. Lost answers are settled by `current`, as the contract says, so
//! that the suite also runs on an address whose keeper is behind a bad network.

use super::{FailoverIp, Holder, Target};
use crate::{ErrorKind, Term};

/// After this many failures in a row the keeper counts as dead.
const TRIES: usize = 200;

/// The whole suite. The targets are two different nodes; the address may move at will, and ends at `two`.
pub async fn run(ip: &dyn FailoverIp, one: &Target, two: &Target) {
    assert_ne!(one.node, two.node, "the suite needs two nodes");
    it_points_where_it_was_assigned(ip, one, two).await;
    assigning_twice_is_harmless(ip, one).await;
    a_later_term_takes_it(ip, one, two).await;
}

/// After an assignment the address points to its target.
pub async fn it_points_where_it_was_assigned(ip: &dyn FailoverIp, one: &Target, two: &Target) {
    for target in [one, two, one] {
        assign(ip, target).await;
        let held = current(ip).await;
        let right = held.as_ref().is_some_and(|holder| holder.is(target));
        assert!(right, "{ip}: assigned to {}, but it points to {held:?}", target.node);
        let other = if target == one { two } else { one };
        assert!(!held.is_some_and(|holder| holder.is(other)), "{ip}: it points to both nodes at once");
    }
}

/// Assigning it to the node that holds it succeeds, and changes nothing.
pub async fn assigning_twice_is_harmless(ip: &dyn FailoverIp, one: &Target) {
    for _ in 0..3 {
        assign(ip, one).await;
        assert!(current(ip).await.is_some_and(|holder| holder.is(one)), "{ip}: it moved away");
    }
}

/// The leader of a later term takes it from that of an earlier one.
pub async fn a_later_term_takes_it(ip: &dyn FailoverIp, one: &Target, two: &Target) {
    let earlier = Target { term: Term(one.term.0.max(two.term.0)), ..one.clone() };
    let later = Target { term: earlier.term.next(), ..two.clone() };
    assign(ip, &earlier).await;
    assign(ip, &later).await;
    assert!(current(ip).await.is_some_and(|holder| holder.is(&later)), "{ip}: the later leader did not get it");
}

async fn assign(ip: &dyn FailoverIp, target: &Target) {
    for _ in 0..TRIES {
        match ip.assign(target).await {
            Ok(()) => return,
            Err(error) if error.outcome_known() => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{ip}: refused: {}", error.chain());
            }
            Err(_) if current(ip).await.is_some_and(|holder| holder.is(target)) => return,
            Err(_) => {}
        }
    }
    panic!("{ip}: could not be assigned in {TRIES} tries");
}

async fn current(ip: &dyn FailoverIp) -> Option<Holder> {
    let mut last = None;
    for _ in 0..TRIES {
        match ip.current().await {
            Ok(holder) => return holder,
            Err(error) => last = Some(error),
        }
    }
    panic!("{ip}: does not say where it points: {}", last.map(|e| e.chain()).unwrap_or_default());
}
