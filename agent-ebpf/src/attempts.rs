//! Binds and connects under way, and those that failed; see [`agent_common::attempt`].

use agent_common::attempt::{
    AttemptKey, BOUND_ROW, BUCKET, BUSY, DENIED, FAILURE_OVERFLOW, FREE, OVERDUE_NS, Pending,
    PendingBucket, STEP_CONNECT, STEP_LISTEN, bucket_of, home_of,
};
use agent_common::ledger::{BIND, CONNECTION, LATE, NO_ATTEMPT};
use agent_common::unsent::{UNSENT_OVERFLOW, UnsentKey};
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns,
};

use crate::atomic;
use crate::maps::{self, lost, seen};
use crate::opaque::{forgotten, opaque};
use crate::owners;
use crate::sock::Sock;

// What `forgotten` makes of an entry.
const _: () = assert!(BUCKET == 8);

/// What a cgroup program's refusal becomes (`__cgroup_bpf_run_filter_sock_addr`,
/// kernel/bpf/cgroup.c).
const EPERM: u16 = 1;

/// The running thread asks for a port. If it had asked before and nothing came of it, that failed.
#[inline(always)]
pub fn requested(key: &AttemptKey) {
    seen(BIND);
    if !open(key, now_ns()) {
        lost(BIND, NO_ATTEMPT);
    }
}

/// The running thread asks for a connection. If it had asked before and no SYN left, that failed.
#[inline(always)]
pub fn connect_requested(key: &AttemptKey) {
    let now = now_of_tick_ns();
    maps::connects_at(now);
    if !open(key, now) {
        // If it fails, no program sees that; if not, it is seen once more, and counted.
        seen(CONNECTION);
        lost(CONNECTION, NO_ATTEMPT);
    }
}

/// The running thread's SYN is about to leave: who asked for it, if that is known.
#[inline(always)]
pub fn syn_sent() -> Option<u32> {
    let attempt = own(|step| step == STEP_CONNECT)?;
    // SAFETY: a valid map value; ours since `own`.
    let owner = unsafe { (*attempt).key.owner };
    // SAFETY: as above.
    unsafe { release(attempt, FREE) };
    Some(owner)
}

/// Remembers what the running thread asks for; whether there was room.
#[inline(always)]
fn open(key: &AttemptKey, now: u64) -> bool {
    let thread = current_thread();
    let Some(bucket) = maps::pending(bucket_of(thread)) else { return false };
    // Twice: what is overdue may be taken by the daemon at the same moment.
    let mut tries = 0;
    while tries < 2 {
        let index = place_for(bucket, thread, now);
        if index >= BUCKET {
            break;
        }
        let attempt = at(bucket, index);
        if let Some(before) = take(attempt) {
            if before != FREE {
                failed_in(attempt, before);
            }
            // SAFETY: a valid map value, ours while the token says so.
            unsafe {
                (*attempt).thread = thread;
                (*attempt).key = *key;
                release(attempt, now);
            }
            return true;
        }
        tries += 1;
    }
    false
}

/// The running thread asks for a port that is refused to it: that has failed already.
#[inline(always)]
pub fn denied(key: &AttemptKey) {
    seen(BIND);
    let key = AttemptKey { errno: EPERM, options: key.options | DENIED, ..*key };
    failed(&key, current_thread(), now_ns());
}

/// The running thread got what it had asked for: who asked, if that is known.
#[inline(always)]
pub fn bound() -> Option<u32> {
    let Some(attempt) = own(is_bind) else {
        // It was counted as failed already, or nothing was remembered.
        seen(BIND);
        lost(BIND, LATE);
        return None;
    };
    // SAFETY: a valid map value; ours since `own`.
    let owner = unsafe { (*attempt).key.owner };
    // SAFETY: as above.
    unsafe { release(attempt, FREE) };
    count_row(BOUND_ROW, 0, now_ns() / 1000);
    Some(owner)
}

/// The kernel returned the result of the running thread's bind. One that is refused before any
/// hook ran (an address that is too short) has left no attempt.
#[inline(always)]
pub fn returned(result: i32) {
    if result >= 0 {
        return;
    }
    let Some(attempt) = own(is_bind) else { return };
    // SAFETY: a valid map value, ours since `own`.
    unsafe {
        (*attempt).key.errno = result.wrapping_neg() as u16;
        failed_in(attempt, now_ns());
        release(attempt, FREE);
    }
}

/// Counts what has been silent for too long as failed.
#[inline(always)]
pub fn expire(bucket: *mut PendingBucket) {
    let now = now_ns();
    let mut i = 0;
    while i < BUCKET {
        let attempt = at(bucket, opaque(i) & (BUCKET - 1));
        // SAFETY: a valid map value; volatile, because others write it.
        let token = unsafe { core::ptr::read_volatile(&raw const (*attempt).token) };
        if is_overdue(token, now)
            // SAFETY: as above.
            && unsafe { atomic::compare_swap(&raw mut (*attempt).token, token, BUSY) } == token
        {
            failed_in(attempt, token);
            // SAFETY: as above, ours.
            unsafe { release(attempt, FREE) };
        }
        i += 1;
    }
}

/// A socket that was bound lost its port when it began to listen.
#[inline(always)]
pub fn listen_failed(sk: Sock, owner: u32) {
    seen(BIND);
    let key = AttemptKey {
        owner,
        netns: sk.netns(),
        address: sk.local(),
        uid: sk.uid(),
        device: sk.device(),
        port: sk.local_port(),
        errno: 0,
        protocol: sk.protocol() as u8,
        step: STEP_LISTEN,
        options: sk.options(),
        zero: 0,
    };
    failed(&key, current_thread(), now_ns());
}

/// Where the thread's attempt goes: its home, unless another thread has that, else its own last
/// entry, else a free one, else one whose owner has been silent for too long; [`BUCKET`] if there is
/// none. What it has elsewhere when it comes home is overdue a second later.
///
/// The verifier may not know which one it is: it would go through the rest of the program once for
/// every pair of numbers, and before Linux 6.2 that is more than it has patience for.
#[inline(always)]
fn place_for(bucket: *mut PendingBucket, thread: u64, now: u64) -> usize {
    let home = home_of(thread);
    let token = token_at(bucket, home);
    if token == FREE || (token != BUSY && is_of(bucket, home, thread)) {
        return home;
    }
    let (mut free, mut overdue, mut i) = (BUCKET, BUCKET, 0);
    while i < BUCKET {
        let index = opaque(i) & (BUCKET - 1);
        let token = token_at(bucket, index);
        let entry = forgotten(i, token);
        if token == FREE {
            free = entry;
        } else if token != BUSY {
            if is_of(bucket, index, thread) {
                return entry;
            }
            if is_overdue(token, now) {
                overdue = entry;
            }
        }
        i += 1;
    }
    if free < BUCKET { free } else { overdue }
}

/// The attempt of the running thread, taken; `None` if it has none of that kind. What it tried
/// before in the other way, and is not reported yet, stays where it is.
#[inline(always)]
fn own(is_it: impl Fn(u8) -> bool) -> Option<*mut Pending> {
    let thread = current_thread();
    let bucket = maps::pending(bucket_of(thread))?;
    // At home there is its newest, if any.
    let (mut entry, mut i) = (home_of(thread), 0);
    loop {
        let token = token_at(bucket, entry);
        let next = forgotten(i, token);
        if token > BUSY && is_of(bucket, entry, thread) {
            let attempt = at(bucket, entry);
            // SAFETY: a valid map value; volatile, because others write it.
            unsafe {
                if !is_it(core::ptr::read_volatile(&raw const (*attempt).key.step)) {
                    return None;
                }
                let found = atomic::compare_swap(&raw mut (*attempt).token, token, BUSY);
                return if found == token { Some(attempt) } else { None };
            }
        }
        if i >= BUCKET {
            return None;
        }
        entry = next;
        i += 1;
    }
}

#[inline(always)]
fn is_bind(step: u8) -> bool {
    step != STEP_CONNECT
}

/// Takes an entry whatever is in it, unless a program is at it: the token that was there.
#[inline(always)]
fn take(attempt: *mut Pending) -> Option<u64> {
    // SAFETY: a valid map value; volatile, because others write it.
    unsafe {
        let token = core::ptr::read_volatile(&raw const (*attempt).token);
        if token == BUSY || atomic::compare_swap(&raw mut (*attempt).token, token, BUSY) != token {
            return None;
        }
        Some(token)
    }
}

/// Gives an entry back, empty or with a new attempt.
///
/// # Safety
/// The token must be [`BUSY`] by the caller's own doing.
#[inline(always)]
unsafe fn release(attempt: *mut Pending, token: u64) {
    // SAFETY: a valid map value. An exchange, not a store: what was written before it is seen
    // before it.
    unsafe { atomic::compare_swap(&raw mut (*attempt).token, BUSY, token) };
}

/// The attempt in an entry that is ours failed; it began at `token`.
#[inline(always)]
fn failed_in(attempt: *mut Pending, token: u64) {
    // SAFETY: a valid map value; no other program touches it while it is ours.
    let (key, thread) = unsafe { ((*attempt).key, (*attempt).thread) };
    failed(&key, thread, token);
}

fn failed(key: &AttemptKey, thread: u64, began_ns: u64) {
    if key.step == STEP_CONNECT {
        let AttemptKey { owner, address: remote, port, .. } = *key;
        return unsent(&UnsentKey { owner, port, local_port: 0, remote });
    }
    let row = maps::bind_failures().find_or_take(
        key,
        || owners::tenant(key.owner),
        FAILURE_OVERFLOW,
        |_| {},
    );
    count_row(row, (thread >> 32) as u32, began_ns / 1000);
}

/// The kernel refused a connect before a SYN could leave. A function, because two programs call it
/// from entries with little room on the stack.
#[inline(never)]
pub fn unsent(key: &UnsentKey) {
    seen(CONNECTION);
    let table = maps::unsent();
    let tenant = || owners::tenant(key.owner);
    let slot = table.find_or_take(key, tenant, UNSENT_OVERFLOW, |_| {});
    if let Some(row) = table.rows.get_ptr_mut(slot) {
        // SAFETY: a valid map value.
        unsafe { atomic::add(&raw mut (*row).count, 1) };
    }
}

#[inline(always)]
fn count_row(index: u32, tgid: u32, at_us: u64) {
    if let Some(row) = maps::bind_failures().rows.get_ptr_mut(index) {
        // SAFETY: a valid map value; time and process are those of one of the last to come.
        unsafe {
            atomic::add(&raw mut (*row).count, 1);
            core::ptr::write_volatile(&raw mut (*row).last_us, at_us);
            core::ptr::write_volatile(&raw mut (*row).tgid, tgid);
        }
    }
}

#[inline(always)]
fn at(bucket: *mut PendingBucket, index: usize) -> *mut Pending {
    // SAFETY: every caller's index is below BUCKET.
    unsafe { (&raw mut (*bucket).attempts).cast::<Pending>().add(index) }
}

#[inline(always)]
fn token_at(bucket: *mut PendingBucket, index: usize) -> u64 {
    // SAFETY: a valid map value; volatile, because others write it.
    unsafe { core::ptr::read_volatile(&raw const (*at(bucket, index)).token) }
}

/// Whether what is in an entry that is neither free nor busy is of this thread.
#[inline(always)]
fn is_of(bucket: *mut PendingBucket, index: usize, thread: u64) -> bool {
    // SAFETY: as in `token_at`.
    unsafe { core::ptr::read_volatile(&raw const (*at(bucket, index)).thread) == thread }
}

#[inline(always)]
fn is_overdue(token: u64, now: u64) -> bool {
    token > BUSY && now.saturating_sub(token) > OVERDUE_NS
}

#[inline(always)]
fn current_thread() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_pid_tgid() }
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// As [`now_ns`], at the last tick of the kernel: it costs a load instead of a read of the hardware's
/// clock.
#[inline(always)]
fn now_of_tick_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}
