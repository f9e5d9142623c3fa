//! Durations, operations, and what responses said: in which row each is counted. The life of a row:
//! [`agent_common::durations`].

use agent_common::durations::{
    KINDS, NO_HISTOGRAM, OPERATION, OPERATION_DURATIONS, is_own, reserved,
};
use agent_common::edge::{FIRST_FREE_SLOT, HotCounters, ROLE_SERVER};
use agent_common::histogram::{BUCKETS, Histogram};
use agent_common::protocol::http1::detect::METHODS;
use agent_common::protocol::http1::{NUMBERS, method_of};
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

/// An operation that was not answered.
pub const NO_RESPONSE: u64 = u64::MAX;

/// Counts operations of a server, `times` of them: `number` is one of
/// [`agent_common::protocol::http1`]. `elapsed_us` is how long one took, or [`NO_RESPONSE`].
///
/// A function of its own: what calls it has little room.
#[inline(never)]
pub fn count_operations(slot: u32, number: u32, times: u32, elapsed_us: u64) {
    let Some(counters) = edges::counters(slot) else { return };
    // SAFETY: the counters of the slot on this shard.
    let row = unsafe { number_of(edges::shard, counters, slot, ROLE_SERVER, OPERATION) };
    let Some(numbers) = maps::histogram(row as u32) else { return };
    // The verifier has to see the comparison of what is used.
    let at = opaque(number as usize);
    if at >= NUMBERS {
        return;
    }
    // SAFETY: a valid map value, and the number was checked.
    unsafe { atomic::add((&raw mut (*numbers).buckets).cast::<u64>().add(at), times.into()) };
    let method = opaque(method_of(number) as usize);
    if elapsed_us == NO_RESPONSE || method >= METHODS {
        return;
    }
    let otherwise = reserved(ROLE_SERVER.into(), KINDS + method, edges::shard());
    // SAFETY: a valid map value, and the method was checked; volatile, because others write it.
    let row = unsafe {
        let at = (&raw mut (*numbers).buckets).cast::<u64>().add(OPERATION_DURATIONS + method);
        match core::ptr::read_volatile(at) {
            // That row is of all edges that found none.
            _ if !is_own(row) => otherwise,
            NO_HISTOGRAM => take(at, slot, otherwise),
            number => number,
        }
    };
    if let Some(histogram) = maps::histogram(row as u32) {
        // SAFETY: a valid map value.
        unsafe { observe_at(histogram, elapsed_us) };
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
    // SAFETY: a valid map value.
    unsafe { observe_at(histogram, value_us) };
}

#[inline(always)]
unsafe fn observe_at(histogram: *mut Histogram, value_us: u64) {
    let bucket = maps::bucket(value_us);
    // SAFETY: the caller's contract; `bucket` is below BUCKETS.
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
    // SAFETY: the caller's contract.
    maps::histogram(unsafe { number_of(shard, counters, slot, role, kind) } as u32)
}

/// Its number.
#[inline(always)]
unsafe fn number_of(
    shard: impl Fn() -> u32,
    counters: *mut HotCounters,
    slot: u32,
    role: u8,
    kind: usize,
) -> u64 {
    // SAFETY: the caller's contract; `kind` is one of the kinds. Volatile, because others write it.
    unsafe {
        let at = (&raw mut (*counters).histograms).cast::<u64>().add(kind);
        match core::ptr::read_volatile(at) {
            // Overflow rows are numbered by role.
            _ if slot < FIRST_FREE_SLOT => reserved(slot, kind, shard()),
            NO_HISTOGRAM => take(at, slot, reserved(u32::from(role), kind, shard())),
            number => number,
        }
    }
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
