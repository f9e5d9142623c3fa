//! The bucket bounds that leave the agent: twenty-six of the grid's eighty-one, so merging buckets
//! is exact. Every quantile that anything of ours shows is computed from these buckets, and as
//! Prometheus' `histogram_quantile` does it, so the command line, the API, dashboards and alerts
//! have one figure.

use crate::histogram::{BOUNDS_US, BUCKETS, Histogram};

/// How many finite bounds are exported.
pub const EXPORTED: usize = 26;

/// The exported bounds in microseconds. 25 µs is about one round trip over loopback, 10 s the
/// longest that clients wait; 200 and 300 ms are common objectives and the range of the minimum
/// retransmission timeout; a SYN is sent again after 1 s, and what waited for it takes a little
/// longer: 1.2, 1.5 and 2 s. The tests measure how far quantiles are off with these and with others
/// (decision 77).
pub const EXPORTED_US: [u32; EXPORTED] = [
    25, 50, 100, 150, 250, 500, 1_000, 1_500, 2_500, 5_000, 10_000, 15_000, 25_000, 50_000,
    100_000, 200_000, 250_000, 300_000, 500_000, 1_000_000, 1_200_000, 1_500_000, 2_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// The longest quantile, seconds: what takes longer lies above the last bound.
pub const LONGEST_SECONDS: f64 = EXPORTED_US[EXPORTED - 1] as f64 / 1e6;

/// How many finite bounds of idle times are exported.
pub const IDLE_EXPORTED: usize = 12;

/// The exported bounds of idle times ([`crate::idle`]) in milliseconds: just above each lie the
/// timeouts that programs have by default (5, 15, 60, 75, 300 and 600 s, an hour).
pub const IDLE_EXPORTED_MS: [u32; IDLE_EXPORTED] = [
    1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 80_000, 120_000, 300_000, 600_000,
    3_000_000,
];

/// Which exported bucket each bucket of the grid belongs to.
const FOLD: [usize; BUCKETS] = folding(&EXPORTED_US);
/// The same for idle times.
const IDLE_FOLD: [usize; BUCKETS] = folding(&IDLE_EXPORTED_MS);

const fn folding(bounds: &[u32]) -> [usize; BUCKETS] {
    let mut fold = [bounds.len(); BUCKETS];
    let mut exported = 0;
    let mut i = 0;
    while i < BOUNDS_US.len() {
        while exported < bounds.len() && bounds[exported] < BOUNDS_US[i] {
            exported += 1;
        }
        fold[i] = exported;
        i += 1;
    }
    fold
}

/// Buckets (upper bound in seconds and count, not cumulative, the last is infinite) and the count
/// of all. Dividing a whole number by a million rounds once, so a bound prints as its decimal.
pub fn fold(histogram: &Histogram) -> ([(f64, u64); EXPORTED + 1], u64) {
    folded(histogram, &EXPORTED_US, &FOLD, 1e6)
}

/// The same for idle times.
pub fn fold_idle(histogram_ms: &Histogram) -> ([(f64, u64); IDLE_EXPORTED + 1], u64) {
    folded(histogram_ms, &IDLE_EXPORTED_MS, &IDLE_FOLD, 1e3)
}

fn folded<const N: usize>(
    histogram: &Histogram,
    bounds: &[u32],
    fold: &[usize; BUCKETS],
    per_second: f64,
) -> ([(f64, u64); N], u64) {
    let mut buckets = [(f64::INFINITY, 0u64); N];
    for ((seconds, _), bound) in buckets.iter_mut().zip(bounds) {
        *seconds = f64::from(*bound) / per_second;
    }
    let mut all = 0u64;
    for (count, exported) in histogram.buckets.iter().zip(fold) {
        all = all.wrapping_add(*count);
        if let Some((_, sum)) = buckets.get_mut(*exported) {
            *sum = sum.wrapping_add(*count);
        }
    }
    (buckets, all)
}

/// The `q` quantile (0 to 1) of buckets that are not cumulative, as `histogram_quantile` computes
/// it: linear within a bucket, the last finite bound for what lies above it. `None` if they are
/// empty.
pub fn quantile(buckets: &[(f64, u64)], q: f64) -> Option<f64> {
    let count: u64 = buckets.iter().fold(0, |sum, (_, n)| sum.wrapping_add(*n));
    if count == 0 {
        return None;
    }
    let mut rank = q * count as f64;
    let mut lower = 0.0;
    for (upper, n) in buckets {
        let n = *n as f64;
        if !upper.is_finite() {
            break;
        }
        if n >= rank && n > 0.0 {
            return Some(lower + (upper - lower) * (rank / n));
        }
        rank -= n;
        lower = *upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bounds of 0.1.0.
    const FORMER_US: [u32; 20] = [
        25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 200_000,
        250_000, 300_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    ];
    /// Values of a distribution, evenly spaced in probability: no chance is involved.
    const VALUES: usize = 2000;

    #[test]
    fn every_exported_bound_is_a_bound_of_the_grid() {
        for bounds in [&EXPORTED_US[..], &IDLE_EXPORTED_MS] {
            assert!(bounds.iter().all(|bound| BOUNDS_US.contains(bound)));
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
        assert!(FORMER_US.iter().all(|bound| EXPORTED_US.contains(bound)), "a query may name it");
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        // By hand; a live test compares with a Prometheus.
        let buckets = [(0.1, 10), (0.2, 5), (f64::INFINITY, 5)];
        let check = |q, expected: f64| {
            let found = quantile(&buckets, q).expect("not empty");
            assert!((found - expected).abs() < 1e-12, "{q}: {found}");
        };
        check(0.25, 0.05);
        check(0.5, 0.1);
        check(0.7, 0.18);
        check(0.99, 0.2);
        assert_eq!(quantile(&[(0.1, 0), (f64::INFINITY, 0)], 0.5), None);
        assert_eq!(quantile(&[(0.1, 0), (0.2, 0), (f64::INFINITY, 1)], 0.5), Some(0.2));
    }

    /// Latencies as services have them, sorted, microseconds: log-logistic around medians of 30 µs
    /// to 1 s, narrow to wide; shifted exponential; and those of which a few wait for a
    /// retransmission, of data after 200 or 400 ms, of a SYN after 1 or 3 s.
    fn distributions() -> Vec<Vec<f64>> {
        let spread = |median: f64, width: f64| {
            let value = |i| {
                let u = (i as f64 + 0.5) / VALUES as f64;
                median * (u / (1.0 - u)).powf(width)
            };
            (0..VALUES).map(value).collect::<Vec<f64>>()
        };
        let mut all = Vec::new();
        for step in 0..16 {
            let median = 30.0 * 2f64.powi(step);
            all.extend([0.15, 0.3, 0.5].map(|width| spread(median, width)));
            let exponential = |i| {
                let u = (i as f64 + 0.5) / VALUES as f64;
                median * (0.5 - (1.0 - u).ln())
            };
            all.push((0..VALUES).map(exponential).collect());
        }
        for median in [500.0, 3_000.0, 20_000.0] {
            for (wait, share) in [(2e5, 0.02), (4e5, 0.02), (1e6, 0.03), (3e6, 0.02)] {
                let mut values = spread(median, 0.3);
                let late = (VALUES as f64 * share) as usize;
                for i in 0..late {
                    values[i * VALUES / late] += wait * (1.0 + 0.02 * i as f64 / late as f64);
                }
                values.sort_by(f64::total_cmp);
                all.push(values);
            }
        }
        all
    }

    /// By how much the 99th percentile is off with these bounds, as a part of it: the mean over
    /// the distributions and the worst.
    fn error(bounds: &[u32]) -> (f64, f64) {
        let (mut sum, mut worst, mut number) = (0.0, 0f64, 0);
        for values in distributions() {
            let mut buckets: Vec<(f64, u64)> =
                bounds.iter().map(|us| (f64::from(*us), 0)).collect();
            buckets.push((f64::INFINITY, 0));
            for value in &values {
                let at = buckets.partition_point(|(bound, _)| bound < value);
                buckets[at].1 += 1;
            }
            let exact = values[VALUES * 99 / 100 - 1];
            if exact > f64::from(EXPORTED_US[EXPORTED - 1]) {
                continue;
            }
            let off = (quantile(&buckets, 0.99).expect("values") - exact).abs() / exact;
            (sum, worst, number) = (sum + off, worst.max(off), number + 1);
        }
        (sum / f64::from(number), worst)
    }

    #[test]
    fn the_exported_bounds_are_worth_their_series() {
        let (former, now, grid) = (error(&FORMER_US), error(&EXPORTED_US), error(&BOUNDS_US[15..]));
        for (name, (mean, worst)) in [("former", former), ("exported", now), ("grid", grid)] {
            println!(
                "p99 with the {name} bounds: off by {mean:.3} in the mean, {worst:.3} at worst"
            );
        }
        assert!(now.0 < 0.66 * former.0, "{now:?} instead of {former:?}");
        assert!(now.1 < 0.5 && former.1 > 0.9, "{now:?} instead of {former:?}");
        // Each of the new ones makes it better.
        for bound in EXPORTED_US.iter().filter(|bound| !FORMER_US.contains(bound)) {
            let without: Vec<u32> = EXPORTED_US.into_iter().filter(|it| it != bound).collect();
            let without = error(&without);
            println!("without {bound} µs: {:.3}, {:.3}", without.0, without.1);
            assert!(without.0 > now.0 + 0.0005, "{bound} µs adds nothing: {without:?}");
        }
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

        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_value(
            values in prop::collection::vec(1u64..9_999_999, 1..200), q in 0.01f64..1.0
        ) {
            let mut histogram = Histogram::EMPTY;
            for value in &values {
                histogram.observe(*value);
            }
            let mut sorted = values;
            sorted.sort_unstable();
            let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let exact = sorted[rank - 1];
            let found = histogram.quantile_seconds(q).expect("values") * 1e6;
            let at = EXPORTED_US.partition_point(|bound| u64::from(*bound) < exact);
            let lower = at.checked_sub(1).map_or(0.0, |below| f64::from(EXPORTED_US[below]));
            // Sums of counts are exact, products with q are not.
            prop_assert!(found >= lower * (1.0 - 1e-9), "{found} below {lower}");
            prop_assert!(found <= f64::from(EXPORTED_US[at]) * (1.0 + 1e-9), "{found}");
        }
    }
}
