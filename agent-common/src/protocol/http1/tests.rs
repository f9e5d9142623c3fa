//! Messages as servers and clients write them, cut into packets in every way, and what is counted.

use proptest::prelude::*;

use super::detect::HEAD;
use super::replay::{Connection, Counts};
use super::*;

fn check(connection: &Connection, expected: &[&str]) {
    let Connection { counts, .. } = connection;
    assert_eq!(counts.said(), expected);
    assert!(counts.is_whole(connection.open()), "{counts:?}, {} open", connection.open());
}

fn exchange(request: &str, response: &str, expected: &[&str]) {
    let mut connection = Connection::new();
    // Twice: the first one has to end where it ends.
    for _ in 0..2 {
        connection.receive(request.as_bytes());
        connection.send(response.as_bytes());
    }
    check(&connection, expected);
}

const OK: &str = "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH:  2 \r\n\r\nhi";

#[test]
fn every_way_to_frame_a_message_is_known() {
    exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", OK, &["GET 2xx 2"]);
    exchange(
        "HEAD / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
        &["HEAD 2xx 2"],
    );
    exchange(
        "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nGET",
        "HTTP/1.1 204 No\r\n\r\n",
        &["PUT 2xx 2"],
    );
    exchange(
        "\r\nDELETE / HTTP/1.1\n\n",
        "HTTP/1.0 304\r\nContent-Length: 5\r\n\r\n",
        &["DELETE 3xx 2"],
    );
    exchange(
        "PATCH / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nTRANSFER-ENCODING: chunked\r\nContent-Length: 7\r\n\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
        &["PATCH 4xx 2"],
    );
    exchange(
        "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n",
        &["POST 5xx 2"],
    );
    exchange("PROPFIND / HTTP/1.1\r\n\r\n", OK, &["_OTHER 2xx 2"]);
    exchange("VERSION-CONTROL / HTTP/1.1\r\n\r\n", OK, &["_OTHER 2xx 2"]);
    exchange(
        "OPTIONS * HTTP/1.1\r\n\r\nTRACE / HTTP/1.1\r\n\r\n",
        &format!("{OK}{OK}"),
        &["OPTIONS 2xx 2", "TRACE 2xx 2"],
    );
    let long =
        format!("GET /{} HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(3000), "y".repeat(5000));
    exchange(&long, OK, &["GET 2xx 2"]);
}

#[test]
fn what_leaves_http_is_left() {
    let mut upgrade = Connection::new();
    upgrade.receive(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    upgrade.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x05hello");
    upgrade.receive(b"GET / HTTP/1.1\r\n\r\n");
    check(&upgrade, &["GET 1xx 1"]);
    let mut tunnel = Connection::new();
    tunnel.receive(b"CONNECT a:443 HTTP/1.1\r\n\r\n");
    tunnel.send(b"HTTP/1.1 200 Established\r\n\r\n");
    tunnel.receive(b"\x16\x03\x01");
    check(&tunnel, &["CONNECT 2xx 1"]);
    for other in [
        "*1\r\n$4\r\nPING\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x00\n",
        "get / http/1.1\r\n",
    ] {
        let mut connection = Connection::new();
        connection.receive(other.as_bytes());
        connection.send(b"+PONG\r\n");
        connection.receive(b"GET / HTTP/1.1\r\n\r\n");
        check(&connection, &[]);
    }
    // It looks like a request, and the response shows that it is none.
    let mut other = Connection::new();
    other.receive(b"GET key\r\n");
    other.send(b"$-1\r\n");
    check(&other, &["lost unframed 1"]);
}

#[test]
fn pipelined_requests_are_counted_one_by_one_up_to_a_limit() {
    let mut connection = Connection::new();
    connection
        .receive("GET /a HTTP/1.1\r\n\r\nHEAD /b HTTP/1.1\r\n\r\n".repeat(OPEN / 2).as_bytes());
    let both = format!("{OK}HTTP/1.1 404 x\r\nContent-Length: 9\r\n\r\n");
    connection.send(both.repeat(OPEN / 2).as_bytes());
    check(&connection, &["GET 2xx 16", "HEAD 4xx 16"]);
    // One more than there is room for.
    connection.receive("GET /a HTTP/1.1\r\n\r\n".repeat(OPEN + 1).as_bytes());
    connection.send(OK.repeat(OPEN).as_bytes());
    check(&connection, &["GET 2xx 48", "HEAD 4xx 16", "lost overflow 1"]);
    // The next exchange is seen again.
    connection.receive(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    connection.send(OK.as_bytes());
    check(&connection, &["GET 2xx 48", "HEAD 4xx 16", "POST 2xx 1", "lost overflow 1"]);
}

#[test]
fn what_cannot_be_framed_is_lost_until_the_next_exchange() {
    for bad in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        let mut connection = Connection::new();
        connection
            .receive(format!("POST / HTTP/1.1\r\n{bad}\r\nGET / HTTP/1.1\r\n\r\n").as_bytes());
        connection.send(format!("{OK}{OK}").as_bytes());
        check(&connection, &["POST 2xx 1", "lost unframed 1"]);
        connection.receive(b"GET / HTTP/1.1\r\n\r\n");
        connection.send(OK.as_bytes());
        check(&connection, &["GET 2xx 1", "POST 2xx 1", "lost unframed 1"]);
    }
}

#[test]
fn a_request_without_a_response_is_unanswered_when_the_server_closes() {
    let mut connection = Connection::new();
    connection.receive(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    connection.close();
    check(&connection, &["GET 2xx 1", "unanswered 1"]);
    connection.receive(b"GET / HTTP/1.1\r\n\r\n");
    check(&connection, &["GET 2xx 1", "unanswered 2"]);
}

#[test]
fn a_server_that_speaks_without_being_asked_has_answered_nothing() {
    let mut connection = Connection::new();
    connection.receive(b"GET / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    connection.send(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n");
    check(&connection, &["GET 2xx 1"]);
}

#[test]
fn a_connection_met_in_the_middle_is_counted_from_the_next_exchange() {
    let mut connection = Connection::new();
    connection.send(b"the end of a body");
    connection.receive(b"GET / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    connection.receive(b"POST / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    check(&connection, &["GET 2xx 1", "POST 2xx 1"]);
}

#[test]
fn a_response_to_a_request_that_was_not_seen_is_lost() {
    let mut connection = Connection::new();
    connection.send(OK.as_bytes());
    check(&connection, &["lost gap 1"]);
    connection.receive(b"GET / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    check(&connection, &["GET 2xx 1", "lost gap 1"]);
    // The head came with the handshake, at the listener.
    let mut connection = Connection::new();
    connection.receive_within(b"the rest of a body");
    connection.send(OK.as_bytes());
    connection.receive(b"GET / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    check(&connection, &["GET 2xx 1", "lost gap 1"]);
}

#[test]
fn a_gap_in_a_body_is_harmless_and_one_in_a_head_is_counted() {
    let (head, body) = ("POST / HTTP/1.1\r\nContent-Length: 3000\r\n\r\n", [b'x'; 3000]);
    let mut connection = Connection::new();
    let first = connection.received;
    let at = |bytes: usize| first.wrapping_add(bytes as u32);
    // The head comes last.
    connection.receive(b"GET / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    let from = 18;
    connection.receive_at(at(from + head.len() + 1000), &body[..1000]);
    connection.receive_at(at(from), &[head.as_bytes(), &body[..1000]].concat());
    connection.receive_at(at(from + head.len() + 2000), &body[..1000]);
    connection.send(OK.as_bytes());
    connection.received = at(from + head.len() + 3000);
    connection.receive(b"PUT / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    check(&connection, &["GET 2xx 1", "POST 2xx 1", "PUT 2xx 1"]);
    // Two pipelined requests come in the wrong order: the second one was passed over.
    let next = connection.received;
    connection.receive_at(next.wrapping_add(18), b"GET / HTTP/1.1\r\n\r\n");
    connection.receive_at(next, b"GET / HTTP/1.1\r\n\r\n");
    connection.send(format!("{OK}{OK}").as_bytes());
    connection.received = next.wrapping_add(36);
    connection.receive(b"PUT / HTTP/1.1\r\n\r\n");
    connection.send(OK.as_bytes());
    check(&connection, &["GET 2xx 2", "POST 2xx 1", "PUT 2xx 2", "lost gap 1"]);
}

/// One side's messages and how they are cut.
fn messages() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0usize..6, 0usize..6), 1..12)
}

fn request(kind: usize) -> String {
    match kind {
        0 => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        1 => "HEAD /x HTTP/1.1\r\n\r\n".into(),
        2 => format!("POST / HTTP/1.1\r\nContent-Length: 70\r\n\r\n{}", "GET /\r\n".repeat(10)),
        3 => "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;e\r\nab\r\nc\r\n0\r\nX: y\r\n\r\n".into(),
        4 => format!("\r\nDELETE /{} HTTP/1.1\r\nCookie: {}\r\n\r\n", "d".repeat(70), "c".repeat(200)),
        _ => "REPORT / HTTP/1.1\r\n\r\n".into(),
    }
}

fn response(kind: usize, request: usize) -> String {
    let (head, body): (&str, &str) = match kind {
        0 => ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "HTTP/1.1 5"),
        1 => (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 301 Moved\r\nTransfer-Encoding: chunked\r\n\r\n",
            "2\r\n\r\n\r\n0\r\n\r\n",
        ),
        2 => ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ""),
        3 => ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        4 => (
            "HTTP/1.1 503 Unavailable because of something that takes more than one window to say\r\nRetry-After: 1\r\nContent-Length: 3\r\n\r\n",
            "\r\n\r",
        ),
        _ => ("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", ""),
    };
    if request == 1 { head.to_owned() } else { format!("{head}{body}") }
}

fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_cut_of_the_stream_into_packets_gives_the_same_messages(
        messages in messages(), cuts in prop::collection::vec(0usize..10_000, 0..40), pipelined in any::<bool>()
    ) {
        let mut whole = Connection::new();
        let mut pieces = Connection::new();
        let groups: Vec<&[(usize, usize)]> = if pipelined { vec![&messages] } else { messages.chunks(1).collect() };
        for group in groups {
            let asked: String = group.iter().map(|(kind, _)| request(*kind)).collect();
            let said: String = group.iter().map(|(asked, kind)| response(*kind, *asked)).collect();
            whole.receive(asked.as_bytes());
            whole.send(said.as_bytes());
            for piece in cut(asked.as_bytes(), &cuts) { pieces.receive(piece); }
            for piece in cut(said.as_bytes(), &cuts) { pieces.send(piece); }
        }
        prop_assert_eq!(&whole.counts, &pieces.counts);
        prop_assert_eq!(whole.counts.seen as usize, messages.len());
        prop_assert!(whole.counts.lost.is_empty() && whole.open() == 0, "{:?}", whole.counts);
        let mut expected = Counts { seen: messages.len() as u32, ..Counts::default() };
        for (asked, kind) in &messages {
            let method = [0, HEAD, 2, 3, 4, 9][*asked];
            *expected.numbers.entry(number(method, [2, 3, 4, 2, 5, 3][*kind])).or_default() += 1;
        }
        prop_assert_eq!(&pieces.counts, &expected);
    }

    #[test]
    fn packets_in_any_order_lose_requests_and_make_none_up(
        messages in messages(), cuts in prop::collection::vec(0usize..10_000, 0..10), swaps in prop::collection::vec(0usize..10, 0..4)
    ) {
        let mut connection = Connection::new();
        for (asked, kind) in &messages {
            let bytes = request(*asked);
            let first = connection.received;
            let pieces = cut(bytes.as_bytes(), &cuts);
            let mut at = 0u32;
            let mut packets: Vec<(u32, &[u8])> = pieces.into_iter().map(|piece| {
                let seq = first.wrapping_add(at);
                at += piece.len() as u32;
                (seq, piece)
            }).collect();
            for swap in &swaps {
                let count = packets.len();
                packets.swap(swap % count, (swap + 1) % count);
            }
            connection.received = first.wrapping_add(at);
            // The server has all of it before it answers.
            for (seq, piece) in packets { connection.receive_at(seq, piece); }
            connection.send(response(*kind, *asked).as_bytes());
        }
        prop_assert!(connection.counts.is_whole(connection.open()), "{:?}", connection.counts);
        prop_assert!(connection.counts.seen as usize <= messages.len(), "{:?}", connection.counts);
    }

    #[test]
    fn no_bytes_make_the_sums_wrong(packets in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
        let mut connection = Connection::new();
        connection.receive(b"GET / HTTP/1.1\r\n\r\n");
        for (sends, bytes) in &packets {
            if *sends { connection.send(bytes) } else { connection.receive(bytes) }
        }
        connection.close();
        prop_assert!(connection.counts.is_whole(0), "{:?}", connection.counts);
    }
}
