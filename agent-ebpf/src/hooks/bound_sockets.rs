//! Lists the sockets that hold a port and were bound by a program that the hooks saw. Run by the daemon
//! with the socket iteration.
//!
//! Iterators as for [`super::iterate_sockets`].

use core::ffi::c_void;

use agent_common::bound::BoundRecord;
use aya_ebpf::helpers::generated::bpf_seq_write;

use super::iterate_sockets::{Context, FileContext};
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

#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
extern "C" fn bound_files(ctx: *const FileContext) -> i32 {
    if let Some((sk, seq)) = FileContext::socket(ctx) {
        report(sk, seq);
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
