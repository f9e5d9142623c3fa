//! Who is at the other end of a connection between two programs of this host.
//!
//! Many clients may share one address, so the address names none of them. The client's side is
//! established first; it leaves a note, and the server's side reads it, mostly a few microseconds
//! later. Where the last segment of the handshake is late or lost, that takes milliseconds or
//! seconds, in which thousands of other connections may begin. So a note lies in a set of four that
//! follows from both ends of the connection, and takes the place of the oldest there: it is lost only
//! if four later ones fall into its set before it is read.
//!
//! A note is two numbers, each written and read at once; a mixture of two notes is for no
//! connection, so it needs no lock. It is never removed, and it is believed only for a short time: a
//! connection from another host, or whose client's address was translated, may look like one that
//! was here long ago.
//!
//! Addresses and ports are no secret, and in a namespace of one's own one can have any of them. So a
//! note also has the first sequence number of the client, which no program can read and only its
//! SYN has carried to the server: so nobody leaves a note for the connection of somebody else, or
//! takes the note of somebody else for the own connection, but by guessing 32 bits.
//!
//! Layout of the word: which connection (32 bits), when (16), row of the client's owner (16).

use crate::address::{Address, is_same_host};

/// Sets of notes.
pub const SETS: usize = 1 << 14;
/// Notes of a set.
pub const WAYS: usize = 4;

/// The time is written in steps of 2^16 microseconds.
const STEP_BITS: u32 = 16;
/// A handshake that takes longer than so many steps (four seconds) leaves no name.
const FRESH_STEPS: u16 = 64;

crate::wire! {
    /// What a client has written.
    pub struct Note: 16 {
        /// Which connection, when, whose.
        pub word: u64,
        /// The client's first sequence number.
        pub sequence: u32,
        /// More of which connection.
        pub rest: u32,
    }

    /// The notes of a set.
    pub struct Notes: 64 {
        /// In no order.
        pub ways: [Note; WAYS],
    }
}

/// A connection, as both of its ends see it.
#[derive(Clone, Copy)]
pub struct Handshake {
    /// The client's address.
    pub client: Address,
    /// The client's port.
    pub client_port: u16,
    /// The server's address.
    pub server: Address,
    /// The server's port.
    pub port: u16,
    /// Network namespace of the client: it separates what never leaves it.
    pub netns: u32,
}

/// Stands for a connection: never 0 in the upper half, which an empty note has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

// === impl Handshake ===

impl Handshake {
    /// What the connection's note is found by.
    #[inline(always)]
    pub const fn digest(&self) -> Digest {
        let Self { client: c, client_port, server: s, port, netns } = self;
        // Everything else has the same addresses in no two namespaces that can reach each other.
        let netns = if is_same_host(s, c) || is_same_host(c, s) { *netns } else { 0 };
        let mut hash = (netns as u64) << 32 | (*client_port as u64) << 16 | *port as u64;
        hash = mix(hash, c[0], c[1]);
        hash = mix(hash, c[2], c[3]);
        hash = mix(hash, s[0], s[1]);
        hash = mix(hash, s[2], s[3]);
        Digest(hash | 1 << 32)
    }
}

// === impl Digest ===

impl Digest {
    /// The set in which the connection's note lies.
    #[inline(always)]
    pub const fn set(self) -> u32 {
        (self.0 >> 33) as u32 & (SETS - 1) as u32
    }

    /// The note of its client at `now_us` (CLOCK_MONOTONIC), with the client's first sequence
    /// number; `None` if the row of its owner is too high to be written down.
    #[inline(always)]
    pub const fn note(self, sequence: u32, now_us: u64, owner: u32) -> Option<Note> {
        if owner > 0xffff {
            return None;
        }
        let word = self.upper() | (step(now_us) as u64) << 16 | owner as u64;
        Some(Note { word, sequence, rest: self.0 as u32 })
    }

    /// The owner in a note, if it is about this connection, which began with this sequence number,
    /// and new.
    #[inline(always)]
    pub const fn owner(self, note: Note, sequence: u32, now_us: u64) -> Option<u32> {
        if self.difference(note, sequence) != 0 {
            return None;
        }
        self.fresh_owner(note.word, now_us)
    }

    /// 0 if a note is about this connection, which began with this sequence number.
    #[inline(always)]
    pub const fn difference(self, note: Note, sequence: u32) -> u64 {
        (note.word ^ self.0) & UPPER | (note.sequence ^ sequence | note.rest ^ self.0 as u32) as u64
    }

    /// The owner in the word of a note about this connection, if it is new. An empty word, 0, has none.
    #[inline(always)]
    pub const fn fresh_owner(self, word: u64, now_us: u64) -> Option<u32> {
        let age = step(now_us).wrapping_sub((word >> 16) as u16);
        if word == 0 || age > FRESH_STEPS {
            return None;
        }
        Some((word & 0xffff) as u32)
    }

    /// The owner in a note, if it is about this connection, however old it is. For one that is known
    /// to exist: no other connection has had its client's port since.
    #[inline(always)]
    pub const fn owner_at_any_age(self, note: Note) -> Option<u32> {
        if note.word & UPPER != self.upper() || note.rest != self.0 as u32 {
            return None;
        }
        Some((note.word & 0xffff) as u32)
    }

    #[inline(always)]
    const fn upper(self) -> u64 {
        self.0 & UPPER
    }
}

// === impl Note ===

impl Note {
    /// How readily a note of this word, at `way` of its set, gives way to this one: an earlier one of
    /// the same connection first, else the oldest; among equally old ones not always the same. No
    /// two of a set are equal; see [`Self::chosen`].
    #[inline(always)]
    pub const fn preference(self, word: u64, way: u32) -> u32 {
        let order = (way ^ self.sequence) & 3;
        if (word ^ self.word) & UPPER == 0 {
            return u32::MAX << 2 | order;
        }
        let age = ((self.word >> 16) as u16).wrapping_sub((word >> 16) as u16);
        (age as u32) << 2 | order
    }

    /// The way with this preference.
    #[inline(always)]
    pub const fn chosen(self, preference: u32) -> usize {
        ((preference ^ self.sequence) & 3) as usize
    }
}

/// The bits of the word that say which connection.
const UPPER: u64 = 0xffff_ffff << 32;

const fn step(now_us: u64) -> u16 {
    (now_us >> STEP_BITS) as u16
}

/// Multiplication by an odd constant (2^64 over the golden ratio) carries every bit upwards, the
/// rotation brings it down again.
#[inline(always)]
const fn mix(hash: u64, high: u32, low: u32) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    (hash.rotate_left(29) ^ ((high as u64) << 32 | low as u64)).wrapping_mul(ODD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{from_octets, from_v4};

    const HOST: u32 = 4_026_531_840;
    const NOW: u64 = 77_000_000;
    const FIRST: u32 = 0xdead_beef;
    const CLIENT_PORT: u16 = 40_000;

    fn v4(octets: [u8; 4]) -> Address {
        from_v4(u32::from_ne_bytes(octets))
    }

    fn between(client: Address, server: Address, port: u16, netns: u32) -> Handshake {
        Handshake { client, client_port: CLIENT_PORT, server, port, netns }
    }

    fn note(handshake: &Handshake, sequence: u32, now_us: u64, owner: u32) -> Option<Note> {
        handshake.digest().note(sequence, now_us, owner)
    }

    fn owner(note: Note, handshake: &Handshake, sequence: u32, now_us: u64) -> Option<u32> {
        handshake.digest().owner(note, sequence, now_us)
    }

    /// As the kernel half leaves a note.
    fn leave(set: &mut Notes, note: Note) {
        let preferences = (0..).zip(set.ways).map(|(way, known)| note.preference(known.word, way));
        set.ways[note.chosen(preferences.max().unwrap())] = note;
    }

    #[test]
    fn a_note_is_for_one_connection_only() {
        let (client, server) = (v4([10, 0, 0, 1]), v4([10, 0, 0, 2]));
        let connection = between(client, server, 8080, HOST);
        let written = note(&connection, FIRST, NOW, 77).unwrap();
        let check = |asked: Handshake, expected| {
            assert_eq!(owner(written, &asked, FIRST, NOW), expected);
        };
        // The server is in a namespace of its own.
        check(between(client, server, 8080, HOST + 1), Some(77));
        check(between(server, client, 8080, HOST), None);
        check(between(client, server, 8081, HOST), None);
        check(between(v4([10, 0, 0, 3]), server, 8080, HOST), None);
        check(between(client, v4([10, 0, 1, 2]), 8080, HOST), None);
        check(Handshake { client_port: CLIENT_PORT + 1, ..connection }, None);
    }

    #[test]
    fn what_stays_in_a_namespace_is_of_that_namespace() {
        let mut one = [0; 16];
        one[15] = 1;
        for loopback in [v4([127, 0, 0, 1]), from_octets(one), v4([10, 0, 0, 1])] {
            let written = note(&between(loopback, loopback, 80, HOST), FIRST, NOW, 7).unwrap();
            assert_eq!(owner(written, &between(loopback, loopback, 80, HOST), FIRST, NOW), Some(7));
            assert_eq!(
                owner(written, &between(loopback, loopback, 80, HOST + 1), FIRST, NOW),
                None
            );
        }
    }

    #[test]
    fn a_note_is_for_the_connection_that_began_with_its_sequence_number() {
        let asked = between(v4([10, 0, 0, 1]), v4([10, 0, 0, 2]), 80, HOST);
        let written = note(&asked, FIRST, NOW, 7).unwrap();
        assert_eq!(owner(written, &asked, FIRST, NOW), Some(7));
        assert_eq!(owner(written, &asked, FIRST + 1, NOW), None);
    }

    #[test]
    fn an_old_note_is_not_believed() {
        let asked = between(v4([10, 0, 0, 1]), v4([10, 0, 0, 2]), 80, HOST);
        let written = note(&asked, FIRST, NOW, 7).unwrap();
        let after = |us: u64| owner(written, &asked, FIRST, NOW + us);
        assert_eq!(after(4_000_000), Some(7));
        assert_eq!(after(5_000_000), None);
        assert_eq!(after(3_600_000_000), None);
        assert_eq!(asked.digest().owner_at_any_age(written), Some(7));
        assert_eq!(Handshake { port: 81, ..asked }.digest().owner_at_any_age(written), None);
    }

    #[test]
    fn an_empty_row_and_a_high_owner_say_nothing() {
        let asked = between(v4([10, 0, 0, 1]), v4([10, 0, 0, 2]), 80, HOST);
        assert_eq!(owner(Note::default(), &asked, 0, 0), None);
        assert!(note(&asked, FIRST, NOW, 0x1_0000).is_none());
        let highest = note(&asked, FIRST, NOW, 0xffff).unwrap();
        assert_eq!(owner(highest, &asked, FIRST, NOW), Some(0xffff));
    }

    #[test]
    fn of_a_set_the_oldest_gives_way_and_an_earlier_note_of_the_same_connection_first() {
        // When they fall into one set does not depend on their addresses.
        let asked = |port| between(v4([10, 0, 0, 1]), v4([10, 0, 0, 2]), port, HOST);
        let written = |port: u16, at_us| note(&asked(port), u32::from(port) * 7, at_us, 7).unwrap();
        let finds = |set: &Notes, port| {
            set.ways.iter().any(|note| asked(port).digest().owner_at_any_age(*note).is_some())
        };
        let mut set = Notes::default();
        for port in 1..=4 {
            leave(&mut set, written(port, NOW + u64::from(port) * 100_000));
        }
        assert!((1..=4).all(|port| finds(&set, port)), "{set:?}");
        leave(&mut set, written(2, NOW + 500_000));
        assert!((1..=4).all(|port| finds(&set, port)), "the same connection again: {set:?}");
        for (port, gone) in [(5, 1), (6, 3), (7, 4), (8, 2), (9, 5)] {
            leave(&mut set, written(port, NOW + 500_000 + u64::from(port) * 100_000));
            assert!(finds(&set, port) && !finds(&set, gone), "{port} instead of {gone}: {set:?}");
        }
    }

    #[test]
    fn a_note_outlives_thousands_of_others_until_it_is_read() {
        // A second, in which other clients of this host begin 4000 connections.
        let late = between(v4([10, 0, 0, 1]), v4([10, 0, 0, 2]), 80, HOST);
        let (mut lost, mut lost_by_port) = (0, 0);
        for late_port in 32_768..33_768 {
            let late = Handshake { client_port: late_port, ..late };
            let mut set = Notes::default();
            leave(&mut set, note(&late, FIRST, NOW, 7).unwrap());
            for number in 0..4000 {
                // As the kernel spreads ports.
                let client_port = 32_768 + (number * 7919 + u32::from(late_port) * 31) % 28_232;
                let other = Handshake {
                    client: v4([10, 0, 9, 1]),
                    client_port: client_port as u16,
                    ..late
                };
                lost_by_port += u32::from(other.client_port == late_port);
                if other.digest().set() == late.digest().set() {
                    let at_us = NOW + u64::from(number) * 250;
                    leave(
                        &mut set,
                        note(&other, number.wrapping_mul(2_654_435_761), at_us, 8).unwrap(),
                    );
                }
            }
            let found = set.ways.iter().any(|one| late.digest().owner_at_any_age(*one) == Some(7));
            lost += u32::from(!found);
        }
        assert!(lost <= 2, "{lost} of 1000 were lost");
        assert!(lost_by_port > 100, "one row for each port would lose {lost_by_port}");
    }

    #[test]
    fn connections_that_differ_a_little_have_other_digests_and_sets() {
        let hub = v4([10, 0, 0, 1]);
        let mut digests = [[[0; 2]; 5]; 200];
        let mut sets = [0_u8; SETS];
        for (host, by_port) in (2..).zip(&mut digests) {
            for (port, digests) in [80, 81, 443, 5432, 8080].into_iter().zip(by_port) {
                let both = [
                    between(hub, v4([10, 0, 0, host]), port, HOST).digest(),
                    between(v4([10, 0, host, 1]), hub, port, HOST).digest(),
                ];
                for digest in both {
                    sets[digest.set() as usize] += 1;
                }
                *digests = both.map(|digest| digest.0);
            }
        }
        let all = digests.as_flattened_mut().as_flattened_mut();
        all.sort_unstable();
        assert_eq!(all.windows(2).filter(|pair| pair[0] == pair[1]).count(), 0);
        // Two thousand in 16 384 sets.
        assert!(sets.iter().all(|count| *count <= 4), "{:?}", sets.iter().max());
    }
}
