//! A program got its IPv4 port.
//!
//! `BPF_CGROUP_INET4_POST_BIND` (`__inet_bind`, net/ipv4/af_inet.c, since 4.17): runs in process
//! context with the socket's lock, once the port is taken, and not for a bind that failed. Zero
//! would give the port back; this program never does.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

use crate::binds;

#[cgroup_sock(post_bind4)]
fn post_bind4(ctx: SockContext) -> i32 {
    binds::bound(ctx.sock)
}
