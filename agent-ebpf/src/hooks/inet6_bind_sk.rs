//! How an IPv6 bind ended: the exact errno.
//!
//! Return of `int inet6_bind_sk(struct sock *sk, struct sockaddr *uaddr, int addr_len)`,
//! net/ipv6/af_inet6.c, since 6.4; before, of `int inet6_bind(struct socket *sock, struct sockaddr
//! *uaddr, int addr_len)`. Both have three
//! arguments, so one program fits either; only the return value is looked at.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;

use crate::attempts;

#[fexit]
fn inet6_bind_sk(ctx: FExitContext) -> i32 {
    attempts::returned(ctx.arg::<i32>(3));
    0
}
