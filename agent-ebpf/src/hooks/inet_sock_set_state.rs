//! Lifecycle: connects, accepts, listens, ends.
//!
//! `trace_inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`,
//! net/ipv4/af_inet.c, since 4.16. Connect and listen run in the caller's context; all else may
//! run in softirq.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;

use crate::connection;
use crate::sock::{CLOSE, ESTABLISHED, LISTEN, SYN_SENT, Sock};

#[btf_tracepoint]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    run(&ctx, false)
}

/// Runs after the first and does what that had to do, should the kernel have skipped it.
#[btf_tracepoint]
fn state_again(ctx: BtfTracePointContext) -> i32 {
    run(&ctx, true)
}

#[inline(always)]
fn run(ctx: &BtfTracePointContext, again: bool) -> i32 {
    let new: i32 = ctx.arg(2);
    let new = new as u8;
    // FIN_WAIT, CLOSE_WAIT and their kin say nothing that CLOSE does not.
    if !(new == ESTABLISHED || new == SYN_SENT || new == CLOSE || new == LISTEN) {
        return 0;
    }
    let sk = Sock(ctx.arg::<*const c_void>(0));
    if !sk.is_tcp() {
        return 0;
    }
    if again && connection::is_told(sk, new) {
        return 0;
    }
    let old: i32 = ctx.arg(1);
    let old = old as u8;
    debug!(
        ctx,
        "state {} -> {}, ports {} and {}, namespace {}",
        old,
        new,
        sk.local_port(),
        sk.remote_port(),
        sk.netns()
    );
    if new == ESTABLISHED {
        connection::established(sk, old, again);
    } else if new == CLOSE {
        connection::closed(sk, old);
    } else if new == SYN_SENT {
        connection::connecting(sk);
    } else {
        connection::listening(sk);
    }
    0
}
