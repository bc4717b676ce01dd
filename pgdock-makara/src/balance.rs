//! Which of several nodes that would all do gets the next statement.

use crate::Strategy;

/// Chooses among nodes, known by their place in a list.
///
/// In turn means *smooth* weighted round robin: weights 5, 1, 1 give a·a·b·a·c·a·a and not a·a·a·a·a·b·c, and a node
/// that returns gets its share, no more.
///
/// ```
/// use pgdock_makara::{Balancer, Strategy};
///
/// let mut balancer = Balancer::new(Strategy::RoundRobin, &[5, 1, 1]);
/// let picks: Vec<_> = (0..7).filter_map(|_| balancer.pick(|_| true, |_| 0)).collect();
/// assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
/// ```
#[derive(Clone, Debug)]
pub struct Balancer {
    strategy: Strategy,
    nodes: Vec<Share>,
}

#[derive(Clone, Debug)]
struct Share {
    weight: u32,
    /// How much it is owed. The sum over the nodes of a pick is zero again after it.
    credit: i64,
}

impl Balancer {
    /// A balancer for nodes of these weights. A weight of zero counts as one.
    #[must_use]
    pub fn new(strategy: Strategy, weights: &[u32]) -> Self {
        let nodes = weights.iter().map(|weight| Share { weight: (*weight).max(1), credit: 0 }).collect();
        Self { strategy, nodes }
    }

    /// The node for the next statement among those that are usable, by their number of statements in flight where the
    /// strategy asks for it. `None` when none is usable.
    pub fn pick(&mut self, usable: impl Fn(usize) -> bool, in_flight: impl Fn(usize) -> u32) -> Option<usize> {
        match self.strategy {
            Strategy::RoundRobin => self.in_turn(|node, _| usable(node)),
            Strategy::Failover => {
                let usable = (0..self.nodes.len()).filter(|node| usable(*node));
                // Of equals the last is the greatest, and the first of the list is wanted.
                usable.rev().max_by_key(|node| self.nodes[*node].weight)
            }
            Strategy::LeastInFlight => {
                // What it would have with one more, in proportion to its weight: a / v < b / w as a · w < b · v.
                let load = |node: usize| u64::from(in_flight(node)) + 1;
                let (least, part) = (0..self.nodes.len())
                    .filter(|node| usable(*node))
                    .map(|node| (load(node), u64::from(self.nodes[node].weight)))
                    .min_by(|(a, v), (b, w)| (a * w).cmp(&(b * v)))?;
                let turn = self.in_turn(|node, weight| usable(node) && load(node) * part <= least * u64::from(weight));
                // Every load may have grown in between: then any will do.
                turn.or_else(|| self.in_turn(|node, _| usable(node)))
            }
        }
    }

    fn in_turn(&mut self, usable: impl Fn(usize, u32) -> bool) -> Option<usize> {
        let (mut total, mut best) = (0, None::<(usize, i64)>);
        for (node, share) in self.nodes.iter_mut().enumerate() {
            if !usable(node, share.weight) {
                continue;
            }
            total += i64::from(share.weight);
            share.credit += i64::from(share.weight);
            if best.is_none_or(|(_, credit)| share.credit > credit) {
                best = Some((node, share.credit));
            }
        }
        let (node, _) = best?;
        self.nodes[node].credit -= total;
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(balancer: &mut Balancer, count: usize, usable: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..count).map_while(|_| balancer.pick(&usable, |_| 0)).collect()
    }

    fn counts(picks: &[usize]) -> [usize; 3] {
        [0, 1, 2].map(|node| picks.iter().filter(|pick| **pick == node).count())
    }

    #[test]
    fn every_round_holds_each_node_as_often_as_its_weight_says() {
        let mut balancer = Balancer::new(Strategy::RoundRobin, &[1, 1, 2]);
        for _ in 0..10 {
            assert_eq!(counts(&picks(&mut balancer, 4, |_| true)), [1, 1, 2]);
        }
        for _ in 0..10 {
            assert_eq!(counts(&picks(&mut balancer, 3, |node| node != 0)), [0, 1, 2]);
        }
        let back = counts(&picks(&mut balancer, 40, |_| true));
        assert!(
            back[0].abs_diff(10) <= 1 && back[2].abs_diff(20) <= 1,
            "a node that returns is not made up for: {back:?}"
        );
    }

    #[test]
    fn failover_prefers_weight_then_order_and_fails_back() {
        let mut balancer = Balancer::new(Strategy::Failover, &[1, 1, 2]);
        assert_eq!(picks(&mut balancer, 3, |_| true), [2, 2, 2]);
        assert_eq!(picks(&mut balancer, 1, |node| node != 2), [0]);
        assert_eq!(picks(&mut balancer, 1, |node| node == 1), [1]);
        assert_eq!(picks(&mut balancer, 1, |_| true), [2]);
        assert_eq!(picks(&mut Balancer::new(Strategy::Failover, &[1, 1]), 2, |_| true), [0, 0]);
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_next_and_equals_take_turns() {
        let mut balancer = Balancer::new(Strategy::LeastInFlight, &[1, 1, 2]);
        assert_eq!(balancer.pick(|_| true, |node| [3, 1, 4][node]), Some(1));
        assert_eq!(
            balancer.pick(|_| true, |node| [1, 1, 2][node]),
            Some(2),
            "three of two parts is less than two of one"
        );
        assert_eq!(balancer.pick(|node| node != 2, |node| [0, 5, 0][node]), Some(0));
        let mut equal = Balancer::new(Strategy::LeastInFlight, &[1, 1, 1]);
        assert_eq!(counts(&picks(&mut equal, 9, |_| true)), [3, 3, 3]);
    }

    #[test]
    fn without_a_usable_node_there_is_no_choice() {
        for strategy in [Strategy::RoundRobin, Strategy::Failover, Strategy::LeastInFlight] {
            assert_eq!(Balancer::new(strategy, &[]).pick(|_| true, |_| 0), None);
            assert_eq!(Balancer::new(strategy, &[1, 2]).pick(|_| false, |_| 0), None);
            assert_eq!(Balancer::new(strategy, &[0]).pick(|_| true, |_| u32::MAX), Some(0));
        }
    }
}
