//! Binds that said nothing for a second have failed. Run by the daemon while any are open.
//!
//! A program of type raw tracepoint that is attached nowhere: `BPF_PROG_TEST_RUN` runs it
//! (`bpf_prog_test_run_raw_tp`, net/bpf/test_run.c, since 5.10) with the arguments it is given.

use agent_common::attempt::EXPIRED_AT_ONCE;

use crate::opaque::opaque;
use crate::{attempts, maps};

/// The argument: the first of [`EXPIRED_AT_ONCE`] buckets.
#[unsafe(link_section = "raw_tp/run")]
#[unsafe(no_mangle)]
extern "C" fn expire_attempts(arguments: *const u64) -> i32 {
    // SAFETY: the kernel passes twelve arguments.
    let first = unsafe { core::ptr::read_volatile(arguments) } as u32;
    let mut next = 0;
    while next < EXPIRED_AT_ONCE {
        expire_bucket(first.wrapping_add(opaque(next as usize) as u32));
        next += 1;
    }
    0
}

/// A global function of a number: the verifier walks it once, not once for each bucket. Returns 0: some
/// kernels allow no global function without a value.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn expire_bucket(number: u32) -> u32 {
    if let Some(bucket) = maps::pending(number) {
        attempts::expire(bucket);
    }
    0
}
