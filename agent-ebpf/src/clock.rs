//! The clock of the kernel half, which is that of the stack's time stamps.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

/// CLOCK_MONOTONIC in microseconds.
#[inline(always)]
pub fn monotonic_us() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() / 1000 }
}
