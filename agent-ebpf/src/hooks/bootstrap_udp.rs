//! Takes over the UDP sockets that had a port before us, as far as the survey found them. Run once
//! by the daemon inside each network namespace.
//!
//! Iterator `udp` (net/ipv4/udp.c, since 5.9): the sockets of the opener's namespace.

use core::ffi::c_void;

use crate::maps;
use crate::sock::Sock;
use crate::{binds, owners};

/// `struct bpf_iter__udp`.
#[repr(C)]
pub struct Context {
    meta: *const c_void,
    udp_sk: *const c_void,
    uid: u32,
    bucket: i32,
}

#[unsafe(link_section = "iter/udp")]
#[unsafe(no_mangle)]
extern "C" fn bootstrap_udp(ctx: *const Context) -> i32 {
    // SAFETY: the kernel passes a valid context; each load is checked by the verifier.
    let sk = unsafe { core::ptr::read_volatile(&raw const (*ctx).udp_sk) };
    if sk.is_null() {
        return 0;
    }
    let sk = Sock(sk);
    if let Some(known) = maps::preexisting(sk.cookie()) {
        // SAFETY: a valid map value.
        let (owner, tgid) =
            unsafe { (owners::by_key(&(*known).owner, (*known).tgid, || sk.net()), (*known).tgid) };
        binds::found(sk, owner, tgid);
    }
    0
}
