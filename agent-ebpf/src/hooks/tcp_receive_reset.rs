//! The peer cuts a connection.
//!
//! `trace_tcp_receive_reset(struct sock *sk)`, net/ipv4/tcp_input.c, since 4.15. Runs before the
//! socket changes state.

use core::ffi::c_void;

use agent_common::edge::{ROLE_CLIENT, ROLE_LISTENER, ROLE_UNKNOWN};
use agent_common::events::KIND_RESET;
use agent_common::events::reset::{NO_REASON, RECEIVED, Reset};
use agent_common::ledger::RESET;
use agent_common::reset::{NO_LISTENER, UNKNOWN, cause_from_client, cause_of_received};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::edges::count;
use crate::maps::{config, seen, socket};
use crate::sock::{SYN_SENT, Sock};
use crate::{emit, fallback, listeners};

#[btf_tracepoint]
fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    run(Sock(ctx.arg::<*const c_void>(0)));
    fallback::handled();
    0
}

/// Runs after the first and does what that had to do, should the kernel have skipped it.
#[btf_tracepoint]
fn rx_rst_fallback(ctx: BtfTracePointContext) -> i32 {
    if !fallback::is_handled() {
        run(Sock(ctx.arg::<*const c_void>(0)));
    }
    0
}

#[inline(always)]
fn run(sk: Sock) {
    seen(RESET);
    // `tcp_reset` (net/ipv4/tcp_input.c) is called with full sockets only.
    let (Some(state), Some(tcp)) = (socket(sk.0), sk.tcp()) else {
        return count!(u32::from(ROLE_UNKNOWN), resets_received[UNKNOWN], 1);
    };
    let tcp_state = sk.state();
    // Without request timing no hook notes when something was received.
    let timed = config!(requests) == 1;
    // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock.
    unsafe {
        let in_flight = (*state).role == ROLE_CLIENT && timed && tcp.is_in_flight();
        let silent_until = if in_flight { tcp.sent_us() } else { tcp.now_us() };
        let idle_us = silent_until
            .saturating_sub((*state).last_received_us)
            .min(silent_until.saturating_sub(tcp.delivered_sent_us()));
        let cause = if tcp_state == SYN_SENT {
            NO_LISTENER
        } else {
            let is_silent = (*state).role != ROLE_CLIENT && tcp.received_bytes() == 0;
            cause_from_client(cause_of_received(in_flight, idle_us), is_silent)
        };
        if (*state).role == ROLE_LISTENER {
            // A connection that its listener does not know of yet.
            listeners::count!((*state).slot, resets_received[cause], 1);
        } else {
            count!((*state).slot, resets_received[cause], 1);
        }
        if let Some(header) = emit::admit(KIND_RESET, (*state).owner) {
            emit::write(&Reset {
                header,
                remote: sk.remote(),
                idle_us,
                slot: (*state).slot,
                remote_port: sk.remote_port(),
                local_port: sk.local_port(),
                direction: RECEIVED,
                cause,
                reason: NO_REASON,
                role: (*state).role,
                state: tcp_state,
                zero: [0; 3],
            });
        }
    }
}
