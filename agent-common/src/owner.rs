//! Owners: on whose behalf a socket connects or listens.
//!
//! An owner is {network namespace, cgroup, command name of the group leader, hash of the
//! arguments if the command is an interpreter}. It is stable across prefork workers, threads
//! and short-lived processes, and bounded: a thousand runs of `curl` are one owner, while two
//! `node` programs of one cgroup are two.

use crate::ledger::{NO_OWNER, OWNER};
use crate::slot_table::OWNERS;

/// Bytes of the command line kept per owner.
pub const ARGV_BYTES: usize = 256;

/// Owner row 0 takes every owner that found no row of its own.
pub const OWNER_OVERFLOW: u32 = 0;
/// The first row that belongs to somebody.
pub const FIRST_FREE_OWNER: u32 = 1;

crate::wire! {
    /// What makes an owner.
    pub struct OwnerKey: 32 {
        /// Inode number of the socket's network namespace.
        pub netns: u32,
        /// Hash of the command line for interpreters, else 0; see [`app_hash`].
        pub app: u32,
        /// cgroup v2 id of the task (the inode number of its folder); 0 if no task was involved.
        pub cgroup: u64,
        /// Command name of the thread group's leader, zero-padded; empty if no task was involved.
        pub comm: [u8; 16],
    }

    /// What user space needs to find an owner's name, written once when the row is taken.
    /// `born_us` is written last: a row without it is not in use.
    pub struct OwnerRow: 304 {
        /// The owner.
        pub key: OwnerKey,
        /// A process of this owner: the one that was seen first.
        pub tgid: u32,
        /// How many bytes of `argv` are valid.
        pub argv_len: u32,
        /// When the row was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
        /// The first bytes of that process' arguments, separated by NUL.
        pub argv: [u8; 256],
    }
}

crate::slot_row! { OwnerRow {
    key: OwnerKey, table: OWNERS, reserved: FIRST_FREE_OWNER, ledger: Some((OWNER, NO_OWNER))
} }

/// Whether a command runs programs that deserve names of their own.
///
/// Compared on the first eight bytes of the command name, which is enough to tell these apart
/// and cheap in the kernel. Newer Node releases name their main thread `MainThread`.
#[inline(always)]
pub fn is_interpreter(comm: &[u8; 16]) -> bool {
    const fn word(text: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        let mut i = 0;
        while i < text.len() && i < 8 {
            bytes[i] = text[i];
            i += 1;
        }
        u64::from_ne_bytes(bytes)
    }
    const EXACT: [u64; 14] = [
        word(b"node"),
        word(b"java"),
        word(b"ruby"),
        word(b"perl"),
        word(b"php"),
        word(b"bash"),
        word(b"sh"),
        word(b"dash"),
        word(b"deno"),
        word(b"bun"),
        word(b"dotnet"),
        word(b"beam.smp"),
        word(b"MainThre"),
        word(b"node-Mai"),
    ];
    let first = u64::from_ne_bytes([
        comm[0], comm[1], comm[2], comm[3], comm[4], comm[5], comm[6], comm[7],
    ]);
    // python, python3, python3.11 … and pypy, php8.2, ruby3.1, perl5.36 start alike.
    const PYTHON: u64 = word(b"python");
    const PYTHON_MASK: u64 = u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 0, 0]);
    const FOUR_MASK: u64 = u64::from_ne_bytes([255, 255, 255, 255, 0, 0, 0, 0]);
    const THREE_MASK: u64 = u64::from_ne_bytes([255, 255, 255, 0, 0, 0, 0, 0]);
    if first & PYTHON_MASK == PYTHON
        || first & FOUR_MASK == word(b"pypy")
        || first & FOUR_MASK == word(b"ruby")
        || first & FOUR_MASK == word(b"perl")
        || first & THREE_MASK == word(b"php")
    {
        return true;
    }
    let mut i = 0;
    while i < EXACT.len() {
        if first == EXACT[i] {
            return true;
        }
        i += 1;
    }
    false
}

/// A 32 bit hash of a command line; never 0. The unused tail of `argv` must be zero.
pub fn app_hash(argv: &[u8; ARGV_BYTES]) -> u32 {
    app_hash_of(|i| {
        let mut word = [0; 8];
        word.copy_from_slice(&argv[i * 8..i * 8 + 8]);
        u64::from_le_bytes(word)
    })
}

/// As [`app_hash`], over the little-endian words 0 to 31 that `word` reads.
#[inline(always)]
pub fn app_hash_of(word: impl Fn(usize) -> u64) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < ARGV_BYTES / 8 {
        hash = (hash ^ word(i)).wrapping_mul(0x0000_0100_0000_01b3);
        hash ^= hash >> 29;
        i += 1;
    }
    let folded = (hash ^ (hash >> 32)) as u32;
    if folded == 0 { 1 } else { folded }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comm(text: &str) -> [u8; 16] {
        let mut out = [0; 16];
        out[..text.len()].copy_from_slice(text.as_bytes());
        out
    }

    #[test]
    fn interpreters_are_known_and_servers_are_not() {
        for yes in [
            "node",
            "python",
            "python3",
            "python3.11",
            "pypy3",
            "java",
            "ruby3.1",
            "perl",
            "php-fpm8.2",
            "bash",
            "MainThread",
            "node-MainThread",
            "beam.smp",
        ] {
            assert!(is_interpreter(&comm(yes)), "{yes}");
        }
        for no in
            ["nginx", "postgres", "redis-server", "curl", "nodered", "javac", "sshd", "bundle", ""]
        {
            assert!(!is_interpreter(&comm(no)), "{no}");
        }
    }

    #[test]
    fn different_programs_hash_apart() {
        let argv = |text: &str| {
            let mut out = [0; ARGV_BYTES];
            out[..text.len()].copy_from_slice(text.as_bytes());
            out
        };
        assert_ne!(app_hash(&argv("node\0a.js")), app_hash(&argv("node\0b.js")));
        assert_eq!(app_hash(&argv("node\0a.js")), app_hash(&argv("node\0a.js")));
        assert_ne!(app_hash(&[0; ARGV_BYTES]), 0);
    }
}
