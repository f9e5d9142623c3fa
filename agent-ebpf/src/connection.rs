//! Life of a connection, independent of the hook that reports it: states in, counts out.
//!
//! Every [`Sock::tcp`] here is of a full TCP socket: `inet_sock_set_state` has tested its protocol
//! (`inet_sk_set_state` and `inet_sk_state_store` in net/ipv4/af_inet.c are called with full sockets
//! only, and no raw socket passes there), or it has a state.

use core::ptr::NonNull;

use agent_common::abort::abort_cause;
use agent_common::address::from_owner;
use agent_common::durations::CONNECT;
use agent_common::edge::{
    CONNECT_OK, CONNECT_OTHER, CONNECT_PORT_IN_USE, EdgeKey, ROLE_CLIENT, ROLE_LISTENER,
    ROLE_SERVER, ROLE_UNKNOWN, attempt_result,
};
use agent_common::events::KIND_CONNECT_FAILED;
use agent_common::events::connect_failed::ConnectFailed;
use agent_common::ledger::{CONNECTION, NO_STORAGE, SOCKET};
use agent_common::socket::{STAGE_CLOSED, STAGE_CONNECTING, STAGE_OPEN, SocketState};
use agent_common::socket_table::ports;
use agent_common::unanswered::UNDECIDED;
use agent_common::unsent::UnsentKey;
use agent_common::{exchange, idle, response};

use crate::clock::monotonic_us;
use crate::edges::{self, count};
use crate::maps::{self, config, lost, seen, socket, stored_or_insert};
use crate::opaque::opaque;
use crate::sock::{CLOSE, LISTEN, SYN_RECV, SYN_SENT, Sock, Tcp};
use crate::sync::{halves, sync, sync_limited, sync_listener, sync_retransmits};
use crate::{
    atomic, attempts, binds, emit, histograms, listeners, notes, owners, requests, socket_table,
    unanswered,
};

/// A program calls connect or listen, and the socket is about to change to `new`. Process context.
#[inline(always)]
pub fn begins(sk: Sock, new: u8) {
    let requested = if new == SYN_SENT { attempts::syn_sent() } else { None };
    let owner = match requested {
        Some(owner) => owner,
        None => owners::current(sk.netns(), || sk.net()),
    };
    // Opaque, or the compiler makes two copies of what identifies a program, which is much code.
    if opaque(new.into()) == usize::from(SYN_SENT) {
        connecting(sk, owner);
    } else {
        listening(sk, owner);
    }
}

/// The SYN is about to leave.
#[inline(always)]
fn connecting(sk: Sock, owner: u32) {
    let state = SocketState {
        owner,
        slot: edges::slot(&client_key(sk, owner), || sk.addresses()),
        role: ROLE_CLIENT,
        stage: STAGE_CONNECTING,
        port_or_end: sk.local_port(),
        // The SYN will change it; see `failed`.
        answered_seq: sk.tcp().map_or(0, Tcp::write_seq),
        ports: ports(sk.remote_port(), 0),
        ..maps::blank()
    };
    if let Some(state) = remember(sk, &state) {
        // Last, so that what storage takes is no part of the latency.
        // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock.
        unsafe { (*state.as_ptr()).start_us = monotonic_us() };
    }
}

#[inline(always)]
fn listening(sk: Sock, owner: u32) {
    binds::listening(sk, owner);
    let state = SocketState {
        owner,
        slot: listeners::slot(owner, sk.local_port(), sk.local()),
        role: ROLE_LISTENER,
        stage: STAGE_OPEN,
        retransmits: u64::from(sk.drops()),
        ports: ports(0, sk.local_port()),
        ..maps::blank()
    };
    remember(sk, &state);
}

/// Whether what the transition to `new` asks for was done, by a program that ran before.
#[inline(always)]
pub fn is_handled(sk: Sock, new: u8) -> bool {
    // Who ends without a state has none to be brought up to date; all others need one.
    let Some(state) = socket(sk.0) else { return new == CLOSE };
    // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock.
    let (stage, role) = unsafe { ((*state).stage, (*state).role) };
    if new == CLOSE {
        stage == STAGE_CLOSED
    } else if new == SYN_SENT {
        stage == STAGE_CONNECTING
    } else {
        // The child of a listener is born with the state of that.
        stage == STAGE_OPEN && (role == ROLE_LISTENER) == (new == LISTEN)
    }
}

/// The handshake completed. `is_fallback`: a program that ran before may have tried, without
/// memory for a state.
#[inline(always)]
pub fn established(sk: Sock, old: u8, is_fallback: bool) {
    // No closures: what two programs call becomes a function, and those have a stack of 512 bytes
    // between them.
    let state = match socket(sk.0) {
        None => adopt(sk, old),
        Some(state) => NonNull::new(state),
    };
    let (Some(tcp), Some(state)) = (sk.tcp(), state.map(NonNull::as_ptr)) else {
        if !is_fallback {
            seen(CONNECTION);
            count!(u32::from(ROLE_UNKNOWN), connects[CONNECT_OK], 1);
        }
        return;
    };
    seen(CONNECTION);
    // SAFETY: a valid value of this socket's storage and a valid map value; the stack holds the
    // socket's lock.
    unsafe {
        let (is_client, began_us) = ((*state).role == ROLE_CLIENT, (*state).start_us);
        if is_client {
            (*state).answered_seq = tcp.written();
            (*state).start_us = 0;
        } else {
            // Inherited from the listener: from here on it is a connection of its own.
            serve(sk, state);
            (*state).exchange = exchange::idle(tcp.written());
        }
        // Nothing has arrived yet: a connection is idle from its handshake on.
        let now_us = tcp.now_us();
        (*state).last_received_us = now_us;
        (*state).idle = idle::since(now_us);
        (*state).port_or_end = UNDECIDED;
        (*state).ports = ports(sk.remote_port(), sk.local_port());
        (*state).stage = STAGE_OPEN;
        let slot = (*state).slot;
        let Some(counters) = edges::counters(slot) else { return };
        atomic::add(&raw mut (*counters).connects[CONNECT_OK as usize], 1);
        atomic::add(&raw mut (*counters).opened, 1);
        if is_client {
            let elapsed_us = now_us.saturating_sub(began_us);
            histograms::observe_in(counters, slot, ROLE_CLIENT, CONNECT, elapsed_us);
            // Last, and still before the server hears of it: its row is in nobody's cache, and every
            // atomic operation behind would wait for that.
            notes::leave(sk, tcp, (*state).owner);
        }
    }
}

/// Before a change of state: what was sent again until now belongs to the phase that ends.
#[inline(always)]
pub fn phase_ends(sk: Sock) {
    let Some(tcp) = sk.tcp() else { return };
    // As for most connections: then its state need not be looked for.
    if tcp.retransmits() | tcp.timeouts() | tcp.dsacks() == 0 {
        return;
    }
    let Some(state) = socket(sk.0) else { return };
    // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock.
    unsafe {
        // The child of a listener has the state of that until its handshake ends.
        if (*state).role != ROLE_LISTENER {
            sync_retransmits(tcp, state);
        }
    }
}

/// The socket reached CLOSE from `old`.
#[inline(always)]
pub fn closed(sk: Sock, old: u8) {
    let Some(state) = socket(sk.0) else {
        if old == SYN_SENT {
            seen(CONNECTION);
            count!(u32::from(ROLE_UNKNOWN), connects[CONNECT_OTHER], 1);
        }
        return;
    };
    // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock.
    unsafe {
        if old == LISTEN {
            sync_listener(sk, state);
            if sk.was_listening() {
                // What came until now was for this one; soon another may listen here.
                emit::call();
            } else {
                attempts::listen_failed(sk, (*state).owner);
            }
        } else if (*state).stage == STAGE_CONNECTING {
            failed(sk, state);
        } else if (*state).role == ROLE_LISTENER {
            // A child that died before its handshake ended.
            if old == SYN_RECV {
                serve(sk, state);
                failed(sk, state);
            }
        } else if (*state).stage == STAGE_OPEN {
            if let Some(tcp) = sk.tcp() {
                sync(tcp, state, Some(tcp.received_bytes()));
                requests::ended(tcp, state);
                unanswered::closed(sk, tcp, state);
                // Nobody waits for one that its program has closed.
                if !sk.is_orphaned()
                    && let Some(cause) =
                        abort_cause(sk.error(), tcp.is_acknowledged(), tcp.has_user_timeout())
                {
                    count!((*state).slot, aborts[cause], 1);
                }
                sync_limited(state, tcp.limited());
            }
            count!((*state).slot, closed, 1);
        }
        socket_table::end(state);
    }
}

/// Takes over a socket that was there before the programs were attached.
#[inline(always)]
pub fn preexisting(sk: Sock, tcp: Tcp, owner: u32, role: u8) {
    let listening = sk.state() == LISTEN;
    let (slot, retransmits) = if listening {
        (listeners::slot(owner, sk.local_port(), sk.local()), sk.drops())
    } else if role == ROLE_SERVER {
        (edges::slot(&server_key(sk, owner), || sk.addresses()), tcp.retransmits())
    } else {
        (edges::slot(&client_key(sk, owner), || sk.addresses()), tcp.retransmits())
    };
    let connecting = sk.state() == SYN_SENT;
    // A connect under way has its port; see `failed`.
    let answered_seq = if connecting { tcp.write_seq().wrapping_sub(1) } else { tcp.written() };
    let (_, rtt_mark) = tcp.round_trip();
    let (window, buffer) = tcp.limited();
    let state = SocketState {
        owner,
        slot,
        role: if listening { ROLE_LISTENER } else { role },
        stage: if connecting { STAGE_CONNECTING } else { STAGE_OPEN },
        answered_seq: if role == ROLE_SERVER { 0 } else { answered_seq },
        exchange: if role == ROLE_SERVER { exchange::idle(tcp.written()) } else { 0 },
        start_us: if connecting { monotonic_us() } else { 0 },
        last_received_us: monotonic_us(),
        sent_bytes: tcp.sent_bytes(role == ROLE_CLIENT),
        received_bytes: tcp.received_bytes(),
        received_mark: tcp.received_bytes() as u32,
        retransmits: u64::from(retransmits),
        rtt_mark,
        recoveries: halves(tcp.timeouts(), tcp.dsacks()),
        limited: halves(window, buffer),
        ports: ports(sk.remote_port(), sk.local_port()),
        protocol: if role == ROLE_SERVER { response::MET } else { 0 },
        ..maps::blank()
    };
    if remember(sk, &state).is_some() && !connecting && !listening {
        count!(slot, opened, 1);
        count!(slot, preexisting, 1);
    }
}

/// A connection attempt ended without a connection.
#[inline(always)]
unsafe fn failed(sk: Sock, state: *mut SocketState) {
    // SAFETY: the caller's contract.
    unsafe {
        let client = (*state).role == ROLE_CLIENT;
        let errno = sk.error();
        let mut has_syn = true;
        if let Some(tcp) = sk.tcp() {
            // The stack chooses a sequence number, and takes one for the SYN, only once it has a
            // source port. The port itself says nothing: `tcp_set_state` gives one back that the
            // program had not bound before its tracepoint.
            has_syn = !client || tcp.write_seq() != (*state).answered_seq;
        }
        let result = attempt_result(errno, has_syn, (*state).port_or_end != 0);
        if result == CONNECT_PORT_IN_USE {
            attempts::unsent(&UnsentKey {
                owner: (*state).owner,
                port: sk.remote_port(),
                local_port: (*state).port_or_end,
                remote: sk.remote(),
            });
        } else {
            seen(CONNECTION);
            count!((*state).slot, connects[result], 1);
        }
        if let Some(header) = emit::admit(KIND_CONNECT_FAILED, (*state).owner) {
            emit::write(&ConnectFailed {
                header,
                remote: sk.remote(),
                elapsed_us: monotonic_us().saturating_sub((*state).start_us),
                errno,
                port: if client { sk.remote_port() } else { sk.local_port() },
                result,
                zero: 0,
                slot: (*state).slot,
                zero2: 0,
            });
        }
    }
}

/// Makes an inherited state the state of an accepted connection.
#[inline(always)]
unsafe fn serve(sk: Sock, state: *mut SocketState) {
    // SAFETY: the caller's contract.
    unsafe {
        (*state).slot = edges::slot(&server_key(sk, (*state).owner), || sk.addresses());
        // The child starts with the SYN-ACKs that were sent again, which its listener has counted.
        if let Some(tcp) = sk.tcp() {
            (*state).retransmits = u64::from(tcp.retransmits());
            (*state).recoveries = halves(tcp.timeouts(), tcp.dsacks());
        }
        (*state).start_us = 0;
        // Last: from here on the socket iteration takes it for a connection.
        core::ptr::write_volatile(&raw mut (*state).role, ROLE_SERVER);
    }
}

/// A socket that no hook has reported: its listener was not known, or its state was lost.
#[inline(always)]
fn adopt(sk: Sock, old: u8) -> Option<NonNull<SocketState>> {
    let owner = owners::nobody(sk.netns(), || sk.net());
    let client = old == SYN_SENT;
    let state = SocketState {
        owner,
        slot: if client { edges::slot(&client_key(sk, owner), || sk.addresses()) } else { 0 },
        role: if client { ROLE_CLIENT } else { ROLE_SERVER },
        start_us: monotonic_us(),
        ..maps::blank()
    };
    remember(sk, &state)
}

/// Writes the state of a socket. The compiler may make a function of it, and what that returns must
/// be one word: of two it leaves one unwritten for `None`, which the verifier refuses.
#[inline(always)]
fn remember(sk: Sock, initial: &SocketState) -> Option<NonNull<SocketState>> {
    seen(SOCKET);
    if config!(socket_table) == 1 {
        if let Some(state) = socket_table::write(sk, initial) {
            return NonNull::new(state);
        }
        maps::spilled();
    }
    let Some(state) = stored_or_insert(sk.0, initial) else {
        lost(SOCKET, NO_STORAGE);
        return None;
    };
    // SAFETY: a valid value of this socket's storage. A socket used again keeps its old state's
    // place, so the new one is written over it.
    unsafe { *state = *initial };
    NonNull::new(state)
}

#[inline(always)]
fn client_key(sk: Sock, owner: u32) -> EdgeKey {
    EdgeKey { owner, port: sk.remote_port(), role: ROLE_CLIENT, zero: 0, remote: sk.remote() }
}

#[inline(always)]
fn server_key(sk: Sock, owner: u32) -> EdgeKey {
    let remote = match notes::read(sk) {
        Some(owner) => {
            let (server, client) = sk.addresses();
            from_owner(owner, &server, &client)
        }
        None => edges::client_address(sk.remote()),
    };
    EdgeKey { owner, port: sk.local_port(), role: ROLE_SERVER, zero: 0, remote }
}
