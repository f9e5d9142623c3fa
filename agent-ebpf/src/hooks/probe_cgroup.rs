//! Runs for every packet that a socket of one cgroup receives, and does nothing: what is attached to
//! see whether this host lets programs be attached to a cgroup after the start.
//!
//! `BPF_CGROUP_INET_INGRESS` (`sk_filter_trim_cap`, net/core/filter.c, since 4.10): on the cgroup
//! that a link names and those below it, not at the root of the tree. Zero drops the packet; this
//! program never does.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

#[cgroup_skb(ingress)]
fn probe_cgroup(_ctx: SkBuffContext) -> i32 {
    1
}
