//! What `connect4` and `connect6` have in common: a program asks for a connection.
//!
//! Most of what the kernel refuses before a SYN changes no state and shows in no tracepoint. So the
//! attempt is noted here, and taken back when the SYN is about to leave (`tcp_v4_connect`,
//! `tcp_v6_connect`: the state becomes SYN_SENT once there is a route). What is not taken back was
//! refused; see [`crate::attempts`].

use core::ffi::c_void;

use agent_common::address::{self, Address};
use agent_common::attempt::{AttemptKey, STEP_CONNECT};
use aya_ebpf::bindings::bpf_sock_addr;

use crate::binds::{ALLOW, IPPROTO_TCP, context};
use crate::sock::Sock;
use crate::{attempts, owners};

/// A program asks for a connection to an IPv4 address.
#[inline(always)]
pub fn requested_v4(ctx: *const bpf_sock_addr) -> i32 {
    requested(ctx, || address::from_v4(context!(ctx, user_ip4)))
}

/// A program asks for a connection to an IPv6 address.
#[inline(always)]
pub fn requested_v6(ctx: *const bpf_sock_addr) -> i32 {
    requested(ctx, || {
        [
            context!(ctx, user_ip6[0]),
            context!(ctx, user_ip6[1]),
            context!(ctx, user_ip6[2]),
            context!(ctx, user_ip6[3]),
        ]
    })
}

#[inline(always)]
fn requested(ctx: *const bpf_sock_addr, address: impl FnOnce() -> Address) -> i32 {
    if context!(ctx, protocol) != IPPROTO_TCP {
        return ALLOW;
    }
    let sk = context!(ctx, __bindgen_anon_1.sk);
    if sk.is_null() {
        return ALLOW;
    }
    // What the verifier knows of the context's socket does not reach as far as its namespace. Full:
    // a program connects it.
    let Some(tcp) = Sock(sk as *const c_void).tcp() else { return ALLOW };
    let sk = Sock(tcp.0);
    let netns = sk.netns();
    attempts::connect_requested(&AttemptKey {
        owner: owners::current(netns, || sk.net()),
        netns,
        address: address(),
        uid: 0,
        device: 0,
        port: u16::from_be(context!(ctx, user_port) as u16),
        errno: 0,
        protocol: IPPROTO_TCP as u8,
        step: STEP_CONNECT,
        options: 0,
        zero: 0,
    });
    ALLOW
}
