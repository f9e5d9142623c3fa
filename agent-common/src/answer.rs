//! Answers of DNS servers, as the kernel half hands them over: the message as it arrived, for user
//! space to read names and addresses from and then to forget. Only answers of servers that the
//! socket has asked: the server that it is connected to, or one of [`Questions`].

use crate::address::Address;
use crate::lookup::Lookups;

/// The port that DNS servers answer from (RFC 1035, 4.2.1).
pub const DNS_PORT: u16 = 53;

/// Bytes of a message that are handed over at most: what resolvers advertise that want no
/// fragments (DNS flag day 2020).
pub const MAX_MESSAGE: usize = 1232;

/// Messages are counted against budgets; a network namespace's is the one of its inode number
/// modulo this, and all that a user has made have one. Who is flooded takes nothing from (nearly all
/// of) the others.
pub const BUDGETS: u32 = 64;

/// Bytes before the message: the UDP header.
pub const UDP_HEADER: usize = 8;
/// Bytes of a message's header.
pub const DNS_HEADER: usize = 12;

/// Servers that one socket may ask at a time: resolvers ask three.
pub const ASKED: usize = 4;
/// How long an answer is waited for. Resolvers give up after five seconds.
pub const ANSWER_WITHIN_US: u64 = 10_000_000;

/// How many answers queued at one socket before any was read are kept apart.
pub const MAX_BATCH: u32 = 8;

crate::wire! {
    /// Front of a record; the message follows.
    pub struct AnswerHeader: 32 {
        /// CLOCK_MONOTONIC nanoseconds.
        pub time_ns: u64,
        /// Whose the network namespace is: [`crate::share::Tenant::origin`].
        pub origin: u64,
        /// Inode number of the network namespace of who asked.
        pub netns: u32,
        /// How long the message is.
        pub length: u32,
        /// How much of it follows.
        pub copied: u32,
        /// Always zero.
        pub zero: u32,
    }

    /// Beginning of a datagram: UDP header and header of a message, big-endian.
    pub struct Front: 20 {
        /// Source, destination.
        pub ports: u32,
        /// Of the datagram, 16 bits each.
        pub length_and_checksum: u32,
        /// 16 bits each.
        pub id_and_flags: u32,
        /// How many, 16 bits each.
        pub questions_and_answers: u32,
        /// How many other records.
        pub others: u32,
    }

    /// Which DNS servers a program has asked from a socket that is not connected, and the lookups of
    /// any socket; lives in its storage and dies with it.
    pub struct Questions: 504 {
        /// When each was asked last, CLOCK_MONOTONIC microseconds; 0 = never.
        pub asked_us: [u64; ASKED],
        /// Their addresses.
        pub servers: [[u32; 4]; ASKED],
        /// Lookups that are open.
        pub lookups: Lookups,
    }

    /// What was last handed over on a CPU, so that several answers that were queued at once are
    /// each handed over once.
    pub struct LastAnswer: 32 {
        /// The newest packet in the queue then.
        pub newest: u64,
        /// Its beginning.
        pub front: Front,
        /// How many packets before the newest have been handed over since.
        pub depth: u32,
    }

    /// Room to make a record in: too large for the stack.
    pub struct AnswerRoom: 1296 {
        /// What came before.
        pub last: LastAnswer,
        /// The record's front.
        pub header: AnswerHeader,
        /// The message.
        pub message: [u8; MAX_MESSAGE],
    }
}

impl Questions {
    /// Notes that a server is asked: where it was noted before, else over the one asked longest ago.
    /// Without a loop: the kernel's verifier wants offsets that are constant.
    #[inline(always)]
    pub fn ask(&mut self, server: Address, now_us: u64) {
        let Self { asked_us: [a, b, c, d], servers: [first, second, third, fourth], .. } = self;
        let is = |known: &Address| is_same(known, &server);
        let (place, time) = if is(first) {
            (first, a)
        } else if is(second) {
            (second, b)
        } else if is(third) {
            (third, c)
        } else if is(fourth) {
            (fourth, d)
        } else if *a <= *b && *a <= *c && *a <= *d {
            (first, a)
        } else if *b <= *c && *b <= *d {
            (second, b)
        } else if *c <= *d {
            (third, c)
        } else {
            (fourth, d)
        };
        (*place, *time) = (server, now_us);
    }

    /// Whether a server was asked and may still answer.
    #[inline(always)]
    pub fn awaits(&self, server: &Address, now_us: u64) -> bool {
        let Self { asked_us: [a, b, c, d], servers: [first, second, third, fourth], .. } = self;
        let is = |known: &Address, asked_us: u64| {
            is_same(known, server) && now_us.wrapping_sub(asked_us) < ANSWER_WITHIN_US
        };
        is(first, *a) || is(second, *b) || is(third, *c) || is(fourth, *d)
    }
}

/// Whether two addresses are the same, word by word: a comparison of arrays becomes a call.
#[inline(always)]
pub const fn is_same(one: &Address, other: &Address) -> bool {
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
}

impl Front {
    /// The port that the datagram came from.
    #[inline(always)]
    pub fn source_port(self) -> u16 {
        (u32::from_be(self.ports) >> 16) as u16
    }

    /// How long the message is.
    #[inline(always)]
    pub fn message_length(self) -> u32 {
        (u32::from_be(self.length_and_checksum) >> 16).saturating_sub(UDP_HEADER as u32)
    }

    /// Whether it is an answer that may hold addresses: to one standard question, without error,
    /// with records (RFC 1035, 4.1.1).
    #[inline(always)]
    pub fn may_tell(self) -> bool {
        const IS_ANSWER: u32 = 0x8000;
        const OPCODE: u32 = 0x7800;
        const RCODE: u32 = 0x000f;
        let flags = u32::from_be(self.id_and_flags);
        let counts = u32::from_be(self.questions_and_answers);
        flags & (IS_ANSWER | OPCODE | RCODE) == IS_ANSWER
            && counts >> 16 == 1
            && counts & 0xffff != 0
            && self.message_length() > DNS_HEADER as u32
    }

    /// Whether both are the same. Not derived: that becomes a call that compares byte by byte, with
    /// a length that the kernel's verifier does not know.
    #[inline(always)]
    pub fn is_same(self, other: Self) -> bool {
        let Self { ports, length_and_checksum, id_and_flags, questions_and_answers, others } = self;
        (ports ^ other.ports)
            | (length_and_checksum ^ other.length_and_checksum)
            | (id_and_flags ^ other.id_and_flags)
            | (questions_and_answers ^ other.questions_and_answers)
            | (others ^ other.others)
            == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire as _;

    fn front(flags: u32, questions: u32, answers: u32, length: u32) -> Front {
        Front {
            ports: (u32::from(DNS_PORT) << 16 | 0x9c40).to_be(),
            length_and_checksum: (length << 16 | 0xabcd).to_be(),
            id_and_flags: (0x1234 << 16 | flags).to_be(),
            questions_and_answers: (questions << 16 | answers).to_be(),
            others: 1,
        }
    }

    #[test]
    fn only_a_server_that_was_asked_lately_is_awaited() {
        let server = |number: u32| [0, 0, 0xffff_0000, number];
        let second = 1_000_000;
        let mut questions = Questions::zeroed();
        assert!(!questions.awaits(&server(1), 100 * second));
        for number in 1..=4 {
            questions.ask(server(number), (100 + u64::from(number)) * second);
        }
        assert!((1..=4).all(|number| questions.awaits(&server(number), 105 * second)));
        assert!(!questions.awaits(&server(5), 105 * second));
        assert!(!questions.awaits(&server(1), 111 * second), "too late");
        // Asked again, it keeps its place; a fifth takes that of the one asked longest ago.
        questions.ask(server(1), 110 * second);
        questions.ask(server(5), 111 * second);
        let awaited = [1, 2, 3, 4, 5].map(|number| questions.awaits(&server(number), 111 * second));
        assert_eq!(awaited, [true, false, true, true, true]);
        assert!(questions.awaits(&server(1), 119 * second));
    }

    #[test]
    fn only_answers_with_records_may_tell_something() {
        let check = |flags, questions, answers, length, expected| {
            let front = front(flags, questions, answers, length);
            assert_eq!(front.may_tell(), expected, "{front:?}");
            assert_eq!(front.source_port(), 53);
            assert!(front.is_same(front) && !front.is_same(Front { others: 2, ..front }));
        };
        check(0x8180, 1, 1, 60, true);
        check(0x8500, 1, 300, 60, true);
        check(0x0100, 1, 0, 60, false); // a question
        check(0x8183, 1, 1, 60, false); // no such name
        check(0xa980, 1, 1, 60, false); // an update
        check(0x8180, 1, 0, 60, false); // nothing in it
        check(0x8180, 2, 1, 60, false);
        check(0x8180, 1, 1, 20, false); // nothing but a header
        check(0x8180, 1, 1, 3, false); // not even that
    }
}
