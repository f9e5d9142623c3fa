//! Hooks: whether they are attached, and their cost.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};

const HOOK: &[&str] = &["hook"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_hook_attached",
        kind: Kind::Gauge,
        help: "1 if the hook is attached, else 0; /api/v1/status shows why, and what is not observed.",
        labels: HOOK,
        fed_by: "the loader",
        render: attached,
    },
    Metric {
        name: "portolan_hook_runs_total",
        kind: Kind::Counter,
        help: "Runs of the hook's program; only with --run-stats.",
        labels: HOOK,
        fed_by: "bpf_prog_info",
        render: runs,
    },
    Metric {
        name: "portolan_hook_run_seconds_total",
        kind: Kind::Counter,
        help: "Time spent in the hook's program; only with --run-stats.",
        labels: HOOK,
        fed_by: "bpf_prog_info",
        render: run_seconds,
    },
    Metric {
        name: "portolan_hook_misses_total",
        kind: Kind::Counter,
        help: "Runs that the kernel skipped because the program was already running on that CPU; an upper bound where a fallback program handles what was skipped (Linux 7.0 and later).",
        labels: HOOK,
        fed_by: "bpf_prog_info",
        render: misses,
    },
];

fn attached(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for hook in &view.snapshot.hooks {
        samples.integer(Some(&[("hook", hook.name.as_str())]), u64::from(hook.attached))?;
    }
    Ok(())
}

fn runs(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    // Without run-time statistics the kernel reports zero, which would be a lie.
    for hook in view.snapshot.hooks.iter().filter(|hook| hook.runs > 0) {
        samples.integer(Some(&[("hook", hook.name.as_str())]), hook.runs)?;
    }
    Ok(())
}

fn run_seconds(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for hook in view.snapshot.hooks.iter().filter(|hook| hook.runs > 0) {
        samples.float(Some(&[("hook", hook.name.as_str())]), hook.run_seconds)?;
    }
    Ok(())
}

fn misses(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for hook in view.snapshot.hooks.iter().filter(|hook| hook.attached) {
        samples.integer(Some(&[("hook", hook.name.as_str())]), hook.misses)?;
    }
    Ok(())
}

// === impl View ===

impl View {
    /// Whether a hook is off. Zeros of what nothing else feeds would say that nothing happened.
    pub(super) fn lacks(&self, hook: &str) -> bool {
        self.snapshot.hooks.iter().any(|known| known.name == hook && !known.attached)
    }
}
