//! Owners: on whose behalf a socket connects or listens.
//!
//! An owner is {network namespace, cgroup, command name of the group leader, and a hash of the
//! arguments and the working directory if the command name does not say which program it is}:
//! interpreters, servers of other people's applications, process titles. It is stable across
//! prefork workers, threads and short-lived processes, and bounded: a thousand runs of `curl` are
//! one owner, while two `node` programs of one cgroup are two, and a title that counts
//! (`[3 of 5 busy]`) is one.

use crate::ledger::{NO_OWNER, OWNER};
use crate::share::Tenant;
use crate::slot_table::OWNERS;

/// Bytes of the command line kept per owner.
pub const ARGV_BYTES: usize = 256;

/// Bytes kept of the name of a directory, with a zero at the end.
pub const DIRECTORY_BYTES: usize = 40;
/// How many names are kept of the path of the working directory: its own comes first, then its
/// parent's, and so on.
pub const DIRECTORIES: usize = 3;
/// Bytes of all of them.
pub const PATH_BYTES: usize = DIRECTORY_BYTES * DIRECTORIES;

/// Owner row 0 takes every owner that found no row of its own.
pub const OWNER_OVERFLOW: u32 = 0;
/// The first row that is not reserved.
pub const FIRST_FREE_OWNER: u32 = 1;

crate::wire! {
    /// What makes an owner.
    pub struct OwnerKey: 32 {
        /// Inode number of the socket's network namespace.
        pub netns: u32,
        /// Hash of the arguments and the working directory, if [`counts_arguments`], else 0; see
        /// [`app_hash`].
        pub app: u32,
        /// cgroup v2 id of the task (the inode number of its folder); 0 if no task was involved.
        pub cgroup: u64,
        /// Command name of the thread group's leader, zero-padded; empty if no task was involved.
        pub comm: [u8; 16],
    }

    /// What user space needs to find an owner's name, written once when the row is taken.
    /// `born_us` is written last: a row without it is not in use.
    pub struct OwnerRow: 440 {
        /// The owner.
        pub key: OwnerKey,
        /// A process of this owner: the one that was seen first.
        pub tgid: u32,
        /// How many bytes of `argv` are valid.
        pub argv_len: u32,
        /// When the row was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
        /// Whose share the slot counts against.
        pub tenant: Tenant,
        /// The first bytes of that process' arguments, separated by NUL.
        pub argv: [u8; 256],
        /// The last [`DIRECTORIES`] names of the path of its working directory, each padded with
        /// zeros, if [`counts_directory`]. A name that fills its place was cut. `/` is the root of
        /// a file system.
        pub path: [u8; 120],
    }
}

crate::slot_row! { OwnerRow {
    key: OwnerKey, table: OWNERS, reserved: FIRST_FREE_OWNER, ledger: Some((OWNER, NO_OWNER))
} }

/// In [`OwnerKey::app`], where no namespace is: the row of a tenant's owners that found none of their
/// own.
const OF_TENANT: u32 = u32::MAX;

impl OwnerKey {
    /// The key of all owners of a tenant that found no row of their own. Every other key has a
    /// network namespace.
    #[inline(always)]
    pub const fn others_of(tenant: Tenant) -> Self {
        let Tenant { cgroup, origin } = tenant;
        let comm = (origin as u128).to_ne_bytes();
        Self { netns: 0, app: OF_TENANT, cgroup, comm }
    }

    /// Whether it stands for owners of a tenant that found no row of their own.
    pub const fn is_others(&self) -> bool {
        self.netns == 0 && self.app == OF_TENANT
    }
}

/// The first eight bytes of a command name.
const fn word(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let mut i = 0;
    while i < text.len() && i < 8 {
        bytes[i] = text[i];
        i += 1;
    }
    u64::from_ne_bytes(bytes)
}

/// The mask of the first `count` bytes.
const fn first(count: usize) -> u64 {
    let mut bytes = [0; 8];
    let mut i = 0;
    while i < count {
        bytes[i] = 255;
        i += 1;
    }
    u64::from_ne_bytes(bytes)
}

/// Interpreters, by their whole names. Newer Node releases name their main thread `MainThread`.
const INTERPRETERS: [u64; 14] = [
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

/// Servers of other people's applications. The kernel names scripts after their file, so these
/// are command names while the server has not set a title yet, and in Ruby also afterwards.
const SERVERS: [u64; 17] = [
    word(b"gunicorn"),
    word(b"uvicorn"),
    word(b"hypercorn"),
    word(b"daphne"),
    word(b"granian"),
    word(b"waitress-serve"),
    word(b"celery"),
    word(b"flask"),
    word(b"puma"),
    word(b"unicorn"),
    word(b"unicorn_rails"),
    word(b"falcon"),
    word(b"thin"),
    word(b"rackup"),
    word(b"rails"),
    word(b"bundle"),
    word(b"sidekiq"),
];

/// Bytes that no name of a program file has, but titles do.
const TITLE: &[u8] = b" /:[(";

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The top bit of bytes of `word` that are zero; above the first such byte it may also be set for
/// others.
#[inline(always)]
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

#[inline(always)]
fn head(comm: &[u8; 16]) -> u64 {
    u64::from_ne_bytes([comm[0], comm[1], comm[2], comm[3], comm[4], comm[5], comm[6], comm[7]])
}

#[inline(always)]
fn tail(comm: &[u8; 16]) -> u64 {
    u64::from_ne_bytes([
        comm[8], comm[9], comm[10], comm[11], comm[12], comm[13], comm[14], comm[15],
    ])
}

/// Whether a command runs programs that deserve names of their own.
///
/// Compared on the first eight bytes of the command name, which is enough to distinguish them
/// and cheap in the kernel.
#[inline(always)]
pub fn is_interpreter(comm: &[u8; 16]) -> bool {
    let name = head(comm);
    // python, python3, python3.11 … and pypy, php8.2, ruby3.1, perl5.36 start alike.
    if name & first(6) == word(b"python")
        || name & first(4) == word(b"pypy")
        || name & first(4) == word(b"ruby")
        || name & first(4) == word(b"perl")
        || name & first(3) == word(b"php")
    {
        return true;
    }
    is_among(name, &INTERPRETERS)
}

/// Whether a command serves applications that deserve names of their own.
#[inline(always)]
pub fn is_server(comm: &[u8; 16]) -> bool {
    is_among(head(comm), &SERVERS)
}

/// Whether a command name is a process title or the first bytes of one.
#[inline(always)]
pub fn is_title(comm: &[u8; 16]) -> bool {
    let (head, tail) = (head(comm), tail(comm));
    let mut found = 0;
    let mut i = 0;
    while i < TITLE.len() {
        let each = LOW.wrapping_mul(u64::from(TITLE[i]));
        found |= zeros(head ^ each) | zeros(tail ^ each);
        i += 1;
    }
    found != 0
}

/// What tells programs with one command name apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distinction(u64);

impl Distinction {
    const ARGUMENTS: u64 = 1;
    const DIRECTORY: u64 = 2;
    const COUNTS_ALIKE: u64 = 4;

    /// Of programs with this command name.
    #[inline(always)]
    pub fn of(comm: &[u8; 16]) -> Self {
        let is_interpreter = is_interpreter(comm);
        if !(is_interpreter || is_server(comm) || is_title(comm)) {
            return Self(0);
        }
        let mut bits = Self::ARGUMENTS;
        // Workers of PHP-FPM change their working directory with every request.
        if head(comm) & first(7) != word(b"php-fpm") {
            bits |= Self::DIRECTORY;
        }
        // The arguments may be a title that counts: `puma: cluster worker 1: 4711 [shop]`. Ruby
        // leaves the command name alone when a title is set.
        if !is_interpreter || head(comm) & first(4) == word(b"ruby") {
            bits |= Self::COUNTS_ALIKE;
        }
        Self(bits)
    }

    /// From [`Self::bits`].
    #[inline(always)]
    pub fn from_bits(bits: usize) -> Self {
        Self(bits as u64)
    }

    /// As a number, of which the kernel half can hide what the verifier knows: it would walk
    /// through [`app_hash_of`] once for each command name.
    #[inline(always)]
    pub fn bits(self) -> usize {
        self.0 as usize
    }

    /// Whether by their arguments and, maybe, their working directory.
    #[inline(always)]
    pub fn by_arguments(self) -> bool {
        self.0 & Self::ARGUMENTS != 0
    }

    /// 1 if programs whose arguments differ in counts alone are one, else 0. A number, since the
    /// verifier would follow both branches of a condition.
    #[inline(always)]
    fn counts_alike(self) -> u64 {
        self.0 >> Self::COUNTS_ALIKE.trailing_zeros() & 1
    }

    /// Whether by their working directory, too.
    #[inline(always)]
    pub fn by_directory(self) -> bool {
        self.0 & Self::DIRECTORY != 0
    }
}

/// Whether programs with this command name are distinguished by their arguments.
#[inline(always)]
pub fn counts_arguments(comm: &[u8; 16]) -> bool {
    Distinction::of(comm).by_arguments()
}

/// Whether programs with this command name are distinguished by their working directory.
#[inline(always)]
pub fn counts_directory(comm: &[u8; 16]) -> bool {
    Distinction::of(comm).by_directory()
}

#[inline(always)]
fn is_among(name: u64, names: &[u64]) -> bool {
    let mut i = 0;
    while i < names.len() {
        if name == names[i] {
            return true;
        }
        i += 1;
    }
    false
}

/// A 32 bit hash of the arguments and the working directory of a program with this command name;
/// never 0. Unused bytes must be zero.
pub fn app_hash(comm: &[u8; 16], argv: &[u8; ARGV_BYTES], path: &[u8; PATH_BYTES]) -> u32 {
    app_hash_of(Distinction::of(comm), |i| {
        let mut word = [0; 8];
        let at = i * 8;
        let bytes = if at < ARGV_BYTES { &argv[at..] } else { &path[at - ARGV_BYTES..] };
        word.copy_from_slice(&bytes[..8]);
        u64::from_le_bytes(word)
    })
}

/// As [`app_hash`], over the little-endian words that `word` reads: 0 to 31 are the arguments,
/// those after them the path.
#[inline(always)]
pub fn app_hash_of(distinction: Distinction, word: impl Fn(usize) -> u64) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut digits = Digits::new(distinction.counts_alike());
    let mut i = 0;
    while i < ARGV_BYTES / 8 {
        hash = mixed(hash, digits.without_counts(word(i)));
        i += 1;
    }
    while i < (ARGV_BYTES + PATH_BYTES) / 8 {
        hash = mixed(hash, word(i));
        i += 1;
    }
    let folded = (hash ^ (hash >> 32)) as u32;
    if folded == 0 { 1 } else { folded }
}

#[inline(always)]
fn mixed(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    hash ^ hash >> 29
}

/// Finds the free-standing numbers of a title, eight bytes at a time: digits after a space, `[`,
/// `(` or `=`. What changes with the state of a program stands there; the number of `shop-2.js`
/// or `[shop2]` does not. Without branches: the verifier would follow each.
struct Digits {
    /// All ones if numbers are to be found.
    enabled: u64,
    /// Bit 7 is set if the byte before the next word begins or continues a number.
    before: u64,
}

impl Digits {
    /// Finds numbers if `enabled` is 1, none if it is 0.
    #[inline(always)]
    fn new(enabled: u64) -> Self {
        Self { enabled: enabled.wrapping_neg(), before: 0 }
    }

    /// A little-endian word of the title, with zeros for the digits of such numbers.
    #[inline(always)]
    fn without_counts(&mut self, word: u64) -> u64 {
        let ascii = word & !HIGH;
        let below = |limit: u64| !(ascii | HIGH).wrapping_sub(LOW.wrapping_mul(limit)) & HIGH;
        let is = |byte: u8| below(u64::from(byte) + 1) & !below(u64::from(byte));
        let digits = below(u64::from(b'9') + 1) & !below(u64::from(b'0')) & !word;
        let openers = (is(b' ') | is(b'[') | is(b'(') | is(b'=')) & !word & HIGH;
        let mut number = digits & (openers << 8 | self.before);
        // Along the digits that follow: by one, two, four bytes.
        let mut run = digits;
        number |= run & number << 8;
        run &= run << 8;
        number |= run & number << 16;
        run &= run << 16;
        number |= run & number << 32;
        self.before = (openers | number) >> 56;
        word & !((number >> 7).wrapping_mul(255) & self.enabled)
    }
}

#[cfg(test)]
mod tests;
