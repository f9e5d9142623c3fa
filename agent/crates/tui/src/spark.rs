//! Sparklines: the last minute of a number in a few cells.

use std::ops::Range;

use api_types::Point;

/// The time that a sparkline shows, and that is remembered, in seconds.
pub(crate) const SECONDS: f64 = 60.0;

/// Cells from nothing to the highest.
const CELLS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was counted in one step of history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// When it began, in seconds since the Unix epoch.
    pub since: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Requests that were answered.
    pub requests: u64,
    /// Connects that succeeded.
    pub connects: u64,
    /// Connects that failed, and requests without a response.
    pub failed: u64,
    /// Retransmitted segments.
    pub retransmits: u64,
    /// 99th percentile of request latency, in seconds.
    pub p99: Option<f64>,
}

/// How steps in one cell become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Their sum.
    Sum,
    /// The highest.
    Highest,
}

/// The last [`SECONDS`] before `until` in so many cells. A number that is zero all the time has low
/// cells; a time that was not observed has none.
pub(crate) fn line<'a>(
    steps: impl Iterator<Item = &'a Step>,
    until: f64,
    observed_seconds: f64,
    cells: usize,
    merge: Merge,
    number: impl Fn(&Step) -> f64,
) -> String {
    let values = values(steps, until, cells, merge, number);
    let highest = values.iter().copied().fold(0.0, f64::max);
    let cell_seconds = SECONDS / cells.max(1) as f64;
    let unobserved = ((SECONDS - observed_seconds).max(0.0) / cell_seconds).floor() as usize;
    let cell = |(at, value): (usize, &f64)| match value {
        _ if at < unobserved => ' ',
        value if *value <= 0.0 || highest <= 0.0 => CELLS[0],
        value => {
            // What is more than nothing is seen.
            let step = (value / highest * 7.0).round().clamp(1.0, 7.0);
            CELLS.get(step as usize).copied().unwrap_or(' ')
        }
    };
    values.iter().enumerate().map(cell).collect()
}

/// The values of the cells.
fn values<'a>(
    steps: impl Iterator<Item = &'a Step>,
    until: f64,
    cells: usize,
    merge: Merge,
    number: impl Fn(&Step) -> f64,
) -> Vec<f64> {
    let mut values = vec![0.0; cells];
    let begin = until - SECONDS;
    for step in steps {
        let Range { start, end } = step.since..step.since + step.seconds;
        let middle = f64::midpoint(start, end) - begin;
        let at = middle / SECONDS * cells as f64;
        if at < 0.0 {
            continue;
        }
        // The last step may end a little later than what is known of the clock.
        let Some(value) = values.get_mut((at as usize).min(cells.saturating_sub(1))) else {
            continue;
        };
        match merge {
            Merge::Sum => *value += number(step),
            Merge::Highest => *value = value.max(number(step)),
        }
    }
    values
}

// === impl Step ===

impl From<&Point> for Step {
    fn from(point: &Point) -> Self {
        let Point { since, seconds, connects_ok, connects_failed, requests, .. } = point;
        Self {
            since: since.seconds(),
            seconds: *seconds,
            requests: *requests,
            connects: *connects_ok,
            failed: connects_failed.saturating_add(point.unanswered),
            retransmits: point.retransmits,
            p99: point.p99_seconds,
        }
    }
}

impl Step {
    /// The load: requests, or connects where none are told from the bytes.
    pub fn load(&self) -> f64 {
        self.requests.max(self.connects).saturating_add(self.failed) as f64
    }

    /// When it ended.
    pub fn until(&self) -> f64 {
        self.since + self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(requests: &[(f64, u64)]) -> Vec<Step> {
        let step = |(since, requests): &(f64, u64)| Step {
            since: *since,
            seconds: 1.0,
            requests: *requests,
            ..Step::default()
        };
        requests.iter().map(step).collect()
    }

    fn shown(requests: &[(f64, u64)], observed: f64) -> String {
        let steps = steps(requests);
        line(steps.iter(), 1060.0, observed, 6, Merge::Sum, Step::load)
    }

    #[test]
    fn each_step_is_in_the_cell_of_its_time() {
        assert_eq!(shown(&[(1000.0, 8), (1059.0, 4)], 60.0), "█▁▁▁▁▅");
        assert_eq!(shown(&[(990.0, 8), (1025.0, 1)], 60.0), "▁▁█▁▁▁");
        assert_eq!(shown(&[(1060.0, 8)], 60.0), "▁▁▁▁▁█");
        assert_eq!(shown(&[(1000.0, 1), (1010.0, 1000)], 60.0), "▂█▁▁▁▁");
    }

    #[test]
    fn a_time_that_was_not_observed_is_not_zero() {
        assert_eq!(shown(&[(1055.0, 8)], 15.0), "    ▁█");
        assert_eq!(shown(&[], 60.0), "▁▁▁▁▁▁");
        assert_eq!(shown(&[], 0.0), "      ");
    }

    #[test]
    fn a_quantile_is_the_highest_of_its_cell() {
        let mut steps = steps(&[(1001.0, 0), (1002.0, 0), (1031.0, 0)]);
        for (step, p99) in steps.iter_mut().zip([0.1, 0.2, 0.1]) {
            step.p99 = Some(p99);
        }
        let p99 = |step: &Step| step.p99.unwrap_or_default();
        assert_eq!(line(steps.iter(), 1060.0, 60.0, 6, Merge::Highest, p99), "█▁▁▅▁▁");
    }
}
