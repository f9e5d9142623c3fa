//! A packet that a socket of a chosen service sends: responses.
//!
//! `BPF_CGROUP_INET_EGRESS` (`ip_finish_output`, net/ipv4/ip_output.c, since 4.10): on the cgroup of that
//! service, under the socket's lock, in order, before large packets are cut; again for each that is
//! retransmitted. `bpf_loop` is there since 5.17. Zero drops the packet; this program never does.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use crate::walks;

#[cgroup_skb(egress)]
fn walk_out(ctx: SkBuffContext) -> i32 {
    walks::sent(ctx.skb.skb)
}
