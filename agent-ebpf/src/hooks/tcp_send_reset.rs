//! This host cuts a connection, or refuses one.
//!
//! `trace_tcp_send_reset(const struct sock *sk, const struct sk_buff *skb__nullable, const enum
//! sk_rst_reason reason)`, net/ipv4/tcp_ipv4.c, tcp_ipv6.c, tcp_output.c. Since 4.15; `sk` may be
//! null and `reason` exists since 6.10. Which prototype runs is configured.

use core::ffi::c_void;

use agent_common::address::{Address, UNSPECIFIED};
use agent_common::config::MAX_REASONS;
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER, ROLE_UNKNOWN};
use agent_common::events::KIND_RESET;
use agent_common::events::reset::{NO_REASON, Reset, SENT};
use agent_common::ledger::RESET;
use agent_common::reset::{
    ABORTED, LINGER, NO_CONNECTION, NO_LISTENER, PROTOCOL, UNKNOWN, cause_from_client,
};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;

use crate::clock::monotonic_us;
use crate::edges::{self, count};
use crate::maps::{config, seen, socket};
use crate::sock::{CLOSE, LISTEN, Packet, Sock};
use crate::{emit, fallback, listeners, owners};

#[btf_tracepoint]
fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let (reason, cause) = why(&ctx);
    debug!(&ctx, "reset sent, reason {}, cause {}", reason, cause);
    handle(&ctx, reason, cause);
    fallback::handled();
    0
}

/// Runs after the first and does what that had to do, should the kernel have skipped it.
#[btf_tracepoint]
fn tx_rst_fallback(ctx: BtfTracePointContext) -> i32 {
    if !fallback::is_handled() {
        let (reason, cause) = why(&ctx);
        handle(&ctx, reason, cause);
    }
    0
}

/// The kernel's reason, and what it means here.
#[inline(always)]
fn why(ctx: &BtfTracePointContext) -> (u32, u8) {
    let reason = if config!(reset_has_reason) == 1 { ctx.arg::<i32>(2) as u32 } else { u32::MAX };
    let cause = if reason < MAX_REASONS as u32 {
        config!(causes[(reason as usize) & (MAX_REASONS - 1)])
    } else {
        UNKNOWN
    };
    (reason, cause)
}

#[inline(always)]
fn handle(ctx: &BtfTracePointContext, reason: u32, cause: u8) {
    seen(RESET);
    let sk: *const c_void = ctx.arg(0);
    if sk.is_null() {
        without_socket(Packet(ctx.arg::<*const c_void>(1)), cause, reason as u8);
    } else {
        with_socket(Sock(sk), cause, reason as u8);
    }
}

#[inline(always)]
fn with_socket(sk: Sock, cause: u8, reason: u8) {
    let state = if sk.is_full() { socket(sk.0) } else { None };
    let Some(state) = state else {
        // TIME_WAIT and request sockets have no state, only what all sockets share.
        let owner = owners::nobody(sk.netns(), || sk.net());
        return report(
            slot_of(owner),
            owner,
            cause,
            sk.state(),
            reason,
            &Ends {
                remote: sk.remote(),
                remote_port: sk.remote_port(),
                local_port: sk.local_port(),
                role: ROLE_UNKNOWN,
                idle_us: u64::MAX,
            },
        );
    };
    let cause = match (cause, sk.state()) {
        // A close with SO_LINGER 0 disconnects: the kernel names the state as the reason.
        (ABORTED, CLOSE) if sk.lingers() => LINGER,
        // A segment of a connection that is gone, but whose listener is there: the kernel names
        // its flags, for it is no SYN.
        (PROTOCOL, LISTEN) => NO_CONNECTION,
        _ => cause,
    };
    // SAFETY: a valid value of this socket's storage.
    let (slot, owner, role, last) =
        unsafe { ((*state).slot, (*state).owner, (*state).role, (*state).last_received_us) };
    // Full, for it has a state.
    let is_silent = role == ROLE_CLIENT && sk.tcp().is_some_and(|tcp| !tcp.has_sent());
    let cause = cause_from_client(cause, is_silent);
    report(
        slot,
        owner,
        cause,
        sk.state(),
        reason,
        &Ends {
            remote: sk.remote(),
            remote_port: sk.remote_port(),
            local_port: sk.local_port(),
            role,
            idle_us: monotonic_us().saturating_sub(last),
        },
    );
}

#[inline(always)]
fn without_socket(packet: Packet, cause: u8, reason: u8) {
    if packet.0.is_null() {
        return count!(u32::from(ROLE_UNKNOWN), resets_sent[UNKNOWN], 1);
    }
    let owner = owners::nobody(packet.netns(), || packet.net());
    let segment = packet.segment();
    let (remote_port, local_port, request) = match segment {
        Some(s) => (s.remote_port, s.local_port, s.is_connection_request),
        None => (0, 0, false),
    };
    let cause = if cause == NO_CONNECTION && request { NO_LISTENER } else { cause };
    report(
        slot_of(owner),
        owner,
        cause,
        0,
        reason,
        &Ends {
            remote: UNSPECIFIED,
            remote_port,
            local_port,
            role: ROLE_UNKNOWN,
            idle_us: u64::MAX,
        },
    );
}

/// One row per namespace, whatever the port: a port scan must not fill the table. The port is in
/// the record.
#[inline(always)]
fn slot_of(nobody: u32) -> u32 {
    let key = EdgeKey { owner: nobody, port: 0, role: ROLE_SERVER, zero: 0, remote: UNSPECIFIED };
    edges::slot(&key, || (UNSPECIFIED, UNSPECIFIED))
}

struct Ends {
    remote: Address,
    remote_port: u16,
    local_port: u16,
    role: u8,
    idle_us: u64,
}

#[inline(always)]
fn report(slot: u32, owner: u32, cause: u8, state: u8, reason: u8, ends: &Ends) {
    if ends.role == ROLE_LISTENER {
        listeners::count!(slot, resets_sent[cause & 15], 1);
    } else {
        count!(slot, resets_sent[cause & 15], 1);
    }
    if let Some(header) = emit::admit(KIND_RESET, owner) {
        emit::write(&Reset {
            header,
            remote: ends.remote,
            idle_us: ends.idle_us,
            slot,
            remote_port: ends.remote_port,
            local_port: ends.local_port,
            direction: SENT,
            cause,
            reason: if config!(reset_has_reason) == 1 { reason } else { NO_REASON },
            role: ends.role,
            state,
            zero: [0; 3],
        });
    }
}
