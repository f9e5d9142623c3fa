//! What this host shows of the server: its process, its cgroup, and full connection tracking.

use std::net::IpAddr;

/// The server's process and cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Host {
    /// Why it was not looked at.
    pub(crate) skipped: Option<String>,
    pub(crate) pid: u32,
    /// The state of the process, as in /proc/PID/stat.
    pub(crate) state: Option<char>,
    /// Open descriptors and their limit.
    pub(crate) descriptors: Option<(u64, u64)>,
    /// CFS periods while the command watched, and those in which the quota was used up.
    pub(crate) throttled: Option<(u64, u64)>,
    /// Shares of the last ten seconds.
    pub(crate) cpu_pressure: Option<f64>,
    pub(crate) memory_pressure: Option<f64>,
    /// Processes of the cgroup that the OOM killer has killed.
    pub(crate) oom_kills: Option<u64>,
    /// The server's process, or one that ended when the server did, if the OOM killer killed it.
    pub(crate) killed: Option<Killed>,
}

/// A process that the OOM killer has killed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Killed {
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) seconds_ago: f64,
    /// Whether it has the server's name; otherwise only the time matches.
    pub(crate) is_named: bool,
}

/// A network namespace of this host whose connection tracking table is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FullTable {
    /// Its name, or its number as `net:[N]`.
    pub(crate) namespace: String,
    pub(crate) used: u64,
    pub(crate) limit: u64,
    /// Whether the client or the server is in it; others may be on the path between them.
    pub(crate) is_of_an_end: bool,
}

/// An interface with an address of the client or of the server that carries nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLink {
    /// Its name, and that of its network namespace, or the number as `net:[N]`.
    pub(crate) interface: String,
    pub(crate) namespace: String,
    pub(crate) address: IpAddr,
    /// It is up, but has no carrier; else it is down itself.
    pub(crate) is_up: bool,
}

// === impl Host ===

impl Host {
    /// Whether the process is stopped, by a signal or a debugger.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, Some('T' | 't'))
    }

    /// The share of the periods, while the command watched, in which the CPU quota was used up.
    pub(crate) fn throttled_share(&self) -> Option<f64> {
        let (periods, throttled) = self.throttled.filter(|(periods, _)| *periods > 0)?;
        Some(throttled as f64 / periods as f64)
    }

    /// Whether hardly any descriptor is left.
    pub(crate) fn is_short_of_descriptors(&self) -> bool {
        self.descriptors
            .is_some_and(|(open, limit)| open.saturating_mul(100) >= limit.saturating_mul(95))
    }
}
