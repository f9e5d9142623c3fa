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

/// `*at |= value`.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn or(at: *mut u64, value: u64) {
    // SAFETY: the caller's contract.
    unsafe { asm!("lock *(u64 *)({at} + 0) |= {value}", at = in(reg) at, value = in(reg) value) };
}

/// `*at &= value`.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn and(at: *mut u64, value: u64) {
    // SAFETY: the caller's contract.
    unsafe { asm!("lock *(u64 *)({at} + 0) &= {value}", at = in(reg) at, value = in(reg) value) };
}

/// Lets `*at` grow to `value`; returns by how much it did, 0 if it was there or beyond already.
///
/// However many readers of a growing value do this at once and in whatever order they come, what
/// they return adds up to the growth. A reader beaten four times leaves the rest to the next.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn raise(at: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's contract.
    unsafe {
        let mut before = core::ptr::read_volatile(at);
        let mut tries = 0;
        while tries < 4 {
            let growth = value.wrapping_sub(before);
            if growth as i64 <= 0 {
                return 0;
            }
            let found = compare_swap(at, before, value);
            if found == before {
                return growth;
            }
            before = found;
            tries += 1;
        }
    }
    0
}

/// As [`raise`] for the two halves of `*at`, each of which wraps: the growth of `low` and of `high`.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn raise_halves(at: *mut u64, low: u32, high: u32) -> (u32, u32) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut before = core::ptr::read_volatile(at);
        let mut tries = 0;
        while tries < 2 {
            let (low_before, high_before) = (before as u32, (before >> 32) as u32);
            let (low_growth, high_growth) = (growth(low_before, low), growth(high_before, high));
            if low_growth | high_growth == 0 {
                return (0, 0);
            }
            let low = u64::from(low_before.wrapping_add(low_growth));
            let high = u64::from(high_before.wrapping_add(high_growth));
            let found = compare_swap(at, before, low | high << 32);
            if found == before {
                return (low_growth, high_growth);
            }
            before = found;
            tries += 1;
        }
    }
    (0, 0)
}

#[inline(always)]
fn growth(before: u32, now: u32) -> u32 {
    let growth = now.wrapping_sub(before);
    if (growth as i32) < 0 { 0 } else { growth }
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
