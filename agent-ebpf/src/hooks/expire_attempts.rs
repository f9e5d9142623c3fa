//! Binds that said nothing for a second have failed. Run by the daemon while any are open.
//!
//! Iterator `bpf_map_elem` (kernel/bpf/map_iter.c, since 5.9) over the buckets of attempts.

use core::ffi::c_void;

use crate::{attempts, maps};

/// `struct bpf_iter__bpf_map_elem`.
#[repr(C)]
pub struct Context {
    meta: *const c_void,
    map: *const c_void,
    key: *const u32,
    value: *const c_void,
}

#[unsafe(link_section = "iter/bpf_map_elem")]
#[unsafe(no_mangle)]
extern "C" fn expire_attempts(ctx: *const Context) -> i32 {
    // SAFETY: the kernel passes a valid context; each load is checked by the verifier.
    let key = unsafe { core::ptr::read_volatile(&raw const (*ctx).key) };
    if key.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let index = unsafe { core::ptr::read_volatile(key) };
    if let Some(bucket) = maps::pending(index) {
        attempts::expire(bucket);
    }
    0
}
