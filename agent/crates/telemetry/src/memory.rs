//! The agent's own memory, and overflow mode.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, NO_LABELS, Samples};
use model::memory::Usage;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_memory_used_bytes",
        kind: Kind::Gauge,
        help: "Memory that counts against the nearest limit: the agent's resident memory against limits.memory_bytes, or its cgroup's without pages of files against the cgroup's. Absent without a limit.",
        labels: &[],
        fed_by: "/proc/self/statm, memory.current",
        render: |view, samples| usage(view, samples, |usage| usage.used),
    },
    Metric {
        name: "portolan_memory_limit_bytes",
        kind: Kind::Gauge,
        help: "The limit that portolan_memory_used_bytes is nearest to.",
        labels: &[],
        fed_by: "limits.memory_bytes, memory.max",
        render: |view, samples| usage(view, samples, |usage| usage.limit),
    },
    Metric {
        name: "portolan_held_rows",
        kind: Kind::Gauge,
        help: "Free rows for edges that are not used, because memory is short.",
        labels: &[],
        fed_by: "the agent",
        render: |view, samples| samples.integer(NO_LABELS, view.snapshot.memory.held_rows),
    },
    Metric {
        name: "portolan_memory_overflow_mode",
        kind: Kind::Gauge,
        help: "1 in overflow mode: memory is short, and new edges are counted in the rows `other`.",
        labels: &[],
        fed_by: "the agent",
        render: |view, samples| {
            samples.integer(NO_LABELS, u64::from(view.snapshot.memory.overflow_mode))
        },
    },
    Metric {
        name: "portolan_memory_overflows_total",
        kind: Kind::Counter,
        help: "How often the agent entered overflow mode.",
        labels: &[],
        fed_by: "the agent",
        render: |view, samples| samples.integer(NO_LABELS, view.snapshot.memory.overflows),
    },
    Metric {
        name: "portolan_history_steps_dropped_total",
        kind: Kind::Counter,
        help: "Steps of the history of an hour that went before their time, because the edges that counted something were many.",
        labels: &[],
        fed_by: "the agent",
        render: |view, samples| samples.integer(NO_LABELS, view.snapshot.recent.dropped()),
    },
];

fn usage(view: &View, samples: &mut Samples<'_>, of: fn(Usage) -> u64) -> fmt::Result {
    view.snapshot.memory.usage.map_or(Ok(()), |usage| samples.integer(NO_LABELS, of(usage)))
}
