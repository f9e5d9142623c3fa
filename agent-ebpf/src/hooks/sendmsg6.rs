//! A program sends a datagram to an IPv6 address from a socket that is not connected to it.
//!
//! `BPF_CGROUP_UDP6_SENDMSG` (`udpv6_sendmsg`, net/ipv6/udp.c, since 4.18): at the root of the cgroup
//! tree it runs for every such send, in process context, before the kernel has looked for a route.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::questions;

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    questions::sent_v6(ctx.sock_addr)
}
