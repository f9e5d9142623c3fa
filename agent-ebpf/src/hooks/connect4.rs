//! A program asks for a connection to an IPv4 address.
//!
//! `BPF_CGROUP_INET4_CONNECT` (`tcp_v4_pre_connect`, net/ipv4/tcp_ipv4.c, since 4.17): at the root
//! of the cgroup tree it runs for every connect(2), in process context and under the socket's
//! lock, before the kernel has looked for a route. Datagram sockets pass by too.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connects;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    connects::requested_v4(ctx.sock_addr)
}
