//! A program got its IPv6 port.
//!
//! `BPF_CGROUP_INET6_POST_BIND` (`__inet6_bind`, net/ipv6/af_inet6.c, since 4.17): runs in process
//! context with the socket's lock, once the port is taken, and not for a bind that failed. Zero
//! would give the port back; this program never does.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

use crate::binds;

#[cgroup_sock(post_bind6)]
fn post_bind6(ctx: SockContext) -> i32 {
    binds::bound(ctx.sock)
}
