//! Which steps are kept, how long they are, and what goes when memory is short.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{HISTORY_SECONDS, LONGEST_SECONDS, RecentView, Step};
use crate::packed::Packed;

/// Bytes of all steps at most. An edge that is always busy takes 1.5 kB, so these are those of ten
/// thousand.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// Bytes of all steps at most while there is history beyond windows: an hour of a hundred edges that
/// are always busy.
pub(super) const HISTORY_BYTES: usize = 4 << 20;

/// Bytes that a packed edge takes besides its numbers.
pub(super) const PER_EDGE: usize = 40;

/// How long joined steps may be, by the age of their end: microseconds both. Collections are a bit
/// more than a second apart.
const HISTORY_STEPS: &[(u64, u64)] = &[(60_000_000, 1_050_000), (u64::MAX, 10_500_000)];

/// The same when memory is short.
const LONGEST_STEPS: &[(u64, u64)] =
    &[(10_000_000, 2_000_000), (70_000_000, 10_000_000), (u64::MAX, 60_000_000)];

impl RecentView {
    pub(super) fn push(&mut self, started_us: u64, now_us: u64, grown: HashMap<u32, Packed>) {
        let since_us = self.steps.back().map_or(started_us, |last| last.until_us);
        let bytes = grown.values().map(|packed| packed.len() + PER_EDGE).sum();
        self.now_us = now_us;
        self.steps.push_back(Arc::new(Step { since_us, until_us: now_us, grown, bytes }));
        self.join(HISTORY_STEPS);
        while self.is_covered_without_first(HISTORY_SECONDS) {
            self.steps.pop_front();
        }
        let mut bytes = self.bytes();
        while bytes > HISTORY_BYTES && self.is_covered_without_first(LONGEST_SECONDS) {
            bytes -= self.drop_first();
        }
        if bytes > HISTORY_BYTES {
            self.join(LONGEST_STEPS);
            bytes = self.bytes();
        }
        while self.steps.len() > 1 && bytes > MAX_BYTES {
            bytes -= self.drop_first();
        }
    }

    /// Whether the second step and those after it cover this many seconds.
    fn is_covered_without_first(&self, seconds: u64) -> bool {
        let second = self.steps.get(1);
        let age = |step: &Arc<Step>| self.now_us.saturating_sub(step.since_us);
        second.is_some_and(|step| age(step) >= seconds * 1_000_000)
    }

    /// Drops the first step because memory is short; returns its bytes.
    fn drop_first(&mut self) -> usize {
        self.dropped += 1;
        self.steps.pop_front().map_or(0, |step| step.bytes)
    }

    /// Joins neighbours that are old enough.
    fn join(&mut self, longest_steps: &[(u64, u64)]) {
        let mut at = 0;
        while let (Some(first), Some(second)) = (self.steps.get(at), self.steps.get(at + 1)) {
            let age = self.now_us.saturating_sub(second.until_us);
            let longest = longest_steps.iter().find(|(until, _)| age < *until);
            let length = second.until_us.saturating_sub(first.since_us);
            if longest.is_some_and(|(_, longest)| length <= *longest) {
                let joined = Arc::new(first.joined(second));
                self.steps.remove(at);
                if let Some(step) = self.steps.get_mut(at) {
                    *step = joined;
                }
            } else {
                at += 1;
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.steps.iter().map(|step| step.bytes).sum()
    }
}
