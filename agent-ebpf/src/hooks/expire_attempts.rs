//! Binds that said nothing for a second have failed. Run by the daemon while any are open.
//!
//! Iterator `bpf_map_elem` (kernel/bpf/map_iter.c, since 5.9) over the buckets of attempts.

use core::ffi::c_void;

use super::iterate_sockets::Meta;
use crate::{attempts, maps};

/// `struct bpf_iter__bpf_map_elem`.
#[repr(C)]
pub struct Context {
    meta: *const c_void,
    map: *const c_void,
    key: *const u32,
    value: *const c_void,
}

impl Context {
    /// The index of the element that is visited, and where to write about it; `None` at the end.
    #[inline(always)]
    pub fn element(ctx: *const Self) -> Option<(u32, *mut c_void)> {
        // SAFETY: the kernel passes a valid context; each load is checked by the verifier.
        unsafe {
            let key = core::ptr::read_volatile(&raw const (*ctx).key);
            if key.is_null() {
                return None;
            }
            let meta = core::ptr::read_volatile(&raw const (*ctx).meta).cast::<Meta>();
            Some((core::ptr::read_volatile(key), Meta::seq(meta)))
        }
    }
}

#[unsafe(link_section = "iter/bpf_map_elem")]
#[unsafe(no_mangle)]
extern "C" fn expire_attempts(ctx: *const Context) -> i32 {
    let Some((index, _)) = Context::element(ctx) else { return 0 };
    if let Some(bucket) = maps::pending(index) {
        attempts::expire(bucket);
    }
    0
}
