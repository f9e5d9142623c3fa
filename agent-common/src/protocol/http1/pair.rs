//! Which response answers which request: responses come in the order of the requests (RFC 9112, 9.3.2).
//!
//! Requests that are open lie in a ring of words. One direction's program writes into empty places only,
//! the other one's empties them, so neither waits for the other.

use super::{OPEN, Place, Walk};

/// In a word: the method. Above it is when the request began, microseconds.
const METHOD: u64 = 0xf;
const TIME_SHIFT: u32 = 4;

/// Notes an open request; `false` if the ring is full.
///
/// # Safety
/// `walk` must be valid, and no one else push.
#[inline(always)]
pub unsafe fn push(walk: *mut Walk, method: u32, began_us: u64) -> bool {
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let pushed = core::ptr::read_volatile(&raw const (*walk).pushed);
        let at = place(walk, pushed);
        if core::ptr::read_volatile(at) != 0 {
            return false;
        }
        core::ptr::write_volatile(at, began_us.max(1) << TIME_SHIFT | u64::from(method));
        core::ptr::write_volatile(&raw mut (*walk).pushed, pushed.wrapping_add(1));
    }
    true
}

/// Takes the oldest open request: its method and when it began.
///
/// # Safety
/// `walk` must be valid, and no one else pop.
#[inline(always)]
pub unsafe fn pop(walk: *mut Walk, place_of: &impl Place) -> Option<(u32, u64)> {
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let popped = core::ptr::read_volatile(&raw const (*walk).popped);
        let at = place(walk, popped);
        let word = core::ptr::read_volatile(at);
        if word == 0 || !place_of.empty(at, word) {
            return None;
        }
        core::ptr::write_volatile(&raw mut (*walk).popped, popped.wrapping_add(1));
        Some(((word & METHOD) as u32, word >> TIME_SHIFT))
    }
}

/// Takes all of them; how many they were.
///
/// # Safety
/// As [`pop`].
#[inline(always)]
pub unsafe fn drain(walk: *mut Walk, place_of: &impl Place) -> u32 {
    let mut at = 0;
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        // Counted in memory: the verifier would walk the rest once for each number of them.
        let count = &raw mut (*walk).drained;
        core::ptr::write_volatile(count, 0);
        while at < OPEN {
            let open = place(walk, at as u32);
            let word = core::ptr::read_volatile(open);
            if word != 0 && place_of.empty(open, word) {
                core::ptr::write_volatile(count, core::ptr::read_volatile(count).wrapping_add(1));
            }
            at += 1;
        }
        let pushed = core::ptr::read_volatile(&raw const (*walk).pushed);
        core::ptr::write_volatile(&raw mut (*walk).popped, pushed);
        core::ptr::read_volatile(count)
    }
}

/// Whether no request is open, for who pushes.
///
/// # Safety
/// As [`push`].
#[inline(always)]
pub unsafe fn is_empty(walk: *mut Walk) -> bool {
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let last = core::ptr::read_volatile(&raw const (*walk).pushed).wrapping_sub(1);
        core::ptr::read_volatile(place(walk, last)) == 0
    }
}

#[inline(always)]
unsafe fn place(walk: *mut Walk, number: u32) -> *mut u64 {
    // SAFETY: the caller's contract; below OPEN.
    unsafe { (&raw mut (*walk).open).cast::<u64>().add(number as usize & (OPEN - 1)) }
}
