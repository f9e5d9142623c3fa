//! CPU time: of the whole machine from /proc/stat, and of the participating processes.
//!
//! The machine's figure counts: it includes the cost of a tool in kernel threads and interrupts.
//! The others show how much of it was used by other programs.

use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result};

/// Ticks of /proc/stat per second; a constant of Linux' interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// The clocks at one point in time.
pub struct Clocks {
    at: Instant,
    busy: f64,
    stolen: f64,
    own: f64,
    kernel: f64,
}

/// CPU time between two points in time.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub wall: Duration,
    /// Seconds in which a processor of this machine worked.
    pub busy: f64,
    /// Seconds that the hypervisor took (steal).
    pub stolen: f64,
    /// The part of `busy` that the given processes and our finished children used.
    pub own: f64,
    /// The part of `busy` that the kernel's own threads used, for any process.
    pub kernel: f64,
}

impl Clocks {
    /// Reads them; `processes` are those that take part and go on running.
    pub fn read(processes: &[u32]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let (busy, stolen) = machine(&stat).context("/proc/stat has no line `cpu`")?;
        let running: f64 = processes.iter().map(|id| process_seconds(*id).unwrap_or(0.0)).sum();
        let own = running + finished_children()?;
        Ok(Self { at: Instant::now(), busy, stolen, own, kernel: kernel_threads()? })
    }

    /// The difference to `earlier`.
    pub fn since(&self, earlier: &Self) -> Spent {
        Spent {
            wall: self.at - earlier.at,
            busy: self.busy - earlier.busy,
            stolen: self.stolen - earlier.stolen,
            own: self.own - earlier.own,
            kernel: self.kernel - earlier.kernel,
        }
    }
}

impl Spent {
    /// The share of the busy time that went to programs that do not take part.
    pub fn foreign(&self) -> f64 {
        let known = self.own + self.kernel;
        if self.busy > 0.0 { (1.0 - known / self.busy).max(0.0) } else { 0.0 }
    }
}

/// Processor seconds of a process, all of its threads; exact to the nanosecond.
pub fn process_seconds(id: u32) -> io::Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may exit between the two reads.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        nanoseconds += first.unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Processor seconds of all kernel threads.
fn kernel_threads() -> Result<f64> {
    // Their parent is kthreadd, which has a fixed number.
    let children = fs::read_to_string("/proc/2/task/2/children");
    let children = children.context("listing the kernel's threads")?;
    let ids = children.split_whitespace().filter_map(|word| word.parse().ok());
    // A process may exit between the two reads.
    Ok(ids.map(|id| process_seconds(id).unwrap_or(0.0)).sum())
}

/// Busy and stolen seconds of all processors together.
fn machine(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal (guest time is in user already)
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    let busy = user + nice + system + irq + softirq;
    Some((busy / TICKS_PER_SECOND, steal / TICKS_PER_SECOND))
}

/// Processor seconds of all children that have ended and were waited for.
fn finished_children() -> Result<f64> {
    // SAFETY: rusage is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes to a valid rusage.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("reading the children's processor time");
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_disks_and_stolen_time_are_not_work() {
        let stat = "cpu  100 10 200 5000 70 3 7 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 1\n";
        assert_eq!(machine(stat), Some((3.2, 0.4)));
        assert_eq!(machine("intr 1\n"), None);
    }

    #[test]
    fn our_own_time_moves() {
        let id = std::process::id();
        let before = process_seconds(id).unwrap();
        let mut sum = 0_u64;
        // The kernel brings the time of a running thread up to date on its ticks only.
        for _ in 0..1000 {
            for i in 0..20_000_000_u64 {
                sum = std::hint::black_box(sum.wrapping_add(i));
            }
            if process_seconds(id).unwrap() > before {
                return;
            }
        }
        panic!("not in thousands of millions of additions: {sum}");
    }
}
