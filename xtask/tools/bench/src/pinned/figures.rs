//! Statistics of slices: the 10th percentile of each variant, and the confidence of a difference.

use crate::random::Random;

/// The percentile that counts. Disturbances of a slice (an interrupt, another program, the
/// hypervisor) only make it longer: the fast ones show the cost of the work itself. The very
/// fastest would be an extreme value, which depends on the number of slices.
const PERCENTILE: f64 = 0.10;
/// How often the rounds are drawn anew for an interval.
const RESAMPLES: usize = 2000;

/// Nanoseconds per operation of a variant's slices, by round.
pub type Rounds = Vec<Vec<f64>>;

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// The largest difference that the interval does not rule out.
    pub fn reach(&self) -> f64 {
        self.low.abs().max(self.high.abs())
    }
}

/// The 10th percentile of all slices.
pub fn level(rounds: &Rounds) -> Option<f64> {
    percentile(rounds.iter().flatten().copied().collect(), PERCENTILE)
}

/// How much more `of` costs than `base`; `None` unless both have slices of the same rounds.
///
/// The interval is the middle 95 % of the differences when as many rounds are drawn with
/// replacement. Rounds are drawn, not slices: slices of one block are alike, so they would give too
/// narrow an interval. Both variants get the same rounds: drift from round to round moves both.
pub fn difference(of: &Rounds, base: &Rounds, seed: u64) -> Option<Estimate> {
    if of.len() != base.len() {
        return None;
    }
    let value = level(of)? - level(base)?;
    let mut random = Random::seeded(seed);
    let mut drawn = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let chosen: Vec<usize> = of.iter().map(|_| random.below(of.len())).collect();
        drawn.push(level_of(of, &chosen)? - level_of(base, &chosen)?);
    }
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| drawn[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Estimate { value, low: at(0.025), high: at(0.975) })
}

fn level_of(rounds: &Rounds, chosen: &[usize]) -> Option<f64> {
    let slices = chosen.iter().filter_map(|round| rounds.get(*round)).flatten();
    percentile(slices.copied().collect(), PERCENTILE)
}

/// The smallest value that at least `share` of the values do not exceed (nearest rank).
fn percentile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
    if rank > values.len() {
        return None;
    }
    let (_, value, _) = values.select_nth_unstable_by(rank - 1, f64::total_cmp);
    Some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of ten slices that scatter over 9 ns, on a base that moves from round to round.
    fn drifting(rounds: usize, above: f64) -> Rounds {
        let base = |round: usize| 10_000.0 + (round * 37 % rounds) as f64 * 20.0;
        let slice = |round, i: usize| base(round) + above + (i * 7 % 10) as f64;
        (0..rounds).map(|round| (0..10).map(|i| slice(round, i)).collect()).collect()
    }

    #[test]
    fn the_percentile_is_a_value_that_was_measured() {
        let hundred = || (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(hundred(), 0.1), Some(10.0));
        assert_eq!(percentile(hundred(), 1.0), Some(100.0));
        assert_eq!(percentile(vec![3.0, 1.0, 2.0], 0.1), Some(1.0));
        assert_eq!(percentile(vec![4.0], 0.1), Some(4.0));
        assert_eq!(percentile(Vec::new(), 0.1), None);
    }

    #[test]
    fn slices_that_were_disturbed_do_not_move_the_level() {
        let calm: Rounds = vec![(0..10).map(|i| 10_000.0 + f64::from(i)).collect(); 20];
        let mut disturbed = calm.clone();
        for slice in disturbed.iter_mut().flat_map(|slices| slices.iter_mut().skip(5)) {
            *slice *= 3.0;
        }
        assert_eq!((level(&calm), level(&disturbed)), (Some(10_000.0), Some(10_000.0)));
    }

    #[test]
    fn a_drift_that_both_share_leaves_no_doubt_about_their_difference() {
        let estimate = difference(&drifting(40, 50.0), &drifting(40, 0.0), 1).unwrap();
        assert_eq!(estimate, Estimate { value: 50.0, low: 50.0, high: 50.0 });
    }

    #[test]
    fn the_interval_of_two_that_are_equal_holds_zero() {
        let noisy = |seed| -> Rounds {
            let mut random = Random::seeded(seed);
            (0..60)
                .map(|_| (0..10).map(|_| 10_000.0 + random.below(400) as f64).collect())
                .collect()
        };
        let estimate = difference(&noisy(1), &noisy(2), 3).unwrap();
        assert!(estimate.low < 0.0 && estimate.high > 0.0, "{estimate:?}");
        assert!(estimate.low < estimate.value && estimate.value < estimate.high, "{estimate:?}");
        assert!(estimate.reach() < 40.0, "{estimate:?}");
    }

    #[test]
    fn a_difference_of_one_round_out_of_many_widens_the_interval() {
        let base = vec![vec![100.0; 10]; 10];
        let mut once = vec![vec![130.0; 10]; 10];
        once[4] = vec![90.0; 10];
        let estimate = difference(&once, &base, 1).unwrap();
        assert_eq!((estimate.low, estimate.high), (-10.0, 30.0));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let (of, mut base) = (drifting(20, 5.0), drifting(20, 0.0));
        base.reverse();
        assert_eq!(difference(&of, &base, 9), difference(&of, &base, 9));
    }

    #[test]
    fn without_slices_or_with_other_rounds_nothing_is_claimed() {
        assert_eq!(difference(&Vec::new(), &Vec::new(), 1), None);
        assert_eq!(difference(&drifting(3, 0.0), &drifting(4, 0.0), 1), None);
    }
}
