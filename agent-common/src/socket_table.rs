//! The table of sockets: where the state of most sockets lies, in a place of its own in an array.
//!
//! Storage in the socket itself, which the kernel offers, is allocated, charged and queued for its
//! end with every connection; that was half of what a connection paid. A place here is taken by a
//! compare-and-swap, and given back by writing that the socket has ended.
//!
//! A socket's *key* is its address, as a distance from an address of our own. It chooses a set of
//! four entries; the entry whose *token* is the key is the socket's. An address is used again once
//! the socket is gone, so the first event of a socket writes its entry anew, and an entry that says
//! that its socket has ended is of no other: it stays for a moment, for what the stack does behind
//! the end (a reset), and is then free for others.
//!
//! A program that works on an entry while its socket may end marks it: the lowest bit of the token,
//! [`BUSY`], keeps others from taking the entry, and nobody from finding it.
//!
//! A socket that finds its set full gets storage in the socket.
//!
//! User space goes through the living entries by running a program of its own for a few at a time, not
//! by an iterator, which some kernels refuse. Which entries live is in a bitmap.

use crate::socket::{STAGE_CLOSED, SocketState};

/// Sets of entries, a power of two.
pub const SETS: usize = 1 << SET_BITS;
/// Entries of a set, a power of two.
pub const WAYS: usize = 4;
const SET_BITS: u32 = 11;

/// Words of the bitmap of entries that may live, entry by entry.
pub const LIVE_WORDS: usize = SETS * WAYS / 64;

/// Arguments of the program that visits entries: all that a program of its type has
/// (`MAX_BPF_FUNC_ARGS`, include/linux/bpf.h).
pub const ARGUMENTS: usize = 12;
/// Entries that are visited at a time, their numbers as the 16 bit parts of the arguments.
pub const BATCH: usize = 4 * ARGUMENTS;
/// In the place of the number of an entry: none, and none behind it.
pub const NO_ENTRY: u64 = 0xffff;

/// In a token: somebody works on the entry.
pub const BUSY: u64 = 1;

/// For so long, in jiffies, an entry stays its socket's after the end.
const LINGER: u64 = 16;

/// For so long, in jiffies, an entry's socket must look like another one before it counts as gone.
const PATIENCE: u32 = 256;

crate::wire! {
    /// A place. Of two cache lines, so that sockets of different CPUs do not share one.
    pub struct Entry: 128 {
        /// The socket's key, and [`BUSY`]; 0 if the entry was never taken.
        pub token: u64,
        /// The socket's state.
        pub state: SocketState,
    }

    /// The entries that a key may be in.
    pub struct Set: 512 {
        /// In no order.
        pub entries: [Entry; WAYS],
    }
}

const _: () = assert!(SETS * WAYS < NO_ENTRY as usize);

/// The arguments that ask for these entries to be visited, at most [`BATCH`].
pub fn batch(entries: &[u16]) -> [u64; ARGUMENTS] {
    let mut entries = entries.iter().map(|entry| u64::from(*entry));
    let mut part = |word: u64, at: u32| word | entries.next().unwrap_or(NO_ENTRY) << (16 * at);
    core::array::from_fn(|_| (0..4).fold(0, &mut part))
}

/// The set of a key.
#[inline(always)]
pub const fn set_of(key: u64) -> u32 {
    // 2^64 over the golden ratio carries every bit upwards. Sockets lie 64 bytes apart.
    (((key >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> (64 - SET_BITS)) as u32
}

/// Whether an entry with this token is that of a key.
#[inline(always)]
pub const fn is_of(token: u64, key: u64) -> bool {
    (token ^ key) & !BUSY == 0
}

/// Whether an entry may be taken for another socket; `ended` is when its socket ended.
#[inline(always)]
pub const fn is_free(token: u64, stage: u8, ended: u64, now: u64) -> bool {
    token == 0 || (token & BUSY == 0 && stage == STAGE_CLOSED && now.wrapping_sub(ended) >= LINGER)
}

/// Both ports of a socket, as a state keeps them.
#[inline(always)]
pub const fn ports(remote: u16, local: u16) -> u32 {
    (remote as u32) << 16 | local as u32
}

/// What is noted of an entry whose socket looks like another one: since when, and never 0.
#[inline(always)]
pub const fn suspect(now: u64) -> u32 {
    now as u32 | 1
}

/// Whether a suspicion is so old that the socket is gone, and its end was not seen.
#[inline(always)]
pub const fn is_gone(suspect: u32, now: u64) -> bool {
    suspect != 0 && (now as u32).wrapping_sub(suspect) as i32 > PATIENCE as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::STAGE_OPEN;

    #[test]
    fn an_entry_is_free_when_its_socket_has_ended_for_a_while() {
        let check = |token, stage, ended, now, expected| {
            assert_eq!(
                is_free(token, stage, ended, now),
                expected,
                "{token} {stage} {ended} {now}"
            );
        };
        check(0, 0, 0, 5, true);
        check(64, STAGE_OPEN, 0, 1000, false);
        check(64, STAGE_CLOSED, 1000, 1000, false);
        check(64, STAGE_CLOSED, 1000, 1000 + LINGER, true);
        check(64 | BUSY, STAGE_CLOSED, 1000, 1000 + LINGER, false);
    }

    #[test]
    fn a_batch_ends_where_there_are_no_more_entries() {
        assert_eq!(batch(&[]), [u64::MAX; ARGUMENTS]);
        assert_eq!(batch(&[7])[0], 0xffff_ffff_ffff_0007);
        let five = batch(&[1, 2, 3, 4, 5]);
        assert_eq!(five[..3], [0x0004_0003_0002_0001, 0xffff_ffff_ffff_0005, u64::MAX]);
    }

    #[test]
    fn a_token_is_found_while_somebody_works_on_its_entry() {
        assert!(is_of(4096, 4096) && is_of(4096 | BUSY, 4096));
        assert!(!is_of(0, 4096) && !is_of(4160, 4096));
    }

    #[test]
    fn a_socket_is_gone_when_it_has_looked_like_another_for_long() {
        let since = suspect(7_000);
        assert!(!is_gone(0, 100_000));
        assert!(!is_gone(since, 7_000) && !is_gone(since, 7_000 + u64::from(PATIENCE)));
        assert!(is_gone(since, 7_002 + u64::from(PATIENCE)));
        let before_wrap = suspect(u64::from(u32::MAX) - 9);
        assert!(!is_gone(before_wrap, 1 << 32) && is_gone(before_wrap, (1 << 32) + 600));
    }

    #[test]
    fn two_and_a_half_thousand_sockets_find_room() {
        // As the kernel's caches give them: slabs of a few sockets of 2368 bytes, scattered.
        let mut taken = [0u8; SETS];
        let mut spilled = 0;
        for slab in 0..192u64 {
            let at = 0xffff_8881_0000_0000
                + slab.wrapping_mul(0x1_3573_9000) % 0x4_0000_0000 / 32768 * 32768;
            for number in 0..13 {
                let set = &mut taken[set_of(at + number * 2368) as usize];
                if usize::from(*set) == WAYS { spilled += 1 } else { *set += 1 }
            }
        }
        assert!(spilled < 25, "{spilled} of 2 496 found no room");
    }
}
