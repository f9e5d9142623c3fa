//! The agent's own process, under the names every Prometheus client library uses.

use std::fmt;
use std::fs;

use super::metric::{Kind, Metric, NO_LABELS, Samples};

/// The system's figures about the agent's process; `None` where they are unavailable.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// User and system CPU time.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The limit on open file descriptors.
    pub max_fds: Option<u64>,
    /// When the process started, seconds since the Unix epoch.
    pub start_time_seconds: Option<f64>,
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the agent.",
        labels: &[],
        fed_by: "/proc/self/status",
        render: |view, samples| integer(samples, view.scrape.process.resident_bytes),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        help: "User and system CPU time of the agent; the time of its hooks in other processes is in portolan_hook_run_seconds_total.",
        labels: &[],
        fed_by: "/proc/self/stat",
        render: |view, samples| float(samples, view.scrape.process.cpu_seconds),
    },
    Metric {
        name: "process_open_fds",
        kind: Kind::Gauge,
        help: "Open file descriptors of the agent.",
        labels: &[],
        fed_by: "/proc/self/fd",
        render: |view, samples| integer(samples, view.scrape.process.open_fds),
    },
    Metric {
        name: "process_max_fds",
        kind: Kind::Gauge,
        help: "Maximum number of open file descriptors of the agent.",
        labels: &[],
        fed_by: "/proc/self/limits",
        render: |view, samples| integer(samples, view.scrape.process.max_fds),
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        help: "Start time of the agent, in seconds since the Unix epoch.",
        labels: &[],
        fed_by: "/proc/self/stat",
        render: |view, samples| float(samples, view.scrape.process.start_time_seconds),
    },
];

fn integer(samples: &mut Samples<'_>, value: Option<u64>) -> fmt::Result {
    value.map_or(Ok(()), |value| samples.integer(NO_LABELS, value))
}

fn float(samples: &mut Samples<'_>, value: Option<f64>) -> fmt::Result {
    value.map_or(Ok(()), |value| samples.float(NO_LABELS, value))
}

/// Ticks per second of the times in /proc (`USER_HZ`): part of the kernel's interface, and 100 on
/// every architecture we build for.
const TICKS: f64 = 100.0;

// === impl Process ===

impl Process {
    /// Reads /proc.
    pub fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/self/stat");
        let ticks = |field| stat_field(&stat, field).map(|ticks| ticks as f64 / TICKS);
        let boot = keyed(&read("/proc/stat"), "btime").map(|seconds| seconds as f64);
        Self {
            resident_bytes: keyed(&read("/proc/self/status"), "VmRSS:").map(|kib| kib * 1024),
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            max_fds: keyed(&read("/proc/self/limits"), "Max open files"),
            start_time_seconds: boot.zip(ticks(22)).map(|(boot, since)| boot + since),
        }
    }
}

/// A field of /proc/PID/stat by its number in proc(5). The second field, the command, may contain
/// anything and ends with the last parenthesis.
fn stat_field(stat: &str, field: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(field.checked_sub(3)?)?.parse().ok()
}

/// The first number on the line that begins with `key`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 0 0";
        assert_eq!(stat_field(stat, 14), Some(250));
        assert_eq!(stat_field(stat, 15), Some(50));
        assert_eq!(stat_field(stat, 22), Some(12345));
        assert_eq!(stat_field("", 14), None);
    }

    #[test]
    fn this_process_is_known() {
        let Process { resident_bytes, cpu_seconds, open_fds, max_fds, start_time_seconds } =
            Process::read();
        assert!(resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{resident_bytes:?}");
        assert!(cpu_seconds.is_some());
        assert!(open_fds.is_some_and(|fds| fds > 2), "{open_fds:?}");
        assert!(max_fds.is_some_and(|fds| fds > 2), "{max_fds:?}");
        assert!(start_time_seconds.is_some_and(|start| start > 1.5e9), "{start_time_seconds:?}");
    }
}
