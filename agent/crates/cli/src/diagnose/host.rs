//! The server's process and its cgroup, as /proc and the cgroup file system show them.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use linux::oom::{self, Kill};
use linux::starvation::{self, Cgroup, State};

use super::evidence::{Host, Killed, Name};

/// A cgroup is looked at twice, at least this long apart: three periods of a quota.
const APART: Duration = Duration::from_millis(350);

/// Older kills explain nothing that happens now.
const RECENT_SECONDS: f64 = 600.0;
/// A kill is so much older than the end that the agent has seen: it sees it at its next collection.
const BEFORE_SECONDS: RangeInclusive<f64> = -0.5..=2.0;

/// The first of two looks.
#[derive(Debug)]
pub(super) struct Look {
    pid: u32,
    began: Instant,
    cgroup: Option<Cgroup>,
}

// === impl Look ===

impl Look {
    /// Looks at the cgroup of a process.
    pub(super) fn begin(pid: u32) -> Self {
        Self { pid, began: Instant::now(), cgroup: starvation::cgroup(pid).ok() }
    }

    /// Looks again, and at the process.
    pub(super) fn finish(self) -> Host {
        let Self { pid, began, cgroup } = self;
        let state = match starvation::state(pid) {
            Ok(state) => state,
            Err(error) => {
                let why = format!("process {pid} cannot be inspected: {error}");
                return Host { skipped: Some(why), pid, ..Host::default() };
            }
        };
        // Only a cgroup with a quota has periods.
        let has_quota =
            cgroup.is_some_and(|cgroup| cgroup.periods.is_some_and(|periods| periods > 0));
        if has_quota {
            thread::sleep(APART.saturating_sub(began.elapsed()));
        }
        let later = starvation::cgroup(pid).ok();
        let State { letter, descriptors, descriptor_limit } = state;
        Host {
            skipped: None,
            pid,
            state: Some(letter),
            descriptors: descriptors.zip(descriptor_limit),
            throttled: cgroup.zip(later).and_then(|(first, second)| throttled(&first, &second)),
            cpu_pressure: later.and_then(|cgroup| cgroup.cpu_pressure),
            memory_pressure: later.and_then(|cgroup| cgroup.memory_pressure),
            oom_kills: later.and_then(|cgroup| cgroup.oom_kills),
            killed: None,
        }
    }
}

/// Whether a process is stopped now, by a signal or a debugger.
pub(super) fn is_stopped(pid: u32) -> bool {
    let letter = starvation::state(pid).ok().map(|state| state.letter);
    Host { state: letter, ..Host::default() }.is_stopped()
}

/// The server's process, if the OOM killer has killed it: one of its name, or of a script one that
/// ended when the agent saw the server end, `stopped` seconds ago.
pub(super) fn killed(server: &Name, stopped: Option<f64>) -> Option<Killed> {
    // A command name has 15 bytes.
    let short: Vec<u8> = server.name.bytes().take(15).collect();
    // A script has the command name of its interpreter.
    let is_script = server.name.contains('.');
    let kills = oom::kills(RECENT_SECONDS).ok()?;
    let mut found = kills.into_iter().map(|Kill { pid, command, seconds_ago }| {
        let is_named = command.as_bytes() == short;
        Killed { pid, command, seconds_ago, is_named }
    });
    found.find(|kill| {
        let at_once = |stopped: f64| BEFORE_SECONDS.contains(&(kill.seconds_ago - stopped));
        kill.is_named || (is_script && stopped.is_some_and(at_once))
    })
}

/// Periods between two looks, and those of them that were throttled.
fn throttled(first: &Cgroup, second: &Cgroup) -> Option<(u64, u64)> {
    let grown = |before: Option<u64>, after: Option<u64>| after?.checked_sub(before?);
    Some((
        grown(first.periods, second.periods)?,
        grown(first.throttled_periods, second.throttled_periods)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_periods_between_the_two_looks_count() {
        let at = |periods, throttled| Cgroup {
            periods: Some(periods),
            throttled_periods: Some(throttled),
            ..Cgroup::default()
        };
        assert_eq!(throttled(&at(100, 90), &at(104, 91)), Some((4, 1)));
        assert_eq!(throttled(&at(100, 90), &Cgroup::default()), None);
        assert_eq!(throttled(&at(100, 90), &at(5, 0)), None, "another cgroup");
    }

    #[test]
    fn this_process_runs() {
        let host = Look::begin(std::process::id()).finish();
        assert!(!host.is_stopped() && !host.is_short_of_descriptors(), "{host:?}");
        let gone = Look::begin(u32::MAX).finish();
        assert!(gone.skipped.is_some(), "{gone:?}");
    }
}
