//! What the first bytes of a response say: which protocol a connection speaks, and how its request
//! ended. They are looked at in the kernel, where a server sends them, and nothing of them is kept
//! but a number of a closed set.
//!
//! A server's *head* is the first [`HEAD`] bytes of what a program hands over in one system call. A
//! connection is *identified* by the head of its first response, and only by something that other
//! protocols do not begin with; a program that speaks before it was asked is identified by its
//! greeting. What fits nothing stays [`OTHER`] for the rest of the connection, and so do connections
//! of TLS: their heads are not looked at any more.
//!
//! One head is looked at for each exchange ([`crate::exchange`]). So a status is that of an exchange:
//! pipelined requests have one between them, and an error that PostgreSQL, MySQL or Redis send behind
//! the beginning of a response is not seen.

mod http;
mod mysql;
mod postgresql;
mod redis;
mod tls;

#[cfg(test)]
mod tests;

/// How many bytes of a response are looked at.
pub const HEAD: usize = 24;

/// A head: its bytes in words, little-endian, zeros behind its end.
pub type Head = [u64; HEAD / 8];

/// Nothing known yet.
pub const UNDECIDED: u32 = 0;
/// The server has greeted as MySQL does; TLS may follow.
pub const GREETED: u32 = 1;
/// The server has answered in one byte whether it speaks TLS, as PostgreSQL does.
pub const ASKED: u32 = 2;
/// HTTP/1.
pub const HTTP: u32 = 3;
/// PostgreSQL.
pub const POSTGRESQL: u32 = 4;
/// MySQL or MariaDB.
pub const MYSQL: u32 = 5;
/// Redis, or what speaks its protocol.
pub const REDIS: u32 = 6;
/// HTTP/2 without TLS. Its responses are not told apart.
pub const HTTP2: u32 = 7;
/// TLS.
pub const TLS: u32 = 8;
/// Nothing that is known.
pub const OTHER: u32 = 9;

/// The protocols that a connection can be identified as, from the first of them on.
pub const FIRST_PROTOCOL: u32 = HTTP;
/// How many there are.
pub const PROTOCOLS: usize = 7;
/// Label values, in the order of the constants.
pub const PROTOCOL_NAMES: [&str; PROTOCOLS] =
    ["http", "postgresql", "mysql", "redis", "http2", "tls", "unknown"];

/// Label value: whether connections that speak a protocol of [`PROTOCOL_NAMES`] are encrypted.
pub fn security(protocol: &str) -> &'static str {
    match protocol {
        "tls" => "tls",
        "unknown" => "unknown",
        _ => "plaintext",
    }
}

/// How many connections were identified as not encrypted.
pub fn in_plaintext(responses: &[u64; RESPONSES]) -> u64 {
    let protocols = responses.iter().skip(STATUSES).zip(PROTOCOL_NAMES);
    let plain = protocols.filter(|(_, protocol)| security(protocol) == "plaintext");
    plain.fold(0, |sum, (count, _)| sum.wrapping_add(*count))
}

/// How many statuses there are, of all protocols.
pub const STATUSES: usize = 11;
/// Protocol and status, both label values.
pub const STATUS_NAMES: [(&str, &str); STATUSES] = [
    ("http", "1xx"),
    ("http", "2xx"),
    ("http", "3xx"),
    ("http", "4xx"),
    ("http", "5xx"),
    ("postgresql", "ok"),
    ("postgresql", "error"),
    ("mysql", "ok"),
    ("mysql", "error"),
    ("redis", "ok"),
    ("redis", "error"),
];

const HTTP_1XX: u32 = 0;
const POSTGRESQL_OK: u32 = 5;
const MYSQL_OK: u32 = 7;
const REDIS_OK: u32 = 9;

/// Whether a status says that the server has failed: what a caller did wrong is none of its errors.
pub const fn is_error(status: usize) -> bool {
    matches!(status, 4 | 6 | 8 | 10)
}

/// How many numbers are counted: responses by status, then connections by protocol.
pub const RESPONSES: usize = STATUSES + PROTOCOLS;

/// How many heads are accounted for by the numbers of [`RESPONSES`]: each gave a status, or showed that
/// its connection is of no protocol that has any.
pub fn looked_at(responses: &[u64; RESPONSES]) -> u64 {
    let without_status = STATUSES + (HTTP2 - FIRST_PROTOCOL) as usize;
    let counts = responses.iter().enumerate();
    let counts = counts.filter(|(at, _)| *at < STATUSES || *at >= without_status);
    counts.fold(0, |sum, (_, count)| sum.wrapping_add(*count))
}

/// In a state's word: the protocol.
pub const PROTOCOL: u64 = 0xf;
/// In a state's word: the connection was there before the agent, so what it sends may be the middle
/// of something.
pub const MET: u64 = 1 << 5;
/// In a state's word: a response was counted before its send returned, and its head is to be looked
/// at when that does.
pub const DUE: u64 = 1 << 8;

/// What a state's word says of the protocol.
#[inline(always)]
pub const fn protocol(word: u64) -> u32 {
    (word & PROTOCOL) as u32
}

/// Whether nothing more is to be learnt from the heads of a connection.
#[inline(always)]
pub const fn is_final(word: u64) -> bool {
    protocol(word) >= HTTP2
}

/// What a head said: the protocol, a status, and that it did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(pub u32);

const STATUS_SHIFT: u32 = 8;
const UNFRAMED_BIT: u32 = 1 << 16;

impl Outcome {
    const fn protocol_only(protocol: u32) -> Self {
        Self(protocol)
    }

    const fn status(protocol: u32, status: u32) -> Self {
        Self(protocol | (status + 1) << STATUS_SHIFT)
    }

    const fn unframed(protocol: u32) -> Self {
        Self(protocol | UNFRAMED_BIT)
    }

    /// What the connection speaks, as far as is known now.
    #[inline(always)]
    pub const fn protocol(self) -> u32 {
        self.0 & 0xf
    }

    /// Which number of the counts ([`RESPONSES`]) the response adds to, if any.
    #[inline(always)]
    pub const fn counted(self) -> Option<u32> {
        (self.0 >> STATUS_SHIFT & 0xff).checked_sub(1)
    }

    /// Which number of the counts the connection adds to, if it was identified just now; `before` is
    /// what was known of its protocol.
    #[inline(always)]
    pub const fn identified(self, before: u32) -> Option<u32> {
        if before >= FIRST_PROTOCOL || self.protocol() < FIRST_PROTOCOL {
            return None;
        }
        // A first response that switches to another protocol is one of HTTP.
        let protocol = match self.counted() {
            Some(status) if status < POSTGRESQL_OK => HTTP,
            _ => self.protocol(),
        };
        Some(STATUSES as u32 + protocol - FIRST_PROTOCOL)
    }

    /// Whether the head is of no response of its protocol.
    #[inline(always)]
    pub const fn is_unframed(self) -> bool {
        self.0 & UNFRAMED_BIT != 0
    }
}

/// Looks at the head of a response, or of what a server sends without having been asked.
/// `before` is what is known of the protocol, `length` how many bytes the head has.
#[inline(always)]
pub const fn look(before: u32, head: &Head, length: u32, is_response: bool) -> Outcome {
    if !is_response {
        return greeting(head, length);
    }
    match before {
        HTTP => known(HTTP, http::status(head, length)),
        POSTGRESQL => known(POSTGRESQL, postgresql::status(head, length)),
        MYSQL => known(MYSQL, mysql::status(head, length)),
        REDIS => known(REDIS, redis::status(head, length)),
        _ => first(before, head, length),
    }
}

/// A head on a connection whose protocol is known.
#[inline(always)]
const fn known(protocol: u32, status: Option<u32>) -> Outcome {
    match status {
        Some(http::SWITCHING) if protocol == HTTP => Outcome::status(OTHER, HTTP_1XX),
        Some(status) => Outcome::status(protocol, status),
        None => Outcome::unframed(protocol),
    }
}

/// The first response of a connection.
#[inline(always)]
const fn first(before: u32, head: &Head, length: u32) -> Outcome {
    if let Some(status) = http::status(head, length) {
        return known(HTTP, Some(status));
    }
    if tls::is_record(head, length) {
        return Outcome::protocol_only(TLS);
    }
    if before == GREETED {
        return known(MYSQL, mysql::status(head, length));
    }
    if before == UNDECIDED && postgresql::is_answer_to_tls(head, length) {
        return Outcome::status(ASKED, POSTGRESQL_OK);
    }
    if let Some(status) = postgresql::first(head, length) {
        return Outcome::status(POSTGRESQL, status);
    }
    if let Some(status) = redis::first(head, length) {
        return Outcome::status(REDIS, status);
    }
    if http::is_settings(head, length) {
        return Outcome::protocol_only(HTTP2);
    }
    Outcome::protocol_only(OTHER)
}

/// What a server sends before it was asked for anything.
#[inline(always)]
const fn greeting(head: &Head, length: u32) -> Outcome {
    if mysql::is_greeting(head, length) {
        Outcome::protocol_only(GREETED)
    } else if http::is_settings(head, length) {
        Outcome::protocol_only(HTTP2)
    } else if http::status(head, length).is_some() {
        // That nobody asks has taken too long (408).
        Outcome::protocol_only(UNDECIDED)
    } else {
        Outcome::protocol_only(OTHER)
    }
}

/// A byte of a head; 0 behind its end.
#[inline(always)]
const fn byte(head: &Head, at: usize) -> u8 {
    (head[at / 8] >> (at % 8 * 8)) as u8
}

/// Four bytes of the first word, as a number in network byte order.
#[inline(always)]
const fn big_endian(head: &Head, at: usize) -> u32 {
    ((head[0] >> (at * 8)) as u32).swap_bytes()
}

#[inline(always)]
const fn is_upper(byte: u8) -> bool {
    byte.wrapping_sub(b'A') < 26
}

#[inline(always)]
const fn is_digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}
