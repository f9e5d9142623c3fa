//! A program sends a datagram to an IPv4 address from a socket that is not connected to it.
//!
//! `BPF_CGROUP_UDP4_SENDMSG` (`udp_sendmsg`, net/ipv4/udp.c, since 4.18): at the root of the cgroup
//! tree it runs for every such send, in process context, before the kernel has looked for a route.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::questions;

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    questions::sent_v4(ctx.sock_addr)
}
