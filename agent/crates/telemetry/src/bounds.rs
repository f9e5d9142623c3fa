//! The exported bucket bounds: twenty of the grid's eighty-one, so merging buckets is exact.

use agent_common::histogram::{BOUNDS_US, BUCKETS, Histogram};

/// How many finite bounds are exported.
pub(super) const EXPORTED: usize = 20;

/// The exported bounds in microseconds. 25 µs is about one round trip over loopback, 10 s the
/// longest that clients wait; 200 and 300 ms are common objectives and the range of the minimum
/// retransmission timeout.
pub(super) const EXPORTED_US: [u32; EXPORTED] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 200_000, 250_000,
    300_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Which exported bucket each bucket of the grid belongs to.
const FOLD: [usize; BUCKETS] = {
    let mut fold = [EXPORTED; BUCKETS];
    let mut exported = 0;
    let mut i = 0;
    while i < BOUNDS_US.len() {
        while exported < EXPORTED && EXPORTED_US[exported] < BOUNDS_US[i] {
            exported += 1;
        }
        fold[i] = exported;
        i += 1;
    }
    fold
};

/// Buckets (upper bound in seconds and count, not cumulative, the last is infinite) and the count
/// of all. Dividing a whole number by a million rounds once, so a bound prints as its decimal.
pub(super) fn fold(histogram: &Histogram) -> ([(f64, u64); EXPORTED + 1], u64) {
    let mut buckets = [(f64::INFINITY, 0); EXPORTED + 1];
    for ((seconds, _), us) in buckets.iter_mut().zip(EXPORTED_US) {
        *seconds = f64::from(us) / 1e6;
    }
    let mut all = 0;
    for (count, exported) in histogram.buckets.iter().zip(FOLD) {
        all += count;
        if let Some((_, sum)) = buckets.get_mut(exported) {
            *sum += count;
        }
    }
    (buckets, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_exported_bound_is_a_bound_of_the_grid() {
        assert!(EXPORTED_US.iter().all(|bound| BOUNDS_US.contains(bound)));
        assert!(EXPORTED_US.is_sorted());
        assert!(EXPORTED_US.contains(&50_000));
    }

    proptest! {
        #[test]
        fn folding_counts_as_if_the_values_had_been_observed_with_the_exported_bounds(
            values in prop::collection::vec(0u64..30_000_000, 0..200)
        ) {
            let mut histogram = Histogram::EMPTY;
            for value in &values {
                histogram.observe(*value);
            }
            let (buckets, count) = fold(&histogram);
            prop_assert_eq!(count, values.len() as u64);
            let mut below = 0;
            for (bound, n) in buckets {
                below += n;
                let expected = values.iter().filter(|v| **v as f64 <= bound * 1e6).count() as u64;
                prop_assert_eq!(below, expected, "le {}", bound);
            }
        }
    }
}
