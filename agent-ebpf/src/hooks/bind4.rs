//! A program asks for an IPv4 port.
//!
//! `BPF_CGROUP_INET4_BIND` (`inet_bind_sk`, net/ipv4/af_inet.c, since 4.17): at the root of the
//! cgroup tree it runs for every bind(2), in process context, before the kernel has looked at
//! the address. Zero refuses the call (EPERM): this program does so only for a port that is
//! reserved with `--enforce`, to who is known to be someone else.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::binds;

#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    binds::requested_v4(ctx.sock_addr)
}
