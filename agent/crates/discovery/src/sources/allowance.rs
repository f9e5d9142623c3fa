//! How much CPU time a source may take: a share of the time that passes, and some in advance after a
//! quiet time, so that a single change is known soon and a storm of changes costs no more than the
//! share.

use std::time::{Duration, Instant};

/// CPU time that may be taken.
pub(super) struct Allowance {
    /// One part in this of the time that passes.
    share: u32,
    /// At most so much is saved up.
    most: Duration,
    /// Saved up at `at`.
    left: Duration,
    /// Taken in advance: the allowance begins to grow again after this moment.
    at: Instant,
}

// === impl Allowance ===

impl Allowance {
    /// One part in `share` of the time from `now` on, and `most` at once.
    pub(super) fn new(share: u32, most: Duration, now: Instant) -> Self {
        Self { share, most, left: most, at: now }
    }

    /// Takes `cost` at `now`; returns how long to wait until there is an allowance again.
    pub(super) fn take(&mut self, cost: Duration, now: Instant) -> Duration {
        let grown = now.saturating_duration_since(self.at) / self.share;
        self.left = (self.left + grown).min(self.most);
        self.at = self.at.max(now);
        let missing = cost.saturating_sub(self.left);
        self.left = self.left.saturating_sub(cost);
        self.at += missing.saturating_mul(self.share);
        self.at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHARE: u32 = 50;
    const MOST: Duration = Duration::from_millis(500);
    const COST: Duration = Duration::from_millis(100);

    #[test]
    fn what_was_saved_up_is_taken_at_once_and_the_rest_at_the_share() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(SHARE, MOST, now);
        for _ in 0..5 {
            assert_eq!(allowance.take(COST, now), Duration::ZERO);
        }
        for _ in 0..5 {
            let wait = allowance.take(COST, now);
            assert_eq!(wait, COST * SHARE);
            now += wait;
        }
        // It grows to its limit in a quiet time, and not beyond.
        now += MOST * SHARE * 10;
        for _ in 0..5 {
            assert_eq!(allowance.take(COST, now), Duration::ZERO);
        }
        assert_eq!(allowance.take(COST, now), COST * SHARE);
    }

    proptest! {
        #[test]
        fn no_sequence_takes_more_than_the_share_and_what_was_saved_up(
            costs in prop::collection::vec((0u64..300, 0u64..3000), 1..50),
        ) {
            let began = Instant::now();
            let (mut now, mut taken) = (began, Duration::ZERO);
            let mut allowance = Allowance::new(SHARE, MOST, began);
            for (cost, idle) in costs {
                let cost = Duration::from_millis(cost);
                taken += cost;
                now += allowance.take(cost, now);
                // A nanosecond for each division.
                let may = MOST + (now - began) / SHARE + Duration::from_nanos(100);
                prop_assert!(taken <= may, "{taken:?} of {may:?}");
                now += Duration::from_millis(idle);
            }
        }
    }
}
