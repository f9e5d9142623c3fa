//! Data for the program: requests on a server, responses on a client, answers of DNS servers.
//!
//! `trace_sk_data_ready(const struct sock *sk)`, net/core/sock.c and others, since 6.3; before,
//! `void sock_def_readable(struct sock *sk)` is the same. Runs for every protocol, and for a listener
//! with every connection: both leave before any state is looked for. The lock of a TCP socket is held, that of a UDP
//! socket's queue is not any more.

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};

use crate::maps::socket;
use crate::sock::{LISTEN, Sock};
use crate::{answers, requests};

#[btf_tracepoint]
fn sk_data_ready(ctx: BtfTracePointContext) -> i32 {
    run(Sock(ctx.arg::<*const c_void>(0)), answers::received)
}

#[fentry]
fn sock_def_readable(ctx: FEntryContext) -> i32 {
    run(Sock(ctx.arg::<*const c_void>(0)), answers::received)
}

/// Runs after the first and does what that had to do, should the kernel have skipped it: bytes that
/// were noted are not noted twice.
#[btf_tracepoint]
fn ready_fallback(ctx: BtfTracePointContext) -> i32 {
    run(Sock(ctx.arg::<*const c_void>(0)), answers::skipped)
}

/// `otherwise` are answers of DNS servers, a part that the configuration can leave out: the verifier
/// then prunes it.
#[inline(always)]
fn run(sk: Sock, otherwise: impl Fn(Sock)) -> i32 {
    if !sk.is_tcp() {
        otherwise(sk);
    } else if sk.state() != LISTEN
        && let Some(state) = socket(sk.0)
    {
        // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock.
        unsafe { requests::received(sk, state) };
    }
    0
}
