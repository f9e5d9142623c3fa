//! A program asks for an IPv6 port.
//!
//! `BPF_CGROUP_INET6_BIND` (`inet6_bind_sk`, net/ipv6/af_inet6.c, since 4.17): at the root of the
//! cgroup tree it runs for every bind(2), in process context, before the kernel has looked at
//! the address. Zero refuses the call (EPERM): this program does so only for a port that is
//! reserved with `--enforce`, to who is known to be someone else.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::binds;

#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    binds::requested_v6(ctx.sock_addr)
}
