//! Attempts: what programs request with bind(2), listen(2) and connect(2), while it is pending, and
//! what of it failed.
//!
//! A bind passes two cgroup hooks: one when the program requests a port, one when the socket is
//! bound. In between the attempt is *pending*, in the bucket of its thread; a thread can only be in
//! one bind at a time, so its next one, or a second of silence, says that the last one failed.
//! Failures of one kind share a row of counters; what the kernel does not say of them (the errno,
//! where no function exit can be hooked, and the holder of the port) is found out by user space.
//!
//! A connect is pending in the same way, from the moment a program requests it until the SYN is
//! about to leave; one that the kernel refused counts in a table of its own ([`crate::unsent`]).

use crate::share::Tenant;
use crate::slot_table::BIND_FAILURES;

/// The program called bind.
pub const STEP_BIND: u8 = 0;
/// The program called listen, on a port that it had bound.
pub const STEP_LISTEN: u8 = 1;

/// The program called connect; address and port are the remote ones.
pub const STEP_CONNECT: u8 = 2;

/// `SO_REUSEADDR` was set.
pub const REUSE_ADDRESS: u8 = 1;
/// `SO_REUSEPORT` was set.
pub const REUSE_PORT: u8 = 2;
/// `IPV6_V6ONLY` was set.
pub const V6_ONLY: u8 = 4;
/// An IPv6 socket.
pub const IS_V6: u8 = 8;
/// The socket had a port or a connection already.
pub const BOUND_BEFORE: u8 = 16;
/// The thread had CAP_NET_BIND_SERVICE.
pub const MAY_BIND_PRIVILEGED: u8 = 32;

/// The port is reserved for another service, and denied by our own hook.
pub const DENIED: u8 = 64;

/// Row 0 takes failures that found no row of their own.
pub const FAILURE_OVERFLOW: u32 = 0;
/// Row 1 counts binds that succeeded; nothing else of them is kept there.
pub const BOUND_ROW: u32 = 1;
/// How many rows there are.
pub const FAILURE_ROWS: usize = 1024;
/// The first row that is not reserved.
pub const FIRST_FREE_FAILURE: u32 = 2;

/// Threads whose attempts share a bucket.
pub const BUCKET: usize = 8;
/// Buckets, a power of two.
pub const BUCKETS: u32 = 512;
/// Buckets that are looked through at a time for what is overdue; divides [`BUCKETS`].
pub const EXPIRED_AT_ONCE: u32 = 32;

/// [`Pending::token`]: free.
pub const FREE: u64 = 0;
/// [`Pending::token`]: a program writes or reads it; no other one may.
pub const BUSY: u64 = 1;

/// A bind that has said nothing for so long has failed, nanoseconds. Between the two hooks the
/// kernel only takes the socket's lock and looks at tables; this is for a thread that must wait
/// for a CPU there.
pub const OVERDUE_NS: u64 = 1_000_000_000;

crate::wire! {
    /// What makes a row of failures: who wanted what, how.
    pub struct AttemptKey: 40 {
        /// Row of the owner of the calling process.
        pub owner: u32,
        /// Inode number of the socket's network namespace.
        pub netns: u32,
        /// The address; unspecified = all.
        pub address: [u32; 4],
        /// User id of the socket's creator.
        pub uid: u32,
        /// The device the socket is bound to, 0 = none.
        pub device: u32,
        /// The port, host byte order; 0 = any.
        pub port: u16,
        /// The errno as the kernel returned it; 0 = unknown.
        pub errno: u16,
        /// IP protocol: 6 = TCP, 17 = UDP.
        pub protocol: u8,
        /// `STEP_*`.
        pub step: u8,
        /// The socket's options, the thread's rights, and our own verdict: [`REUSE_ADDRESS`] to
        /// [`DENIED`].
        pub options: u8,
        /// Always zero.
        pub zero: u8,
    }

    /// Failures of one kind. `born_us` is written last: a row without it is not in use.
    pub struct FailureRow: 88 {
        /// Who wanted what; all zeros in the rows below [`FIRST_FREE_FAILURE`].
        pub key: AttemptKey,
        /// When the row was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
        /// Whose share the slot counts against.
        pub tenant: Tenant,
        /// How many.
        pub count: u64,
        /// When the last one began, CLOCK_MONOTONIC microseconds.
        pub last_us: u64,
        /// The process that tried last.
        pub tgid: u32,
        /// Always zero.
        pub zero: u32,
    }

    /// A bind under way. Whoever changes `token` by compare-and-swap owns the rest.
    pub struct Pending: 56 {
        /// [`FREE`], [`BUSY`], or when it began, CLOCK_MONOTONIC nanoseconds.
        pub token: u64,
        /// The thread (process id in the upper half).
        pub thread: u64,
        /// What it asked for.
        pub key: AttemptKey,
    }

    /// Attempts of threads that fall into the same bucket.
    pub struct PendingBucket: 448 {
        /// One per thread.
        pub attempts: [Pending; BUCKET],
    }
}

crate::slot_row! { FailureRow {
    key: AttemptKey, table: BIND_FAILURES, reserved: FIRST_FREE_FAILURE, ledger: None
} }

/// The bucket of a thread.
#[inline(always)]
pub const fn bucket_of(thread: u64) -> u32 {
    (thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 & (BUCKETS - 1)
}

/// The entry of its bucket that a thread takes if it can. Threads with neighbouring numbers are in
/// different buckets already.
#[inline(always)]
pub const fn home_of(thread: u64) -> usize {
    (thread / BUCKETS as u64) as usize & (BUCKET - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_with_neighbouring_numbers_spread() {
        let mut filled = [0usize; BUCKETS as usize];
        for thread in 0..2000u64 {
            let pid = 30_000 + thread;
            filled[bucket_of(pid << 32 | pid) as usize] += 1;
        }
        let most = filled.iter().max().copied().unwrap_or_default();
        assert!(most <= BUCKET + 6, "{most} of 2000 threads in one bucket");
    }

    #[test]
    fn threads_share_homes_less_often_than_by_chance() {
        let check = |name, thread: fn(u64) -> u64| {
            let mut entries = vec![[0usize; BUCKET]; BUCKETS as usize];
            for thread in (0..2000).map(thread) {
                entries[bucket_of(thread) as usize][home_of(thread)] += 1;
            }
            let shared = entries.as_flattened().iter().filter(|threads| **threads > 1).count();
            // By chance 354 of 4096.
            assert!(shared < 300, "{name}: {shared} entries are the home of several threads");
        };
        check("processes", |i| (30_000 + i) << 32 | (30_000 + i));
        check("threads of one process", |i| 30_000 << 32 | (30_000 + i));
        check("processes with seven threads", |i| (30_000 + 7 * i) << 32 | (30_000 + 7 * i));
    }
}
