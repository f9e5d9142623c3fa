//! Lists the sockets that hold a port and were bound by a program that the hooks saw. Run by the daemon
//! with the socket iteration.
//!
//! Iterator `bpf_sk_storage_map`, as for [`super::iterate_sockets`]. Some kernels refuse it: iterator
//! `task_file` (kernel/bpf/task_iter.c, since 5.8; `bpf_sock_from_file` since 5.11) goes through the
//! open files of all processes, which takes longer and meets a socket once for each.

use core::ffi::c_void;

use agent_common::bound::BoundRecord;
use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};

use super::iterate_sockets::{Context, Meta};
use crate::maps::bound;
use crate::sock::Sock;

#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
extern "C" fn bound_sockets(ctx: *const Context) -> i32 {
    if let Some((sk, seq)) = Context::socket(ctx) {
        report(Sock(sk), seq);
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

#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
extern "C" fn bound_files(ctx: *const FileContext) -> i32 {
    // SAFETY: the kernel passes a valid context; each load is checked by the verifier.
    unsafe {
        let file = core::ptr::read_volatile(&raw const (*ctx).file);
        if file.is_null() {
            return 0;
        }
        let socket: *const c_void = bpf_sock_from_file(file.cast_mut().cast()).cast_const().cast();
        if socket.is_null() {
            return 0;
        }
        let sk = Sock::of_socket(socket);
        if sk.0.is_null() {
            return 0;
        }
        let meta = core::ptr::read_volatile(&raw const (*ctx).meta).cast::<Meta>();
        report(sk, Meta::seq(meta));
    }
    0
}

/// Writes a record about a socket, if it holds a port.
#[inline(always)]
fn report(sk: Sock, seq: *mut c_void) {
    let Some(state) = bound(sk.0) else { return };
    let port = sk.local_port();
    // Given back, or the near end of a connection.
    if port == 0 || sk.remote_port() != 0 {
        return;
    }
    let (backlog, max_backlog) = sk.backlog();
    // SAFETY: a valid value of this socket's storage.
    let state = unsafe { *state };
    let record = BoundRecord {
        owner: state.owner,
        tgid: state.tgid,
        since_us: state.since_us,
        cookie: state.cookie,
        netns: sk.netns(),
        uid: sk.uid(),
        address: sk.local(),
        device: sk.device(),
        backlog,
        max_backlog,
        port,
        protocol: sk.protocol() as u8,
        state: sk.state(),
        options: sk.options(),
        is_kernel: u8::from(sk.is_kernels()),
        zero: [0; 2],
        inode: sk.inode(),
    };
    // SAFETY: a record of that size. If the buffer is full the kernel visits this socket again
    // with an empty one.
    unsafe {
        bpf_seq_write(seq.cast(), (&raw const record).cast(), size_of::<BoundRecord>() as u32);
    }
}
