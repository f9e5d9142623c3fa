//! Keeps the compiler from address arithmetic that is right but that the verifier refuses, and the
//! verifier from following numbers that make no difference.

use core::arch::asm;

/// The same number, of which the compiler knows nothing any more.
///
/// For indices of loops over a map value: LLVM likes to count from a base below the array, with
/// the difference in each load's displacement. Linux 7.2 refuses a map value with a negative
/// offset at the load, whatever the sum is ("unbounded memory access").
#[inline(always)]
pub fn opaque(index: usize) -> usize {
    let same;
    // A real instruction: nothing but a comment has a source line too, which the verifier refuses
    // when the next instruction has another ("Invalid line_info").
    // SAFETY: copies a register.
    unsafe { asm!("{0} = {1}", out(reg) same, in(reg) index, options(pure, nomem, nostack)) };
    same
}

/// The same number, below eight, of which the verifier knows no more than that.
///
/// For what a loop has found: the verifier would go through all that follows once for every number.
/// `now` is any time in nanoseconds that was loaded from a map: what is above its bit 60 is zero
/// for 73 years after the boot, and the verifier does not know.
#[inline(always)]
pub fn forgotten(index: usize, now: u64) -> usize {
    let same;
    // Not `pure`: it has to stay where it is, before the verifier learns from a comparison what
    // `now` may be.
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{0} = {1}", "{0} >>= 61", "{0} += {2}", "{0} &= 7",
            out(reg) same, in(reg) now, in(reg) index, options(nomem, nostack)
        );
    }
    same
}
