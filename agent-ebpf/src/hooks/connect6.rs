//! A program asks for a connection to an IPv6 address.
//!
//! `BPF_CGROUP_INET6_CONNECT` (`tcp_v6_pre_connect`, net/ipv6/tcp_ipv6.c, since 4.17): as
//! `connect4`; also for an IPv4 address in IPv6 form, for which `connect4` does not run.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connects;

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    connects::requested_v6(ctx.sock_addr)
}
