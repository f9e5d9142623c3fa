//! A packet that a socket of a chosen service receives: requests.
//!
//! `BPF_CGROUP_INET_INGRESS` (`sk_filter_trim_cap`, net/core/filter.c, since 4.10): on the cgroup of that
//! service, before TCP has put packets in order, without the socket's lock. `bpf_loop` is there since 5.17.
//! Zero drops the packet; this program never does.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use crate::walks;

#[cgroup_skb(ingress)]
fn walk_in(ctx: SkBuffContext) -> i32 {
    walks::received(ctx.skb.skb)
}
