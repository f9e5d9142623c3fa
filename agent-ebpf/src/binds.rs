//! What the four bind hooks have in common: a program asks for a port, and gets it.

use core::ffi::c_void;

use agent_common::address::{self, Address};
use agent_common::attempt::{AttemptKey, MAY_BIND_PRIVILEGED, STEP_BIND};
use agent_common::bound::BoundState;
use agent_common::enforced::EnforcedPort;
use agent_common::ledger::{NO_STORAGE, SOCKET};
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_ktime_get_ns,
};

use crate::maps::{self, lost, seen};
use crate::raw_sock::RawSock;
use crate::sock::{Sock, Task};
use crate::{attempts, enforcement, owners};

/// The verdict of a cgroup program that lets the call go on.
pub const ALLOW: i32 = 1;
/// The verdict that makes it fail with EPERM.
const REFUSE: i32 = 0;

pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;

/// Reads a field of a context: one load of exactly its size, which is what the verifier rewrites.
macro_rules! context {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the kernel passes a valid context; the verifier checks the load.
        unsafe { core::ptr::read_volatile(&raw const (*$ctx).$($field)+) }
    };
}
pub(crate) use context;

/// A program asks for an IPv4 port.
#[inline(always)]
pub fn requested_v4(ctx: *const bpf_sock_addr) -> i32 {
    requested(ctx, || address::from_v4(context!(ctx, user_ip4)), false)
}

/// A program asks for an IPv6 port.
#[inline(always)]
pub fn requested_v6(ctx: *const bpf_sock_addr) -> i32 {
    let address = || {
        [
            context!(ctx, user_ip6[0]),
            context!(ctx, user_ip6[1]),
            context!(ctx, user_ip6[2]),
            context!(ctx, user_ip6[3]),
        ]
    };
    requested(ctx, address, true)
}

#[inline(always)]
fn requested(ctx: *const bpf_sock_addr, address: impl FnOnce() -> Address, is_v6: bool) -> i32 {
    let protocol = context!(ctx, protocol);
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return ALLOW;
    }
    let sk = context!(ctx, __bindgen_anon_1.sk);
    if sk.is_null() {
        return ALLOW;
    }
    let raw = RawSock::of(sk as *const c_void);
    let net = raw.net();
    let netns = net.inode();
    // First: what is read before takes room on the stack beside it.
    let owner = owners::current_apart(netns, net);
    let mut options = raw.options(is_v6);
    // SAFETY: no arguments; returns the running task.
    let task = Task(unsafe { bpf_get_current_task_btf() } as *const c_void);
    if task.may_bind_privileged() {
        options |= MAY_BIND_PRIVILEGED;
    }
    let key = AttemptKey {
        owner,
        netns,
        address: address(),
        uid: raw.uid(),
        device: raw.device(),
        port: u16::from_be(context!(ctx, user_port) as u16),
        errno: 0,
        protocol: protocol as u8,
        step: STEP_BIND,
        options,
        zero: 0,
    };
    let port = EnforcedPort { netns, port: key.port, protocol: key.protocol, zero: 0 };
    if enforcement::refuses(key.owner, port) {
        attempts::denied(&key);
        return REFUSE;
    }
    attempts::requested(&key);
    ALLOW
}

/// A program got its port.
#[inline(always)]
pub fn bound(ctx: *mut bpf_sock) -> i32 {
    let protocol = context!(ctx, protocol);
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return ALLOW;
    }
    // Nobody saw it ask if the other hook is not there, or saw it too long ago.
    let now_running = || {
        let net = RawSock::of(ctx as *const c_void).net();
        owners::current(net.inode(), || net)
    };
    let owner = attempts::bound().unwrap_or_else(now_running);
    seen(SOCKET);
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.cast()) };
    remember(ctx as *const c_void, &now(owner, cookie));
    ALLOW
}

/// A program listens: if it did not ask for its port, it has one from now on.
#[inline(always)]
pub fn listening(sk: Sock, owner: u32) {
    if maps::bound(sk.0).is_none() {
        seen(SOCKET);
        // SAFETY: a socket that the kernel vouches for.
        let cookie = unsafe { bpf_get_socket_cookie(sk.0.cast_mut()) };
        remember(sk.0, &now(owner, cookie));
    }
}

/// A socket that had its port before us.
#[inline(always)]
pub fn found(sk: Sock, owner: u32, tgid: u32) {
    if maps::bound(sk.0).is_none() {
        seen(SOCKET);
        remember(sk.0, &BoundState { owner, tgid, since_us: 0, cookie: sk.cookie() });
    }
}

/// Bound now, by the running process.
#[inline(always)]
fn now(owner: u32, cookie: u64) -> BoundState {
    BoundState {
        owner,
        // SAFETY: no arguments.
        tgid: (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32,
        // SAFETY: no arguments.
        since_us: unsafe { bpf_ktime_get_ns() } / 1000,
        cookie,
    }
}

#[inline(always)]
fn remember(sk: *const c_void, state: &BoundState) {
    match maps::bound_or_insert(sk, state) {
        // A socket bound again keeps its old state's place.
        // SAFETY: a valid value of this socket's storage; the kernel holds the socket's lock.
        Some(place) => unsafe { *place = *state },
        None => lost(SOCKET, NO_STORAGE),
    }
}
