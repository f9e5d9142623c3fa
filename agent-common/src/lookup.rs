//! DNS lookups over UDP: queries that programs send, and how each ends.
//!
//! A *lookup* is one query datagram of a program to port 53. It is noted in the storage of its
//! socket ([`Open`]) when its send returns, and ends once: with the response of the server that was
//! asked, known by its number; as [`TIMEOUT`]; or lost, for a reason that the ledger has. A query that
//! is sent again is another lookup, and the one before has timed out.
//!
//! Nobody waits in the kernel, so a timeout is found when the socket is next used: at its next query
//! ([`TIMEOUT_US`] after it, or at once if that is the same one again), or when the socket is closed
//! ([`GIVEN_UP_US`] after it). A program that closes its socket sooner may have its answer from
//! elsewhere: resolvers ask several servers from one socket and take the first response.
//!
//! A response can come before the send has returned: that of a server on the same host, if its
//! query made that run at once. It is kept until then ([`EARLY`]).

use crate::answer::Front;
use crate::histogram::Histogram;

/// Types of questions, label values; see [`question_type`].
pub const TYPE_NAMES: [&str; TYPES] = ["A", "AAAA", "PTR", "SRV", "TXT", "MX", "HTTPS", "other"];
/// How many there are.
pub const TYPES: usize = 8;
/// Any type that has no name here.
pub const OTHER_TYPE: u32 = 7;

/// How lookups end, label values: a response by its code, or none.
pub const RESULT_NAMES: [&str; RESULTS] =
    ["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "other", "timeout"];
/// How many there are.
pub const RESULTS: usize = 6;
const NOERROR: u32 = 0;
/// There is no such name.
pub const NXDOMAIN: u32 = 1;
/// The server could not answer.
pub const SERVFAIL: u32 = 2;
/// The server would not answer.
pub const REFUSED: u32 = 3;
/// The code of a response that has no name here.
const OTHER_CODE: u32 = 4;
/// No response.
pub const TIMEOUT: u32 = 5;

/// How many numbers are counted: of each type, by result.
pub const LOOKUPS: usize = TYPES * RESULTS;

/// Which number a lookup adds to.
#[inline(always)]
pub const fn number(question_type: u32, result: u32) -> u32 {
    question_type * RESULTS as u32 + result
}

/// How many lookups ended like this, whatever their type; `results` has the numbers in the place of its
/// buckets.
pub fn ended(results: &Histogram, result: u32) -> u64 {
    results.buckets.iter().take(LOOKUPS).skip(result as usize).step_by(RESULTS).sum()
}

/// The type of a question, a number below [`TYPES`], by its value (RFC 1035, 3.2.2; RFC 3596, 2782,
/// 9460).
#[inline(always)]
pub const fn question_type(value: u16) -> u32 {
    // No table, which would be a map of its own.
    if value == 1 {
        0
    } else if value == 28 {
        1
    } else if value == 12 {
        2
    } else if value == 33 {
        3
    } else if value == 16 {
        4
    } else if value == 15 {
        5
    } else if value == 65 {
        6
    } else {
        OTHER_TYPE
    }
}

/// Lookups that one socket may have open at a time; more are lost.
pub const OPEN: usize = 8;
/// How long a response is waited for: as long as the C library does.
pub const TIMEOUT_US: u64 = 5_000_000;
/// How long a program that closes its socket must have waited for the response to be missing.
pub const GIVEN_UP_US: u64 = 1_000_000;
/// For how long the slot of an edge is worth comparing: rows of edges and owners that went and came again
/// since could have the same numbers.
pub const SLOT_WITHIN_US: u64 = 60_000_000;
/// How long a response that came before its send had returned is kept.
pub const EARLY_WITHIN_US: u64 = 1_000_000;

crate::wire! {
    /// A lookup that is open, or a response that came too early.
    pub struct Open: 40 {
        /// [`IS_OPEN`], [`EARLY`] or [`BUSY`], with its number and more; 0 = nothing. What follows is
        /// for who has made it [`BUSY`], or has read the same word before and after.
        pub word: u64,
        /// When the query was sent, or the response came; CLOCK_MONOTONIC microseconds.
        pub time_us: u64,
        /// The server.
        pub server: [u32; 4],
        /// The slot of its edge.
        pub slot: u32,
        /// The row of who has asked.
        pub owner: u32,
    }

    /// The lookups of a socket; lives in its storage and dies with it.
    pub struct Lookups: 408 {
        /// Those that are open.
        pub open: [Open; OPEN],
        /// The response that came last without a query, whose send may not have returned yet.
        pub early: Open,
        /// Which thread is about to send a query to an address, 0 = none.
        pub sender: u64,
        /// Since when; CLOCK_MONOTONIC microseconds.
        pub sender_us: u64,
        /// Where to.
        pub sender_to: [u32; 4],
        /// The array of messages that a thread is sending in one system call...
        pub messages: u64,
        /// ...which thread that is (upper half), and how many of them were sent.
        pub messages_sent: u64,
    }
}

/// Somebody is reading or writing it.
pub const BUSY: u64 = 1 << 32;
/// It waits for its response.
pub const IS_OPEN: u64 = 2 << 32;
/// It is a response.
pub const EARLY: u64 = 3 << 32;
/// A response to it may have been missed.
pub const UNSURE: u64 = 1 << 20;
/// The state, and the number of the message.
const WHICH: u64 = 3 << 32 | 0xffff;
/// Where the type of the question is, or the result.
const DETAIL_SHIFT: u32 = 16;

/// The word of a lookup or a response. `detail` is the type of the question, or the result.
#[inline(always)]
pub const fn word(state: u64, id: u16, detail: u32) -> u64 {
    state | id as u64 | (detail as u64) << DETAIL_SHIFT
}

/// Whether a word is of this state and message.
#[inline(always)]
pub const fn is_of(word: u64, state: u64, id: u16) -> bool {
    word & WHICH == state | id as u64
}

/// Whether a word is of a lookup that is open.
#[inline(always)]
pub const fn is_open(word: u64) -> bool {
    word & (3 << 32) == IS_OPEN
}

/// What was given as `detail` for [`word`].
#[inline(always)]
pub const fn detail(word: u64) -> u32 {
    (word >> DETAIL_SHIFT) as u32 & 7
}

/// The header of a message that a program sends: its first three words as they are in memory.
#[derive(Clone, Copy, Debug)]
pub struct QueryHeader(pub [u32; 3]);

impl QueryHeader {
    /// The number of the message.
    #[inline(always)]
    pub const fn id(self) -> u16 {
        (u32::from_be(self.0[0]) >> 16) as u16
    }

    /// Whether it is a standard query (RFC 1035, 4.1.1), and no response, update or notification.
    #[inline(always)]
    pub const fn is_query(self) -> bool {
        const IS_RESPONSE_OR_OPCODE: u32 = 0xf800;
        u32::from_be(self.0[0]) & IS_RESPONSE_OR_OPCODE == 0
    }

    /// Whether it has one question, as all have that servers answer.
    #[inline(always)]
    pub const fn has_a_question(self) -> bool {
        u32::from_be(self.0[1]) >> 16 == 1
    }
}

impl Front {
    /// The number of the message.
    #[inline(always)]
    pub fn id(self) -> u16 {
        (u32::from_be(self.id_and_flags) >> 16) as u16
    }

    /// How a lookup ends that this datagram answers, if it is a response to a standard query.
    #[inline(always)]
    pub fn result(self) -> Option<u32> {
        const IS_RESPONSE: u32 = 0x8000;
        const OPCODE: u32 = 0x7800;
        let flags = u32::from_be(self.id_and_flags);
        if flags & (IS_RESPONSE | OPCODE) != IS_RESPONSE
            || self.message_length() < crate::answer::DNS_HEADER as u32
        {
            return None;
        }
        let code = flags & 0xf;
        Some(if code == 0 {
            NOERROR
        } else if code == 3 {
            NXDOMAIN
        } else if code == 2 {
            SERVFAIL
        } else if code == 5 {
            REFUSED
        } else {
            OTHER_CODE
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(flags: u32, length: u32) -> Front {
        Front {
            ports: 0,
            length_and_checksum: (length << 16).to_be(),
            id_and_flags: (0xbeef << 16 | flags).to_be(),
            questions_and_answers: 0,
            others: 0,
        }
    }

    #[test]
    fn a_response_ends_a_lookup_by_its_code() {
        let check = |flags, length, expected: Option<&str>| {
            let front = front(flags, length);
            assert_eq!(front.result().map(|at| RESULT_NAMES[at as usize]), expected, "{flags:x}");
            assert_eq!(front.id(), 0xbeef);
        };
        check(0x8180, 40, Some("NOERROR"));
        check(0x8183, 40, Some("NXDOMAIN"));
        check(0x8182, 40, Some("SERVFAIL"));
        check(0x8185, 40, Some("REFUSED"));
        check(0x8181, 20, Some("other")); // FORMERR, nothing but a header
        check(0x8184, 40, Some("other"));
        check(0x0100, 40, None); // a query
        check(0xa980, 40, None); // the response to an update
        check(0x8180, 19, None); // no whole header
    }

    #[test]
    fn only_standard_queries_are_lookups() {
        let check = |bytes: [u8; 12], expected: (bool, bool)| {
            let words = [0, 4, 8].map(|at| {
                u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            });
            let header = QueryHeader(words);
            assert_eq!((header.is_query(), header.has_a_question()), expected, "{bytes:x?}");
            assert_eq!(header.id(), 0x1234);
        };
        check([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1], (true, true));
        check([0x12, 0x34, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], (true, false));
        check([0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], (false, true));
        check([0x12, 0x34, 0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0], (false, true)); // an update
    }

    #[test]
    fn every_type_and_result_has_a_number_of_its_own() {
        let types = [1, 28, 12, 33, 16, 15, 65, 255];
        let names = types.map(|value| TYPE_NAMES[question_type(value) as usize]);
        assert_eq!(names, TYPE_NAMES);
        let mut numbers: Vec<_> = (0..TYPES as u32)
            .flat_map(|of| (0..RESULTS as u32).map(move |result| number(of, result)))
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..LOOKUPS as u32).collect::<Vec<_>>());
        const { assert!(LOOKUPS <= crate::histogram::BUCKETS) };
    }

    #[test]
    fn results_are_summed_over_types() {
        let mut results = Histogram::EMPTY;
        for (question, result, times) in
            [(0, TIMEOUT, 2), (1, TIMEOUT, 3), (7, TIMEOUT, 4), (1, 0, 9)]
        {
            results.buckets[number(question, result) as usize] += times;
        }
        let ended: Vec<_> = (0..RESULTS as u32).map(|result| ended(&results, result)).collect();
        assert_eq!(ended, [9, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn a_word_keeps_state_number_and_detail_apart() {
        for state in [IS_OPEN, EARLY] {
            for (id, detail_is) in [(0, 0), (0xffff, 7), (0x1234, 5)] {
                let word = word(state, id, detail_is);
                assert!(is_of(word, state, id) && is_of(word | UNSURE, state, id));
                assert!(!is_of(word, IS_OPEN ^ EARLY ^ state, id) && !is_of(word, state, id ^ 1));
                assert_eq!((is_open(word), detail(word | UNSURE)), (state == IS_OPEN, detail_is));
            }
        }
        assert!(!is_open(0) && !is_open(BUSY));
    }
}
