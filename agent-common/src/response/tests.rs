//! Beginnings of responses as servers send them, and what is taken from them.

use super::*;
use proptest::prelude::*;

fn head(bytes: &[u8]) -> (Head, u32) {
    let mut padded = [0; HEAD];
    let length = bytes.len().min(HEAD);
    padded[..length].copy_from_slice(&bytes[..length]);
    let words = padded.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let words: Vec<u64> = words.collect();
    (words.try_into().unwrap(), length as u32)
}

/// What responses say one after the other: for each the protocol known after it, the status counted,
/// and the protocol the connection was identified as.
fn told(responses: &[&[u8]]) -> Vec<(u32, Option<&'static str>, Option<&'static str>)> {
    let mut before = UNDECIDED;
    let told = responses.iter().map(|bytes| {
        let (head, length) = head(bytes);
        let outcome = look(before, &head, length, true);
        let counted = outcome.counted().map(|at| STATUS_NAMES[at as usize].1);
        let identified = outcome.identified(before);
        let identified = identified.map(|at| PROTOCOL_NAMES[at as usize - STATUSES]);
        before = outcome.protocol();
        (before, counted, identified)
    });
    told.collect()
}

fn greeted(bytes: &[u8]) -> u32 {
    let (head, length) = head(bytes);
    look(UNDECIDED, &head, length, false).protocol()
}

#[test]
fn a_first_response_identifies_its_protocol() {
    let check = |bytes: &[u8], expected| assert_eq!(told(&[bytes])[0], expected, "{bytes:?}");
    let http = |status| (HTTP, Some(status), Some("http"));
    check(b"HTTP/1.1 200 OK\r\nServer: x\r\n", http("2xx"));
    check(b"HTTP/1.0 302 Found\r\n", http("3xx"));
    check(b"HTTP/1.1 100 Continue\r\n\r\n", http("1xx"));
    check(b"HTTP/1.1 404\r\n", http("4xx"));
    check(b"HTTP/1.1 503 Service Unavailable", http("5xx"));
    let postgresql = |status| (POSTGRESQL, Some(status), Some("postgresql"));
    check(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", postgresql("ok"));
    check(b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16application_name", postgresql("ok"));
    check(b"E\0\0\0\x5dSFATAL\0VFATAL\0C53300\0", postgresql("error"));
    check(b"T\0\0\0\x21\0\x01?column?\0\0\0\0\0", postgresql("ok"));
    check(b"1\0\0\0\x042\0\0\0\x04T\0\0\0\x21\0\x01", postgresql("ok"));
    check(b"1\0\0\0\x042\0\0\0\x04E\0\0\0\x60SERROR\0", postgresql("error"));
    check(b"C\0\0\0\x0aBEGIN\0Z\0\0\0\x05T", postgresql("ok"));
    let redis = |status| (REDIS, Some(status), Some("redis"));
    check(b"+OK\r\n", redis("ok"));
    check(b"+PONG\r\n", redis("ok"));
    check(b"$5\r\nhello\r\n", redis("ok"));
    check(b"$-1\r\n", redis("ok"));
    check(b":1700000000000\r\n", redis("ok"));
    check(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", redis("ok"));
    check(b"%7\r\n$6\r\nserver\r\n", redis("ok"));
    check(b"-NOAUTH Authentication required.\r\n", redis("error"));
    let tls = (TLS, None, Some("tls"));
    check(b"\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03", tls);
    check(b"\x15\x03\x03\0\x02\x02\x28", tls);
    check(b"\x17\x03\x03\x40\x11abc", tls);
    check(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", (HTTP2, None, Some("http2")));
}

#[test]
fn what_is_none_of_them_is_unknown_for_good() {
    let unknown = (OTHER, None, Some("unknown"));
    let others: &[&[u8]] = &[
        b"250-mail.example.org\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"VALUE key 0 5\r\nhello\r\nEND\r\n",
        b"STORED\r\n",
        b"+OK 3 messages\r\n",
        b"$5.00 please",
        b"HTTP/2 200 \r\n",
        b"HTTP/1.1 2xx no",
        b"HTTP/1.1 200",
        b"<html><body>hello</body>",
        b"T\0\0\0",
        b"E\0\0\0\x20ends here",
        b"R\0\0\x10\0\x10\0\0\0",
        b"\x16\x03\x03\0\0",
        b"\x16\x03\x03\xff\xff",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        b"\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x2c\0\0\0\x0a8.0.36\0",
    ];
    for bytes in others {
        // A status line without its end is one nevertheless.
        let expected =
            if *bytes == b"HTTP/1.1 200" { (HTTP, Some("2xx"), Some("http")) } else { unknown };
        assert_eq!(told(&[bytes])[0], expected, "{bytes:?}");
    }
}

#[test]
fn tls_may_follow_the_question_for_it() {
    let hello: &[u8] = b"\x16\x03\x03\0\x7a\x02";
    let login: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    assert_eq!(told(&[b"S", hello]), [(ASKED, Some("ok"), None), (TLS, None, Some("tls"))]);
    assert_eq!(
        told(&[b"N", login]),
        [(ASKED, Some("ok"), None), (POSTGRESQL, Some("ok"), Some("postgresql"))]
    );
    assert_eq!(greeted(b"\x4a\0\0\0\x0a8.0.36\0abcdefgh"), GREETED);
    assert_eq!(greeted(b"\x59\0\0\0\x0a5.5.5-10.11.3-MariaDB"), GREETED);
    assert_eq!(greeted(b"\x59\0\0\0\x0a11.4.2-MariaDB"), GREETED);
    let second = |bytes: &[u8]| {
        let (head, length) = head(bytes);
        let outcome = look(GREETED, &head, length, true);
        (outcome.protocol(), outcome.counted().map(|at| STATUS_NAMES[at as usize]))
    };
    assert_eq!(second(hello), (TLS, None));
    assert_eq!(second(b"\x07\0\0\x02\0\0\0\x02\0\0\0"), (MYSQL, Some(("mysql", "ok"))));
    assert_eq!(second(b"\x48\0\0\x02\xff\x15\x04#28000"), (MYSQL, Some(("mysql", "error"))));
}

#[test]
fn who_speaks_first_is_known_by_that_or_never() {
    assert_eq!(greeted(b"220 mail.example.org ESMTP"), OTHER);
    assert_eq!(greeted(b"+OK POP3 ready\r\n"), OTHER);
    assert_eq!(greeted(b"SSH-2.0-OpenSSH_9.6\r\n"), OTHER);
    assert_eq!(greeted(b"\0\0\x06\x04\0\0\0\0\0\0\x03"), HTTP2);
    assert_eq!(greeted(b"HTTP/1.1 408 Request Timeout\r\n"), UNDECIDED);
}

#[test]
fn later_responses_are_read_by_their_protocol() {
    let check = |before, bytes: &[u8], protocol, status: Option<&str>| {
        let (head, length) = head(bytes);
        let outcome = look(before, &head, length, true);
        assert_eq!(outcome.protocol(), protocol, "{bytes:?}");
        assert_eq!(outcome.counted().map(|at| STATUS_NAMES[at as usize].1), status, "{bytes:?}");
        assert_eq!(outcome.is_unframed(), status.is_none(), "{bytes:?}");
        assert_eq!(outcome.identified(before), None);
    };
    check(HTTP, b"HTTP/1.1 500 Oh\r\n", HTTP, Some("5xx"));
    check(HTTP, b"the rest of a body", HTTP, None);
    check(HTTP, b"HTTP/1.1 101 Switching Protocols", OTHER, Some("1xx"));
    check(POSTGRESQL, b"2\0\0\0\x04D\0\0\0\x0b\0\x01", POSTGRESQL, Some("ok"));
    check(POSTGRESQL, b"1\0\0\0\x042\0\0\0\x04E\0\0\0\x60S", POSTGRESQL, Some("error"));
    check(POSTGRESQL, b"\x7fELF", POSTGRESQL, None);
    check(MYSQL, b"\x01\0\0\x01\x03", MYSQL, Some("ok"));
    check(MYSQL, b"\x17\0\0\x01\xff\x48\x04#42S02", MYSQL, Some("error"));
    check(MYSQL, b"\x17\0\0\0", MYSQL, None);
    check(REDIS, b"-ERR unknown command", REDIS, Some("error"));
    check(REDIS, b"_\r\n", REDIS, Some("ok"));
    check(REDIS, b"what", REDIS, None);
}

#[test]
fn a_first_switch_to_another_protocol_is_a_connection_of_http() {
    let told = told(&[b"HTTP/1.1 101 Switching Protocols"]);
    assert_eq!(told, [(OTHER, Some("1xx"), Some("http"))]);
}

#[test]
fn plain_text_is_what_was_recognised_and_is_not_encrypted() {
    let mut responses = [0; RESPONSES];
    for (at, count) in responses.iter_mut().enumerate() {
        *count = 1 << at;
    }
    let of = |protocol: u32| 1_u64 << (STATUSES as u32 + protocol - FIRST_PROTOCOL);
    let plain = [HTTP, POSTGRESQL, MYSQL, REDIS, HTTP2].map(of).iter().sum::<u64>();
    assert_eq!(in_plaintext(&responses), plain);
}

proptest! {
    /// Each head that is looked at gives one of: a status, a protocol without statuses, a misfit.
    #[test]
    fn every_response_is_accounted_for_once(
        before in 0u32..16, bytes in prop::collection::vec(any::<u8>(), 1..40)
    ) {
        let (head, length) = head(&bytes);
        let outcome = look(before, &head, length, true);
        let mut responses = [0; RESPONSES];
        for at in outcome.counted().into_iter().chain(outcome.identified(before)) {
            responses[at as usize] += 1;
        }
        let known = (FIRST_PROTOCOL..HTTP2).contains(&before);
        let expected = u64::from(!outcome.is_unframed());
        if before < HTTP2 {
            prop_assert_eq!(looked_at(&responses), expected);
        }
        prop_assert!(outcome.protocol() <= OTHER);
        prop_assert!(!known || outcome.identified(before).is_none());
    }

    #[test]
    fn nothing_behind_the_head_counts(before in 0u32..16, bytes in prop::collection::vec(any::<u8>(), HEAD..60)) {
        let (whole, part) = (head(&bytes), head(&bytes[..HEAD]));
        prop_assert_eq!(look(before, &whole.0, whole.1, true), look(before, &part.0, part.1, true));
    }
}
