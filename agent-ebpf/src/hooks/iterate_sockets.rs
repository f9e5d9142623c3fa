//! The socket iteration: visits every socket that has our state in its own storage, brings its slot up
//! to date and lists the listeners. The others are visited by [`super::iterate_table`]. Run by the daemon, so that the hooks on the request path need not.
//!
//! Iterator `bpf_sk_storage_map` (net/core/bpf_sk_storage.c, since 5.9): all network namespaces,
//! only sockets in the map.

use core::ffi::c_void;

use agent_common::edge::ROLE_LISTENER;
use agent_common::listener::ListenerRecord;
use agent_common::socket::{STAGE_CONNECTING, STAGE_OPEN, SocketState};
use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};

use crate::maps::stored;
use crate::sock::{LISTEN, Sock};
use crate::{sync, unanswered};

/// `struct bpf_iter__bpf_sk_storage_map`. Pointers have no type: LLVM emits declarations of types
/// behind pointers in an order that changes from run to run, and the object must not.
#[repr(C)]
pub struct Context {
    meta: *const c_void,
    map: *const c_void,
    sk: *const c_void,
    value: *const c_void,
}

/// `struct bpf_iter_meta`.
#[repr(C)]
pub struct Meta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

impl Meta {
    /// Where to write.
    ///
    /// # Safety
    /// `meta` must be that of a context.
    #[inline(always)]
    pub unsafe fn seq(meta: *const Self) -> *mut c_void {
        // SAFETY: the caller's contract; the verifier checks the load.
        unsafe { core::ptr::read_volatile(&raw const (*meta).seq) }
    }
}

impl Context {
    /// The socket that is visited, and where to write about it; `None` at the end.
    #[inline(always)]
    pub fn socket(ctx: *const Self) -> Option<(*const c_void, *mut c_void)> {
        // SAFETY: the kernel passes a valid context; each load is checked by the verifier.
        unsafe {
            let sk = core::ptr::read_volatile(&raw const (*ctx).sk);
            if sk.is_null() {
                return None;
            }
            let meta = core::ptr::read_volatile(&raw const (*ctx).meta).cast::<Meta>();
            Some((sk, Meta::seq(meta)))
        }
    }
}

#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
extern "C" fn iterate_sockets(ctx: *const Context) -> i32 {
    if let Some((sk, seq)) = Context::socket(ctx) {
        visit(Sock(sk), seq, true);
    }
    0
}

/// `struct bpf_iter__task_file`.
#[repr(C)]
pub struct FileContext {
    meta: *const c_void,
    task: *const c_void,
    fd: u64,
    file: *const c_void,
}

impl FileContext {
    /// The socket that is visited, and where to write about it; `None` if the file is none, and at
    /// the end.
    #[inline(always)]
    pub fn socket(ctx: *const Self) -> Option<(Sock, *mut c_void)> {
        // SAFETY: the kernel passes a valid context; each load is checked by the verifier.
        unsafe {
            let file = core::ptr::read_volatile(&raw const (*ctx).file);
            if file.is_null() {
                return None;
            }
            let socket = bpf_sock_from_file(file.cast_mut().cast());
            if socket.is_null() {
                return None;
            }
            let sk = Sock::of_socket(socket.cast_const().cast());
            if sk.0.is_null() {
                return None;
            }
            let meta = core::ptr::read_volatile(&raw const (*ctx).meta).cast::<Meta>();
            Some((sk, Meta::seq(meta)))
        }
    }
}

/// For kernels that permit no iterator over maps: iterator `task_file` (kernel/bpf/task_iter.c, since
/// 5.8; `bpf_sock_from_file` since 5.11) goes through the open files of all processes. It does not
/// meet sockets that no process holds, and others more than once.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
extern "C" fn iterate_files(ctx: *const FileContext) -> i32 {
    if let Some((sk, seq)) = FileContext::socket(ctx) {
        visit(sk, seq, false);
    }
    0
}

/// `once`: no socket is visited twice.
#[inline(always)]
fn visit(sk: Sock, seq: *mut c_void, once: bool) {
    // The state in the socket, even if another one is in the table of sockets.
    let Some(state) = stored(sk.0) else { return };
    // SAFETY: a valid value of this socket's storage; each load is checked by the verifier. If the
    // buffer is full the kernel visits this socket again with an empty one.
    unsafe {
        if (*state).role != ROLE_LISTENER {
            visit_connection(sk, state, once);
        } else if let Some(record) = visit_listener(sk, state) {
            let size = size_of::<ListenerRecord>() as u32;
            bpf_seq_write(seq.cast(), (&raw const record).cast(), size);
        }
    }
}

/// Brings a connection's slot up to date; `once`: it is visited only once, so that what it holds can be
/// added up.
///
/// # Safety
/// `state` must be a valid state of `sk`.
#[inline(always)]
pub unsafe fn visit_connection(sk: Sock, state: *mut SocketState, once: bool) {
    // Full, for it has a state. If it was freed since, its memory is still that of one: the caches of
    // TCP sockets are `SLAB_TYPESAFE_BY_RCU`, and the iterator holds RCU.
    let Some(tcp) = sk.tcp() else { return };
    // SAFETY: the caller's contract.
    unsafe {
        if (*state).stage == STAGE_CONNECTING {
            sync::sync_retransmits(tcp, state);
            if once {
                sync::add_connecting(state);
            }
        } else if (*state).stage == STAGE_OPEN {
            sync::sync(tcp, state, tcp.received_bytes_unlocked());
            sync::sync_retransmits(tcp, state);
            if let Some(limited) = tcp.limited_unlocked() {
                sync::sync_limited(state, limited);
            }
            if once {
                sync::add_queues(tcp, state);
            }
            unanswered::visit(sk, tcp, state);
        }
    }
}

/// Brings a listener's row up to date; what there is to report about it.
///
/// # Safety
/// As [`visit_connection`].
#[inline(always)]
pub unsafe fn visit_listener(sk: Sock, state: *mut SocketState) -> Option<ListenerRecord> {
    // SAFETY: the caller's contract.
    unsafe {
        // A child has the state of its listener until its handshake ends.
        if (*state).stage != STAGE_OPEN || sk.state() != LISTEN {
            return None;
        }
        sync::sync_listener(sk, state);
        let (backlog, max_backlog) = sk.backlog();
        Some(ListenerRecord {
            owner: (*state).owner,
            netns: sk.netns(),
            backlog,
            max_backlog,
            address: sk.local(),
            cookie: sk.cookie(),
            port: sk.local_port(),
            v6_only: u8::from(sk.is_v6_only()),
            family: sk.family() as u8,
            zero: 0,
        })
    }
}
