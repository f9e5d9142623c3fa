//! Results of pushes to a collector; no series where none is configured.

use std::fmt;
use std::time::Duration;

use super::View;
use super::metric::{Kind, Metric, NO_LABELS, Samples};

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushResult {
    /// All of it was taken.
    Ok,
    /// Some data points were rejected.
    Partial,
    /// No collector answers at the address.
    Unreachable,
    /// Timeout.
    Timeout,
    /// The collector requested a later retry.
    Busy,
    /// The collector rejected it.
    Refused,
    /// There was nothing to push: the kernel's tables could not be read.
    Unavailable,
}

/// All pushes since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pushes {
    by_result: [u64; PushResult::ALL.len()],
    rejected_points: u64,
    last_seconds: f64,
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_otlp_pushes_total",
        kind: Kind::Counter,
        help: "Pushes to the OTLP collector by result; a failed push loses nothing, because the next carries the totals.",
        labels: &["result"],
        fed_by: "otlp.endpoint",
        render: pushes,
    },
    Metric {
        name: "portolan_otlp_rejected_points_total",
        kind: Kind::Counter,
        help: "Data points that the OTLP collector rejected.",
        labels: &[],
        fed_by: "otlp.endpoint",
        render: |view, samples| {
            let pushes = view.scrape.pushes;
            pushes.map_or(Ok(()), |pushes| samples.integer(NO_LABELS, pushes.rejected_points))
        },
    },
    Metric {
        name: "portolan_otlp_push_duration_seconds",
        kind: Kind::Gauge,
        help: "Duration of the latest push, including retries.",
        labels: &[],
        fed_by: "otlp.endpoint",
        render: |view, samples| {
            let pushes = view.scrape.pushes;
            pushes.map_or(Ok(()), |pushes| samples.float(NO_LABELS, pushes.last_seconds))
        },
    },
];

/// Every result from the start, so that an alert has a zero to rise from.
fn pushes(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let Some(pushes) = &view.scrape.pushes else { return Ok(()) };
    for (result, count) in PushResult::ALL.iter().zip(pushes.by_result) {
        samples.integer(Some(&[("result", result.as_str())]), count)?;
    }
    Ok(())
}

// === impl PushResult ===

impl PushResult {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Partial,
        Self::Unreachable,
        Self::Timeout,
        Self::Busy,
        Self::Refused,
        Self::Unavailable,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

// === impl Pushes ===

impl Pushes {
    /// One more.
    pub fn count(&mut self, result: PushResult, rejected: u64, took: Duration) {
        if let Some(count) = self.by_result.get_mut(result as usize) {
            *count += 1;
        }
        self.rejected_points += rejected;
        self.last_seconds = took.as_secs_f64();
    }

    /// How many ended so.
    pub fn of(&self, result: PushResult) -> u64 {
        self.by_result.get(result as usize).copied().unwrap_or(0)
    }
}
