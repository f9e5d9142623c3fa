//! What an edge did in some time: a small sum, made from the differences between two drains.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::edge::CONNECT_OK;
use agent_common::histogram::Histogram;

use super::delta::Growth;

/// One step of a sliding window, seconds.
pub const STEP_SECONDS: u64 = 10;
/// The longest window that is kept, seconds.
pub const KEEP_SECONDS: u64 = 300;

/// What happened on an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections that became established, those from before the agent included.
    pub connections: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Resets in either direction.
    pub resets: u64,
    /// Established connections that a kernel gave up.
    pub aborts: u64,
    /// Requests.
    pub requests: Durations,
}

/// Durations on the decimal grid, without the buckets that are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Sum of all, microseconds.
    pub sum_us: u64,
    buckets: BTreeMap<u8, u64>,
}

/// Tallies since the start, and those of the last minutes in steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Since the agent or the rows of the kernel began, whichever is earlier.
    pub total: Tally,
    /// Steps with something in them, oldest first. Shared with the pictures taken of them.
    recent: VecDeque<(u64, Arc<Tally>)>,
}

/// Values of which two make one.
pub trait Merge {
    /// Adds `other`.
    fn merge(&mut self, other: &Self);
}

// === impl Tally ===

impl Tally {
    /// What `now` has and `before` had not. Counters only grow, so a difference is never negative.
    pub fn between(before: &EdgeCounters, now: &EdgeCounters) -> Self {
        let failed = |counters: &EdgeCounters| -> u64 {
            let results = counters.connects.iter().enumerate();
            results.filter(|(result, _)| *result != usize::from(CONNECT_OK)).map(|(_, n)| n).sum()
        };
        Self {
            connections: now.opened.saturating_sub(before.opened),
            failed: failed(now).saturating_sub(failed(before)),
            resets: now.resets().saturating_sub(before.resets()),
            aborts: now.aborted().saturating_sub(before.aborted()),
            requests: Durations::between(&before.request, &now.request),
        }
    }

    /// What an edge did.
    pub fn of(grown: &Growth) -> Self {
        match (&grown.before, &grown.now) {
            _ if grown.is_empty() => Self::default(),
            (Some(before), Some(now)) => Self::between(before, now),
            (_, Some(now)) => Self::between(&EdgeCounters::ZERO, now),
            (_, None) => Self::default(),
        }
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        let Self { connections, failed, resets, aborts, requests } = self;
        *connections == 0
            && *failed == 0
            && *resets == 0
            && *aborts == 0
            && requests.buckets.is_empty()
    }
}

impl Merge for Tally {
    fn merge(&mut self, other: &Self) {
        let Self { connections, failed, resets, aborts, requests } = self;
        *connections += other.connections;
        *failed += other.failed;
        *resets += other.resets;
        *aborts += other.aborts;
        requests.merge(&other.requests);
    }
}

// === impl Durations ===

impl Durations {
    fn between(before: &Histogram, now: &Histogram) -> Self {
        let pairs = before.buckets.iter().zip(now.buckets).enumerate();
        let grown = pairs.filter(|(_, (before, now))| now > *before);
        Self {
            sum_us: now.sum_us.saturating_sub(before.sum_us),
            buckets: grown.map(|(i, (before, now))| (i as u8, now - before)).collect(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// The bound of the grid that holds the `q` quantile, seconds; `None` without any. Above the
    /// last bound of the grid it is that bound.
    pub fn quantile_seconds(&self, q: f64) -> Option<f64> {
        let mut histogram = Histogram::EMPTY;
        for (i, n) in &self.buckets {
            if let Some(bucket) = histogram.buckets.get_mut(usize::from(*i)) {
                *bucket = *n;
            }
        }
        let last = agent_common::histogram::BOUNDS_US.last().copied().map_or(f64::MAX, f64::from);
        histogram.quantile_us(q).map(|us| us.min(last) / 1e6)
    }
}

impl Merge for Durations {
    fn merge(&mut self, other: &Self) {
        self.sum_us += other.sum_us;
        for (bucket, n) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += n;
        }
    }
}

// === impl History ===

impl History {
    /// Takes in what happened until `now` (seconds, any epoch that only grows).
    pub fn add(&mut self, now: u64, tally: &Tally) {
        self.total.merge(tally);
        self.add_recent(now / STEP_SECONDS, tally);
        let oldest = (now / STEP_SECONDS).saturating_sub(KEEP_SECONDS / STEP_SECONDS);
        while self.recent.front().is_some_and(|(step, _)| *step < oldest) {
            self.recent.pop_front();
        }
    }

    /// Takes in what happened before anyone watched: it counts, but in no window.
    pub fn add_earlier(&mut self, tally: &Tally) {
        self.total.merge(tally);
    }

    /// Whether nothing ever happened.
    pub fn is_empty(&self) -> bool {
        self.total.is_empty()
    }

    /// What happened in the `window` seconds before `now`, rounded up to whole steps.
    pub fn last(&self, now: u64, window: u64) -> Tally {
        let first = first_step(now, window);
        let mut sum = Tally::default();
        for (_, tally) in self.recent.iter().filter(|(step, _)| *step >= first) {
            sum.merge(tally);
        }
        sum
    }

    fn add_recent(&mut self, step: u64, tally: &Tally) {
        let place = self.recent.partition_point(|(at, _)| *at < step);
        match self.recent.get_mut(place) {
            Some((at, sum)) if *at == step => Arc::make_mut(sum).merge(tally),
            _ => self.recent.insert(place, (step, Arc::new(tally.clone()))),
        }
    }
}

impl Merge for History {
    fn merge(&mut self, other: &Self) {
        let Self { total, recent: _ } = self;
        total.merge(&other.total);
        for (step, tally) in &other.recent {
            self.add_recent(*step, tally);
        }
    }
}

/// How many seconds before `now` a window really covers.
pub fn covered_seconds(now: u64, window: u64) -> u64 {
    now - first_step(now, window) * STEP_SECONDS
}

fn first_step(now: u64, window: u64) -> u64 {
    now.saturating_sub(window.min(KEEP_SECONDS)) / STEP_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tally;
    use proptest::prelude::*;

    #[test]
    fn a_difference_is_what_happened_in_between() {
        let mut before = EdgeCounters::ZERO;
        before.opened = 2;
        before.request.observe(100);
        let mut now = before.clone();
        now.opened = 5;
        now.connects = [3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        now.resets_sent[0] = 1;
        now.resets_received[1] = 2;
        now.aborts[2] = 4;
        now.request.observe(100);
        now.request.observe(5000);
        let tally = Tally::between(&before, &now);
        assert_eq!((tally.connections, tally.failed, tally.resets, tally.aborts), (3, 2, 3, 4));
        assert_eq!((tally.requests.count(), tally.requests.sum_us), (2, 5100));
        assert_eq!(tally.requests.quantile_seconds(0.99), Some(0.005));
        assert!(Tally::between(&now, &now).is_empty());
    }

    #[test]
    fn a_window_holds_its_steps_and_not_the_ones_before() {
        let mut history = History::default();
        for second in [5, 15, 25, 299] {
            history.add(second, &tally(1, 0));
        }
        assert_eq!(history.last(299, 1).connections, 1);
        assert_eq!(history.last(299, 280).connections, 3);
        assert_eq!(covered_seconds(299, 280), 289);
        assert_eq!(history.last(299, 300).connections, 4);
        history.add_earlier(&tally(7, 0));
        assert_eq!((history.last(299, 300).connections, history.total.connections), (4, 11));
        history.add(1000, &tally(1, 0));
        assert_eq!((history.last(1000, 300).connections, history.total.connections), (1, 12));
        assert_eq!(history.recent.len(), 1, "what no window can reach is dropped");
    }

    proptest! {
        /// Splitting a history in two and merging them again changes nothing.
        #[test]
        fn merging_conserves_every_window(
            mut at in prop::collection::vec((0u64..400, 0u64..5, 0u64..5, any::<bool>()), 0..40),
            window in 1u64..400,
        ) {
            at.sort_unstable();
            let (mut whole, mut left, mut right) = <(History, History, History)>::default();
            for (now, connections, requests, side) in &at {
                let tally = tally(*connections, *requests);
                whole.add(*now, &tally);
                if *side { &mut left } else { &mut right }.add(*now, &tally);
            }
            left.merge(&right);
            prop_assert_eq!(&left.total, &whole.total);
            prop_assert_eq!(left.last(400, window), whole.last(400, window));
        }
    }
}
