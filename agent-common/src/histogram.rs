//! One decimal grid for every duration: {1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8} × 10^k µs.
//!
//! The grid runs from 1 µs to 100 s, ten bounds a decade. Friendly numbers (50 ms, 100 ms,
//! 250 ms …) are bucket edges, so an SLO on them is counted, never interpolated, and every
//! coarser set of boundaries we export is an exact subset.
//!
//! Bounds are inclusive upper bounds, as Prometheus' `le`.

/// Mantissas of one decade, times ten.
const MANTISSAS: [u32; 10] = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80];

/// How many finite bounds the grid has.
pub const BOUNDS: usize = 81;

/// How many buckets a histogram has: one per bound and one for everything above the last.
pub const BUCKETS: usize = BOUNDS + 1;

/// The finite upper bounds in microseconds, ascending. The last is 100 s.
pub const BOUNDS_US: [u32; BOUNDS] = {
    let mut bounds = [0; BOUNDS];
    let mut decade: u32 = 1;
    let mut i = 0;
    while i < BOUNDS {
        // In the first decade bounds are not whole microseconds: 1.2 µs rounds down to 1 µs.
        bounds[i] = (MANTISSAS[i % 10] as u64 * decade as u64 / 10) as u32;
        i += 1;
        if i % 10 == 0 {
            decade *= 10;
        }
    }
    bounds
};

/// [`BOUNDS_US`] padded to a power of two for the branch-poor search of [`bucket`].
pub const SEARCH_US: [u32; 128] = {
    let mut padded = [u32::MAX; 128];
    let mut i = 0;
    while i < BOUNDS {
        padded[i] = BOUNDS_US[i];
        i += 1;
    }
    padded
};

/// Durations below this find their bucket in a table, with one load. Longer ones are searched:
/// what takes milliseconds can wait for a search of twenty nanoseconds.
pub const NEAR_US: usize = 2048;

/// The bucket of each duration below [`NEAR_US`].
pub const NEAR_BUCKETS: [u8; NEAR_US] = {
    let mut buckets = [0; NEAR_US];
    let mut bucket = 0;
    let mut value = 0;
    while value < NEAR_US {
        while (BOUNDS_US[bucket] as usize) < value {
            bucket += 1;
        }
        buckets[value] = bucket as u8;
        value += 1;
    }
    buckets
};

crate::wire! {
    /// Counts per bucket (not cumulative) and the exact sum of what was observed.
    pub struct Histogram: 664 {
        /// Sum of all observations in microseconds.
        pub sum_us: u64,
        /// Observations per bucket; `buckets[i]` counts values above bound i-1 and up to bound i.
        pub buckets: [u64; BUCKETS],
    }
}

impl Histogram {
    /// An empty histogram.
    pub const EMPTY: Self = Self { sum_us: 0, buckets: [0; BUCKETS] };

    /// How many values were observed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// Adds `other` to this histogram.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_add);
    }

    /// Combines every number with its counterpart in `other`.
    pub(crate) fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        self.sum_us = with(self.sum_us, other.sum_us);
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = with(*mine, theirs);
        }
    }

    /// Counts one value.
    pub fn observe(&mut self, value_us: u64) {
        self.sum_us = self.sum_us.wrapping_add(value_us);
        if let Some(bucket) = self.buckets.get_mut(bucket(&SEARCH_US, &NEAR_BUCKETS, value_us)) {
            *bucket = bucket.wrapping_add(1);
        }
    }

    /// The `q` quantile (0 to 1) in seconds, from the exported buckets
    /// ([`crate::exported::quantile`]); `None` without observations.
    #[cfg(feature = "user")]
    pub fn quantile_seconds(&self, q: f64) -> Option<f64> {
        crate::exported::quantile(&crate::exported::fold(self).0, q)
    }

    /// The same in microseconds.
    #[cfg(feature = "user")]
    pub fn quantile_us(&self, q: f64) -> Option<f64> {
        self.quantile_seconds(q).map(|seconds| seconds * 1e6)
    }
}

/// The index of the bucket that counts `value_us`; `bounds` is [`SEARCH_US`], `near` is
/// [`NEAR_BUCKETS`].
///
/// The kernel programs keep the tables in their read-only data, which is why they are arguments.
#[inline(always)]
pub fn bucket(bounds: &[u32; 128], near: &[u8; NEAR_US], value_us: u64) -> usize {
    if value_us < NEAR_US as u64 {
        let at = near[(value_us as usize) & (NEAR_US - 1)] as usize;
        // Tells the verifier that the table holds buckets only.
        return if at > BOUNDS { BOUNDS } else { at };
    }
    let value = if value_us > u64::from(u32::MAX) { u32::MAX } else { value_us as u32 };
    let mut at = 0usize;
    // Seven halvings of 128: `at` counts the bounds below `value`.
    let mut step = 64;
    while step > 0 {
        // `at + step - 1` is at most 126; the mask proves it to compiler and verifier.
        if bounds[(at + step - 1) & 127] < value {
            at += step;
        }
        step >>= 1;
    }
    if at > BOUNDS { BOUNDS } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grid_is_friendly() {
        for friendly in [
            1,
            2,
            5,
            10,
            12,
            15,
            100,
            1_000,
            2_500,
            50_000,
            100_000,
            250_000,
            1_000_000,
            10_000_000,
            100_000_000,
        ] {
            assert!(BOUNDS_US.contains(&friendly), "{friendly}");
        }
        assert!(BOUNDS_US.windows(2).all(|w| w[0] <= w[1]));
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let check = |value, bound: Option<u32>| {
            assert_eq!(
                BOUNDS_US.get(bucket(&SEARCH_US, &NEAR_BUCKETS, value)).copied(),
                bound,
                "{value}"
            );
        };
        check(0, Some(1));
        check(1, Some(1));
        check(50_000, Some(50_000));
        check(50_001, Some(60_000));
        check(100_000_000, Some(100_000_000));
        check(100_000_001, None);
        check(u64::MAX, None);
    }

    proptest! {
        #[test]
        fn bucket_is_the_first_bound_not_below_the_value(value in 0u64..200_000_000) {
            let expected = BOUNDS_US.iter().position(|b| u64::from(*b) >= value).unwrap_or(BOUNDS);
            prop_assert_eq!(bucket(&SEARCH_US, &NEAR_BUCKETS, value), expected);
        }

        #[test]
        fn merging_conserves_counts_and_sums(a in prop::collection::vec(0u64..1 << 40, 0..50), b in prop::collection::vec(0u64..1 << 40, 0..50)) {
            let fill = |values: &[u64]| {
                let mut h = Histogram::EMPTY;
                for value in values {
                    h.observe(*value);
                }
                h
            };
            let mut merged = fill(&a);
            merged.merge(&fill(&b));
            prop_assert_eq!(merged, fill(&[a, b].concat()));
        }
    }
}
