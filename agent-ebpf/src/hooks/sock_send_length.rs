//! Data from the program: responses of a server, DNS queries.
//!
//! `trace_sock_send_length(struct sock *sk, int ret, int flags)`, net/socket.c, since 6.3; before,
//! the return of `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)` is the
//! same. Runs after the send, in process context, without the socket's lock.

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};

use crate::maps::socket;
use crate::sock::Sock;
use crate::{lookups, requests};

#[btf_tracepoint]
fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    run(Sock(ctx.arg::<*const c_void>(0)), ctx.arg::<i32>(1), lookups::sent)
}

#[fexit]
fn tcp_sendmsg(ctx: FExitContext) -> i32 {
    run(Sock(ctx.arg::<*const c_void>(0)), ctx.arg::<i32>(3), |_, _| {})
}

/// Runs after the first and does what that had to do, should the kernel have skipped it: bytes that
/// were noted are not noted twice.
#[btf_tracepoint]
fn send_fallback(ctx: BtfTracePointContext) -> i32 {
    run(Sock(ctx.arg::<*const c_void>(0)), ctx.arg::<i32>(1), lookups::skipped)
}

/// `otherwise` are DNS lookups, a part that the configuration can leave out.
#[inline(always)]
fn run(sk: Sock, sent: i32, otherwise: impl Fn(Sock, i32)) -> i32 {
    // A socket of another protocol may have the address of a TCP socket whose entry is still there.
    if !sk.is_tcp() {
        otherwise(sk, sent);
    } else if sent > 0
        && let Some(state) = socket(sk.0)
    {
        // SAFETY: a valid value of this socket's storage.
        unsafe { requests::sent(sk, state, sent as u32) };
    }
    0
}
