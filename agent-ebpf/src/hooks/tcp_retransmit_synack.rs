//! A listener answers a connection request again: the client, or the way to it, is silent.
//!
//! `trace_tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)`,
//! net/ipv4/tcp_output.c, since 4.15; `sk` is the listener.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::edges::count;
use crate::maps::socket;

#[btf_tracepoint]
fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a valid value of this socket's storage.
    let slot = socket(ctx.arg::<*const c_void>(0)).map_or(0, |state| unsafe { (*state).slot });
    count!(slot, synack_retransmits, 1);
    0
}
