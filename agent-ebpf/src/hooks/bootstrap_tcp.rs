//! Takes over sockets that were there before us. Run once by the daemon inside each network
//! namespace, after the hooks are attached; sockets that have state already are left alone.
//!
//! Iterator `tcp` (net/ipv4/tcp_ipv4.c, since 5.9): the sockets of the opener's namespace.

use core::ffi::c_void;

use agent_common::edge::ROLE_CLIENT;
use agent_common::preexisting::UNKNOWN_TOO;

use crate::maps::{self, socket};
use crate::sock::{CLOSE, LISTEN, SYN_RECV, Sock};
use crate::{binds, connection, owners};

/// `struct bpf_iter__tcp`.
#[repr(C)]
pub struct Context {
    meta: *const c_void,
    sk_common: *const c_void,
    uid: u32,
}

#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
extern "C" fn bootstrap_tcp(ctx: *const Context) -> i32 {
    // SAFETY: the kernel passes a valid context; each load is checked by the verifier.
    let common = unsafe { core::ptr::read_volatile(&raw const (*ctx).sk_common) };
    if common.is_null() {
        return 0;
    }
    // Also drops TIME_WAIT and request sockets.
    let Some(tcp) = Sock(common).checked_tcp() else { return 0 };
    let sk = Sock(tcp.0);
    let state = sk.state();
    if state == CLOSE || state == SYN_RECV || socket(sk.0).is_some() {
        return 0;
    }
    let (owner, tgid, role) = match maps::preexisting(sk.cookie()) {
        // SAFETY: a valid map value.
        Some(known) => unsafe {
            (
                owners::by_key(&(*known).owner, (*known).tgid, || sk.net()),
                (*known).tgid,
                (*known).role,
            )
        },
        None if maps::preexisting(UNKNOWN_TOO).is_none() => return 0,
        None => (owners::nobody(sk.netns(), || sk.net()), 0, ROLE_CLIENT),
    };
    if state == LISTEN {
        binds::found(sk, owner, tgid);
    }
    connection::preexisting(sk, tcp, owner, role);
    0
}
