//! Medians and how sure we are of them.

use crate::random::Random;

/// How often a sample is drawn anew for an interval.
const RESAMPLES: usize = 10_000;
const SEED: u64 = 7;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// How many values it was made of.
    pub count: usize,
}

impl Estimate {
    /// The median of `values`, and the middle 95 % of the medians of as many values drawn from
    /// them with replacement (percentile bootstrap). `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let middle = median(values)?;
        let mut random = Random::seeded(SEED);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                let drawn: Vec<f64> =
                    values.iter().map(|_| values[random.below(values.len())]).collect();
                median(&drawn)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[((RESAMPLES - 1) as f64 * share).round() as usize];
        Some(Self { median: middle, low: at(0.025), high: at(0.975), count: values.len() })
    }
}

/// The value in the middle, or between the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn an_interval_holds_its_median_and_comes_out_the_same_again() {
        let values: Vec<f64> = (0..20).map(|i| 1.0 + f64::from(i * 7 % 20) / 100.0).collect();
        let estimate = Estimate::of(&values).unwrap();
        assert!(estimate.low < estimate.median && estimate.median < estimate.high);
        assert!(estimate.low > 1.0 && estimate.high < 1.2, "{estimate:?}");
        assert_eq!(Estimate::of(&values), Some(estimate));
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        let estimate = Estimate::of(&[2.0; 5]).unwrap();
        assert_eq!((estimate.low, estimate.high, estimate.count), (2.0, 2.0, 5));
    }
}
