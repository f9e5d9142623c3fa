//! Who is at the other end of a connection between two programs of this host.
//!
//! Many clients may share one address, so the address names none of them. The client's side is
//! established first; it leaves a note in the row of its port, and the server's side reads it a few
//! microseconds later. A note is a word and a number, each written and read at once; a mixture of
//! two notes is for no connection, so it needs no lock. It is
//! never removed, because every connection writes its own before it is read, and it is believed
//! only for a short time: a connection from another host, or whose client's address was translated,
//! may look like one that was here long ago. Two clients may use the same row in the same
//! microseconds: the server then finds a note that is not for it, and knows only an address.
//!
//! Addresses and ports are no secret, and in a namespace of one's own one can have any of them. So a
//! note also has the first sequence number of the client, which no program can read and only its
//! SYN has carried to the server: so nobody leaves a note for the connection of somebody else, or
//! takes the note of somebody else for the own connection, but by guessing 32 bits.
//!
//! Layout of the word: which connection (32 bits), when (16), row of the client's owner (16).

use crate::address::{Address, is_same_host};

/// One row for each port a client can have.
pub const ROWS: usize = 1 << 16;

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
        /// Always zero.
        pub zero: u32,
    }
}

/// A connection, as both of its ends see it.
#[derive(Clone, Copy)]
pub struct Handshake {
    /// The client's address.
    pub client: Address,
    /// The server's address.
    pub server: Address,
    /// The server's port.
    pub port: u16,
    /// Network namespace of the client: it separates what never leaves it.
    pub netns: u32,
}

/// The note of a client at `now_us` (CLOCK_MONOTONIC); `None` if the row of its owner is too high
/// to be written down.
#[inline(always)]
pub const fn note(handshake: &Handshake, sequence: u32, now_us: u64, owner: u32) -> Option<Note> {
    if owner > 0xffff {
        return None;
    }
    let word = (digest(handshake) as u64) << 32 | (step(now_us) as u64) << 16 | owner as u64;
    Some(Note { word, sequence, zero: 0 })
}

/// The owner in a note, if it is about this connection, which began with this sequence number, and
/// new.
#[inline(always)]
pub const fn owner(note: Note, handshake: &Handshake, sequence: u32, now_us: u64) -> Option<u32> {
    let age = step(now_us).wrapping_sub((note.word >> 16) as u16);
    if age > FRESH_STEPS || note.sequence != sequence {
        return None;
    }
    owner_at_any_age(note, handshake)
}

/// The owner in a note, if it is about a connection between these ends, however old it is. For one
/// that is known to exist: no other connection has had its client's port since.
#[inline(always)]
pub const fn owner_at_any_age(note: Note, handshake: &Handshake) -> Option<u32> {
    if (note.word >> 32) as u32 != digest(handshake) {
        return None;
    }
    Some((note.word & 0xffff) as u32)
}

const fn step(now_us: u64) -> u16 {
    (now_us >> STEP_BITS) as u16
}

/// Never 0, which an empty row has.
#[inline(always)]
const fn digest(handshake: &Handshake) -> u32 {
    let Handshake { client: c, server: s, port, netns } = handshake;
    // Everything else has the same addresses in no two namespaces that can reach each other.
    let netns = if is_same_host(s, c) || is_same_host(c, s) { *netns } else { 0 };
    let mut hash = (netns as u64) << 16 | *port as u64;
    hash = mix(hash, c[0], c[1]);
    hash = mix(hash, c[2], c[3]);
    hash = mix(hash, s[0], s[1]);
    hash = mix(hash, s[2], s[3]);
    (hash >> 32) as u32 | 1
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

    fn v4(octets: [u8; 4]) -> Address {
        from_v4(u32::from_ne_bytes(octets))
    }

    fn between(client: Address, server: Address, port: u16, netns: u32) -> Handshake {
        Handshake { client, server, port, netns }
    }

    #[test]
    fn a_note_is_for_one_connection_only() {
        let (client, server) = (v4([10, 0, 0, 1]), v4([10, 0, 0, 2]));
        let written = note(&between(client, server, 8080, HOST), FIRST, NOW, 77).unwrap();
        let check = |asked: Handshake, expected| {
            assert_eq!(owner(written, &asked, FIRST, NOW), expected);
        };
        // The server is in a namespace of its own.
        check(between(client, server, 8080, HOST + 1), Some(77));
        check(between(server, client, 8080, HOST), None);
        check(between(client, server, 8081, HOST), None);
        check(between(v4([10, 0, 0, 3]), server, 8080, HOST), None);
        check(between(client, v4([10, 0, 1, 2]), 8080, HOST), None);
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
        assert_eq!(owner_at_any_age(written, &asked), Some(7));
        assert_eq!(owner_at_any_age(written, &Handshake { port: 81, ..asked }), None);
    }

    #[test]
    fn an_empty_row_and_a_high_owner_say_nothing() {
        let asked = between(v4([10, 0, 0, 1]), v4([10, 0, 0, 2]), 80, HOST);
        assert_eq!(owner(Note { word: 0, sequence: 0, zero: 0 }, &asked, 0, 0), None);
        assert!(note(&asked, FIRST, NOW, 0x1_0000).is_none());
        let highest = note(&asked, FIRST, NOW, 0xffff).unwrap();
        assert_eq!(owner(highest, &asked, FIRST, NOW), Some(0xffff));
    }

    #[test]
    fn connections_that_differ_a_little_have_other_digests() {
        let (hub, mut digests) = (v4([10, 0, 0, 1]), [[[0; 2]; 5]; 200]);
        for (host, by_port) in (2..).zip(&mut digests) {
            for (port, digests) in [80, 81, 443, 5432, 8080].into_iter().zip(by_port) {
                *digests = [
                    digest(&between(hub, v4([10, 0, 0, host]), port, HOST)),
                    digest(&between(v4([10, 0, host, 1]), hub, port, HOST)),
                ];
            }
        }
        let all = digests.as_flattened_mut().as_flattened_mut();
        all.sort_unstable();
        // Of two thousand of 31 bits hardly two are equal by chance.
        assert!(all.windows(2).filter(|pair| pair[0] == pair[1]).count() <= 1);
    }
}
