//! The socket iteration: visits every socket that has our state, brings its slot up to date and lists the
//! listeners. Run by the daemon, so that the hooks on the request path need not.
//!
//! Iterator `bpf_sk_storage_map` (net/core/bpf_sk_storage.c, since 5.9): all network namespaces,
//! only sockets in the map.

use core::ffi::c_void;

use agent_common::edge::ROLE_LISTENER;
use agent_common::listener::ListenerRecord;
use agent_common::socket::{STAGE_CONNECTING, STAGE_OPEN};
use aya_ebpf::helpers::generated::bpf_seq_write;

use crate::maps::socket;
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
            Some((sk, core::ptr::read_volatile(&raw const (*meta).seq)))
        }
    }
}

#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
extern "C" fn iterate_sockets(ctx: *const Context) -> i32 {
    let Some((sk, seq)) = Context::socket(ctx) else { return 0 };
    // SAFETY: each load is checked by the verifier.
    unsafe {
        let sk = Sock(sk);
        let Some(state) = socket(sk.0) else { return 0 };
        if (*state).stage == STAGE_CONNECTING
            && let Some(tcp) = sk.tcp()
        {
            sync::sync_retransmits(tcp, state);
            sync::add_connecting(state);
        }
        if (*state).stage != STAGE_OPEN {
            return 0;
        }
        if (*state).role != ROLE_LISTENER {
            // Full, for it has a state. If it was freed since, its memory is still that of one:
            // the caches of TCP sockets are `SLAB_TYPESAFE_BY_RCU`, and the iterator holds RCU.
            if let Some(tcp) = sk.tcp() {
                sync::sync(tcp, state, tcp.received_bytes_unlocked());
                sync::sync_retransmits(tcp, state);
                if let Some(limited) = tcp.limited_unlocked() {
                    sync::sync_limited(state, limited);
                }
                sync::add_queues(tcp, state);
                unanswered::visit(sk, tcp, state);
            }
        } else if sk.state() == LISTEN {
            sync::sync_listener(sk, state);
            let (backlog, max_backlog) = sk.backlog();
            let record = ListenerRecord {
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
            };
            // If the buffer is full the kernel visits this socket again with an empty one.
            bpf_seq_write(
                seq.cast(),
                (&raw const record).cast(),
                size_of::<ListenerRecord>() as u32,
            );
        }
    }
    0
}
