//! Atomic operations of the BPF instruction set, which `core` does not offer on this target.
//!
//! Programs of one CPU interrupt each other (softirq over process context), so even per-CPU
//! counters need atomic additions to stay exact. All of them exist since Linux 5.12.

use core::arch::asm;

/// `*at += value`.
///
/// # Safety
/// `at` must be valid for writes and aligned, and point into a map value.
#[inline(always)]
pub unsafe fn add(at: *mut u64, value: u64) {
    // SAFETY: the caller's contract.
    unsafe { asm!("lock *(u64 *)({at} + 0) += {value}", at = in(reg) at, value = in(reg) value) };
}

/// Stores `value` and returns what was there.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn swap(at: *mut u64, value: u64) -> u64 {
    let old;
    // SAFETY: the caller's contract.
    unsafe {
        asm!("{value} = xchg_64({at} + 0, {value})", at = in(reg) at, value = inout(reg) value => old);
    };
    old
}

/// Stores `new` if `old` is there; returns what was there.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn compare_swap(at: *mut u64, old: u64, new: u64) -> u64 {
    let found;
    // SAFETY: the caller's contract.
    unsafe {
        asm!("r0 = cmpxchg_64({at} + 0, r0, {new})", at = in(reg) at, new = in(reg) new, inout("r0") old => found);
    };
    found
}
