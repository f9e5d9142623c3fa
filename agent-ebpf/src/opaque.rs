//! Keeps the compiler from address arithmetic that is right but that the verifier refuses.

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
