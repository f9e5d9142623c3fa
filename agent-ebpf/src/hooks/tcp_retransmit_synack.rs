//! A listener answers a connection request again: the client, or the way to it, is silent.
//!
//! `trace_tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)`,
//! net/ipv4/tcp_output.c, since 4.15; `sk` is the listener.

use core::ffi::c_void;

use agent_common::edge::ROLE_LISTENER;
use agent_common::listener::LISTENER_OVERFLOW;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::listeners::count;
use crate::maps::socket;

#[btf_tracepoint]
fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    let state = socket(ctx.arg::<*const c_void>(0));
    let slot = match state {
        // SAFETY: a valid value of this socket's storage.
        Some(state) if unsafe { (*state).role } == ROLE_LISTENER => unsafe { (*state).slot },
        _ => LISTENER_OVERFLOW,
    };
    count!(slot, synack_retransmits, 1);
    0
}
