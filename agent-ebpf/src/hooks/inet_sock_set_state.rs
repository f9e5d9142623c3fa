//! Lifecycle: connects, accepts, listens, ends.
//!
//! `trace_inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`,
//! net/ipv4/af_inet.c, since 4.16. Connect and listen run in the caller's context; all else may
//! run in softirq.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;

use crate::maps::config;
use crate::sock::{CLOSE, ESTABLISHED, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT, Sock, is_ending};
use crate::{connection, socket_table, unanswered};

#[btf_tracepoint]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let Some((sk, old, new)) = transition(&ctx) else { return 0 };
    debug!(
        &ctx,
        "state {} -> {}, ports {} and {}, namespace {}",
        old,
        new,
        sk.local_port(),
        sk.remote_port(),
        sk.netns()
    );
    handle(sk, old, new, false);
    0
}

/// Runs after the first and does what that had to do, should the kernel have skipped it.
#[btf_tracepoint]
fn state_fallback(ctx: BtfTracePointContext) -> i32 {
    if let Some((sk, old, new)) = transition(&ctx)
        // What begins to end may be handled twice.
        && (is_ending(new) || !connection::is_handled(sk, new))
    {
        handle(sk, old, new, true);
    }
    0
}

/// The socket, its former state and the next, if that says something.
#[inline(always)]
fn transition(ctx: &BtfTracePointContext) -> Option<(Sock, u8, u8)> {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let (old, new) = (old as u8, new as u8);
    // A listener has a child. Not a simultaneous open.
    let is_born = new == SYN_RECV && old == LISTEN && config!(socket_table) == 1;
    // FIN_WAIT2 and TIME_WAIT say nothing that the others do not.
    let is_known =
        new == ESTABLISHED || new == SYN_SENT || new == CLOSE || new == LISTEN || is_ending(new);
    if !(is_known || is_born) {
        return None;
    }
    let sk = Sock(ctx.arg::<*const c_void>(0));
    if sk.is_tcp() { Some((sk, old, new)) } else { None }
}

#[inline(always)]
fn handle(sk: Sock, old: u8, new: u8, is_fallback: bool) {
    if new == SYN_SENT || new == LISTEN {
        return connection::begins(sk, new);
    }
    if new == SYN_RECV {
        return socket_table::born(sk);
    }
    connection::phase_ends(sk);
    if new == ESTABLISHED {
        connection::established(sk, old, is_fallback);
    } else if new == CLOSE {
        connection::closed(sk, old);
    } else if new != LAST_ACK {
        unanswered::ending(sk, new);
    }
}
