//! Durations, and what responses said: in which row each is counted. The life of a row: [`agent_common::durations`].

use agent_common::durations::{NO_HISTOGRAM, reserved};
use agent_common::edge::{FIRST_FREE_SLOT, HotCounters};
use agent_common::histogram::{BUCKETS, Histogram};
use agent_common::slot_table::HISTOGRAMS;

use crate::opaque::opaque;
use crate::{atomic, edges, maps, shares};

/// Counts a duration of an edge; `role` is its role, `kind` one of [`agent_common::durations`].
#[inline(always)]
pub fn observe(slot: u32, role: u8, kind: usize, value_us: u64) {
    if let Some(counters) = edges::counters(slot) {
        // SAFETY: a valid map value.
        unsafe { observe_in(counters, slot, role, kind, value_us) };
    }
}

/// As [`observe`], for who has the counters at hand.
///
/// # Safety
/// `counters` must be those of the slot on this CPU's shard.
#[inline(always)]
pub unsafe fn observe_in(
    counters: *mut HotCounters,
    slot: u32,
    role: u8,
    kind: usize,
    value_us: u64,
) {
    // SAFETY: the caller's contract.
    unsafe { observe_on(edges::shard, counters, slot, role, kind, value_us) };
}

/// Counts what is rare, on the first shard whatever the CPU is: it then takes one histogram.
#[inline(always)]
pub fn observe_rare(slot: u32, role: u8, kind: usize, value: u64) {
    if let Some(counters) = edges::first_counters(slot) {
        // SAFETY: a valid map value.
        unsafe { observe_on(|| 0, counters, slot, role, kind, value) };
    }
}

/// Counts the number `at` of a row that has numbers in the place of buckets.
#[inline(always)]
pub fn count(slot: u32, role: u8, kind: usize, at: u32) {
    if let Some(counters) = edges::counters(slot)
        // SAFETY: the counters of the slot on this shard.
        && let Some(row) = unsafe { row(edges::shard, counters, slot, role, kind) }
    {
        // The verifier has to see the comparison of what is used.
        let at = opaque(at as usize);
        if at < BUCKETS {
            // SAFETY: a valid map value, and the number was checked.
            unsafe { atomic::add((&raw mut (*row).buckets).cast::<u64>().add(at), 1) };
        }
    }
}

#[inline(always)]
unsafe fn observe_on(
    shard: impl Fn() -> u32,
    counters: *mut HotCounters,
    slot: u32,
    role: u8,
    kind: usize,
    value_us: u64,
) {
    // SAFETY: the caller's contract.
    let Some(histogram) = (unsafe { row(shard, counters, slot, role, kind) }) else { return };
    let bucket = maps::bucket(value_us);
    // SAFETY: a valid map value; `bucket` is below BUCKETS.
    unsafe {
        atomic::add(&raw mut (*histogram).sum_us, value_us);
        atomic::add((&raw mut (*histogram).buckets).cast::<u64>().add(bucket), 1);
    }
}

/// The row of a kind that a slot has on a shard, taken if it has none.
#[inline(always)]
unsafe fn row(
    shard: impl Fn() -> u32,
    counters: *mut HotCounters,
    slot: u32,
    role: u8,
    kind: usize,
) -> Option<*mut Histogram> {
    // SAFETY: the caller's contract; `kind` is one of the kinds. Volatile, because others write it.
    let number = unsafe {
        let at = (&raw mut (*counters).histograms).cast::<u64>().add(kind);
        match core::ptr::read_volatile(at) {
            // Overflow rows are numbered by role.
            _ if slot < FIRST_FREE_SLOT => reserved(slot, kind, shard()),
            NO_HISTOGRAM => take(at, slot, reserved(u32::from(role), kind, shard())),
            number => number,
        }
    };
    maps::histogram(number as u32)
}

/// Takes a row for the place `at` of a slot, which had none; `otherwise` is the one to use without a free
/// one, or if the slot's tenant has its share.
///
/// A function of its own: it runs once for each place, and what calls it has little room.
///
/// # Safety
/// `at` must point into a map value.
#[inline(never)]
unsafe fn take(at: *mut u64, slot: u32, otherwise: u64) -> u64 {
    let free = maps::histogram_free();
    let tenant = edges::tenant(slot);
    let mut number = otherwise;
    if let Some(counted) = shares::admit(tenant, HISTOGRAMS) {
        // Whose share it is must be known when the row is given back.
        let is_own = counted.cgroup == tenant.cgroup && counted.origin == tenant.origin;
        if is_own && let Ok(Some(row)) = free.pop() {
            number = u64::from(row);
        } else {
            shares::cancel(counted, HISTOGRAMS);
        }
    }
    // SAFETY: the caller's contract.
    let found = unsafe { atomic::compare_swap(at, NO_HISTOGRAM, number) };
    if found == NO_HISTOGRAM {
        return number;
    }
    // Another CPU was faster.
    if number != otherwise {
        let _ = free.push(number as u32, 0);
        shares::cancel(tenant, HISTOGRAMS);
    }
    found
}
