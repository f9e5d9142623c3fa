//! The clock of the kernel half.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in microseconds; `bpf_ktime_get_ns` reads the same clock.
#[must_use]
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}
