//! The steps themselves, as series: what rows counted in the last hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_common::counters::EdgeCounters;

use super::{RecentView, Step};
use crate::snapshot::EdgeLabels;

/// What a row counted in one step of its history.
#[derive(Clone, Debug)]
pub struct HistoryPoint {
    /// How long ago the step began.
    pub since_seconds_ago: f64,
    /// Its length.
    pub seconds: f64,
    /// What was counted.
    pub counters: EdgeCounters,
}

impl RecentView {
    /// Steps of the last hour that are missing because memory was short.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was counted in each step of the last `window` seconds by the rows that are `wanted` and
    /// shown, as one series for each `name`, oldest step first; and the seconds covered. Steps without
    /// anything are left out.
    pub fn history<N: Ord>(
        &self,
        window: u64,
        name: impl Fn(&Arc<EdgeLabels>) -> Option<N>,
    ) -> (BTreeMap<N, Vec<HistoryPoint>>, f64) {
        let mut series: BTreeMap<N, Vec<HistoryPoint>> = BTreeMap::new();
        let (steps, seconds) = self.covering(window);
        let steps: Vec<&Step> = steps.collect();
        for step in steps.into_iter().rev() {
            let mut sums: BTreeMap<N, EdgeCounters> = BTreeMap::new();
            for (number, packed) in &step.grown {
                let subject = self.subjects.get(*number).filter(|subject| subject.is_shown());
                if let Some(name) = subject.and_then(|subject| name(&subject.labels)) {
                    packed.add_to(sums.entry(name).or_default());
                }
            }
            let age = |us: u64| self.now_us.saturating_sub(us) as f64 / 1e6;
            let (since_seconds_ago, until) = (age(step.since_us), age(step.until_us));
            let length = since_seconds_ago - until;
            for (name, counters) in sums {
                let point = HistoryPoint { since_seconds_ago, seconds: length, counters };
                series.entry(name).or_default().push(point);
            }
        }
        (series, seconds)
    }
}
