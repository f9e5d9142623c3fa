//! What `sendmsg4` and `sendmsg6` have in common: a program sends a datagram to an address.
//!
//! An answer is believed only from a server that was asked. A connected socket hears of no other;
//! of one that is not connected this notes which servers it asks. Everything but datagrams to port
//! 53 leaves after one comparison.

use core::ffi::c_void;

use agent_common::address::{self, Address};
use agent_common::answer::DNS_PORT;
use agent_common::ledger::{DNS_ANSWER, DNS_LOOKUP, NO_STORAGE};
use aya_ebpf::bindings::bpf_sock_addr;

use crate::binds::{ALLOW, context};
use crate::clock::monotonic_us;
use crate::lookups;
use crate::maps::{config, lost, questions_or_insert, seen};

/// A program sends a datagram to an IPv4 address.
#[inline(always)]
pub fn sent_v4(ctx: *const bpf_sock_addr) -> i32 {
    sent(ctx, || address::from_v4(context!(ctx, user_ip4)))
}

/// A program sends a datagram to an IPv6 address.
#[inline(always)]
pub fn sent_v6(ctx: *const bpf_sock_addr) -> i32 {
    sent(ctx, || {
        [
            context!(ctx, user_ip6[0]),
            context!(ctx, user_ip6[1]),
            context!(ctx, user_ip6[2]),
            context!(ctx, user_ip6[3]),
        ]
    })
}

#[inline(always)]
fn sent(ctx: *const bpf_sock_addr, server: impl FnOnce() -> Address) -> i32 {
    if context!(ctx, user_port) as u16 != DNS_PORT.to_be() || config!(dns) | config!(lookups) == 0 {
        return ALLOW;
    }
    let sk = context!(ctx, __bindgen_anon_1.sk);
    if sk.is_null() {
        return ALLOW;
    }
    let server = server();
    let Some(questions) = questions_or_insert(sk as *const c_void) else {
        // Its answer will not be read.
        if config!(dns) == 1 {
            seen(DNS_ANSWER);
            lost(DNS_ANSWER, NO_STORAGE);
        }
        if config!(lookups) == 1 {
            seen(DNS_LOOKUP);
            lost(DNS_LOOKUP, NO_STORAGE);
        }
        return ALLOW;
    };
    let now_us = monotonic_us();
    // SAFETY: a valid value of this socket's storage. Two threads that ask from one socket at once
    // may take one place; then the answer to one of them is not read.
    unsafe {
        (*questions).ask(server, now_us);
        lookups::begins(questions, server, now_us);
    }
    ALLOW
}
