//! Large values, copied and cleared word by word.
//!
//! An assignment does the same, but loads as much as it can before it stores: what has no register goes
//! by the stack, of which a program and all functions that it calls have 512 bytes.

/// Copies a value. The stores are volatile, which keeps each beside its load.
///
/// # Safety
/// Both must be valid for `T`, aligned to eight bytes, and not overlap; the size of `T` is a multiple of
/// eight.
#[inline(always)]
pub unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: the caller's contract.
        unsafe { to.cast::<u64>().add(i).write_volatile(from.cast::<u64>().add(i).read()) };
        i += 1;
    }
}
