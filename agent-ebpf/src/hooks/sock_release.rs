//! A program closes a socket.
//!
//! `BPF_CGROUP_INET_SOCK_RELEASE` (`inet_release`, net/ipv4/af_inet.c, since 5.9): at the root of the
//! cgroup tree it runs for every IPv4 and IPv6 socket that is closed, in process context, before
//! anything of it is taken down. All but UDP sockets leave after one comparison, and those that have
//! asked no DNS server after one lookup.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

use crate::lookups;

#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    lookups::released(ctx.sock)
}
