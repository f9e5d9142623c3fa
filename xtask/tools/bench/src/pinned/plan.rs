//! The order of the variants.

use crate::random::Random;

/// The order of every round: each variant once, at random.
///
/// At random, so that periodic events of this machine (a timer, another program) do not meet the
/// same variant each time, and no variant always follows the same one.
pub fn orders(variants: usize, rounds: u32, seed: u64) -> Vec<Vec<usize>> {
    let mut random = Random::seeded(seed);
    let order = |_| {
        let mut order: Vec<usize> = (0..variants).collect();
        random.shuffle(&mut order);
        order
    };
    (0..rounds).map(order).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_round_has_every_variant_once() {
        for order in orders(5, 50, 1) {
            assert_eq!(order.len(), 5);
            assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2, 3, 4]));
        }
    }

    #[test]
    fn every_variant_comes_first_and_after_every_other() {
        let orders = orders(4, 200, 1);
        let first: BTreeSet<usize> = orders.iter().map(|order| order[0]).collect();
        assert_eq!(first.len(), 4);
        let pairs: BTreeSet<_> =
            orders.iter().flat_map(|order| order.windows(2)).map(|two| (two[0], two[1])).collect();
        assert_eq!(pairs.len(), 4 * 3);
    }

    #[test]
    fn a_seed_repeats_its_order_and_another_has_its_own() {
        assert_eq!(orders(5, 20, 7), orders(5, 20, 7));
        assert_ne!(orders(5, 20, 7), orders(5, 20, 8));
    }
}
