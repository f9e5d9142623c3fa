//! A segment is sent again: remember when its request really began.
//!
//! `trace_tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)` (and `int err`
//! since 6.17), net/ipv4/tcp_output.c, since 4.15. Retransmits are *counted* from
//! `tcp_sock.total_retrans`, which is exact; this hook only keeps the time of the first send,
//! which the stack forgets when it stamps the segment anew.

use core::ffi::c_void;

use agent_common::edge::ROLE_CLIENT;
use agent_common::socket::STAGE_OPEN;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::maps::socket;
use crate::sock::Sock;

#[btf_tracepoint]
fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg::<*const c_void>(0));
    let Some(state) = socket(sk.0) else { return 0 };
    // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock. The socket
    // is full, for it has a state.
    unsafe {
        if (*state).role == ROLE_CLIENT
            && (*state).stage == STAGE_OPEN
            && (*state).first_sent_us == 0
            && let Some(tcp) = sk.tcp()
            && tcp.written() != (*state).answered_seq
        {
            (*state).first_sent_us = tcp.sent_us();
        }
    }
    0
}
