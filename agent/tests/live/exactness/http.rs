//! HTTP: nginx under wrk, and under a client that knows its exact requests.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use super::{Between, Books, Load, Nginx, Settled, Watcher, equal, equal_bytes, missing};
use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

const BODY: usize = 12;

/// wrk stops in the middle: on every connection the last request may be answered, but not read.
fn compare_with_wrk(connections: u32, headers: &[&str]) -> Settled {
    let pair = Pair::new();
    let agent = Agent::start();
    let nginx = Nginx::start(&pair.server, BODY);
    let port = nginx.port;
    let books = Books::open(&pair, &agent);
    let server = SocketAddr::from((pair.server.v4, port));
    let wrk = Watcher::during(&agent, || Load::wrk(&pair.client, server, connections, headers));
    let settled = books.close(&pair, &agent, Between { client: "wrk", server: "nginx", port });
    agent.stop();
    let log = nginx.stop();
    println!("{log:?}");
    let slack = settled.slack;

    assert_eq!(wrk.number("sum errors"), 0);
    equal("requests the server answered", settled.server_requests, log.answered, slack);
    equal_bytes("bytes nginx sent", settled.server_sent, log.sent, slack);
    let size = log.sent / log.answered;
    assert_eq!(log.sent, size * log.answered, "all answers have one size");
    if slack > 0 {
        return settled; // Without every byte, no telling what was in flight.
    }
    let unread = settled.client_received - wrk.number("sum bytes");
    assert!(unread <= size * u64::from(connections), "more unread than in flight: {unread}");
    let completed = wrk.number("sum requests");
    assert_eq!(settled.client_requests - unread / size, completed, "requests wrk completed");
    // Responses to a client that had closed.
    let refused = settled.server_sent - settled.client_received;
    let too_late = settled.server_requests - settled.client_requests;
    assert_eq!(refused, too_late * size, "answers that came too late");
    assert!(too_late <= u64::from(connections), "more too late than in flight: {too_late}");
    settled
}

#[test]
fn keep_alive_load_of_wrk_equals_the_log_of_nginx() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx", "wrk"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let settled = compare_with_wrk(8, &[]);
    // wrk opens one more to check that the server is there.
    equal("connections", settled.connects, 9, settled.slack);
    assert!(settled.client_requests > 1000, "too little load: {settled:?}");
}

#[test]
fn a_connection_per_request_of_wrk_equals_the_log_of_nginx() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx", "wrk"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let settled = compare_with_wrk(8, &["Connection: close"]);
    let connects = settled.connects + settled.slack;
    assert!(connects >= settled.client_requests, "one request each: {settled:?}");
    assert!(settled.connects > 500, "too little load: {settled:?}");
}

#[test]
fn every_request_of_an_http_client_is_counted_once_on_either_side() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return;
    }
    const CONNECTIONS: u64 = 4;
    const EACH: u64 = 2000;
    let pair = Pair::new();
    let agent = Agent::start();
    let nginx = Nginx::start(&pair.server, BODY);
    let port = nginx.port;
    let books = Books::open(&pair, &agent);
    let address = (pair.server.v4, port);
    let question = b"GET / HTTP/1.1\r\nHost: exact\r\n\r\n";
    let received = Watcher::during(&agent, || {
        std::thread::scope(|scope| {
            let ask = || {
                let mut stream = pair.client.connect(address).expect("connecting to nginx");
                net::patient(&stream);
                let size = first_answer(&mut stream, question);
                for _ in 1..EACH {
                    stream.write_all(question).expect("asking");
                    net::read_exactly(&mut stream, size).expect("an answer");
                }
                // nginx closes after its response.
                stream.shutdown(Shutdown::Write).expect("closing");
                assert_eq!(net::read_to_end(&mut stream).expect("the end"), 0);
                (size as u64) * EACH
            };
            let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<u64>()
        })
    });
    let settled =
        books.close(&pair, &agent, Between { client: &pair.client.service, server: "nginx", port });
    agent.stop();
    let log = nginx.stop();
    let slack = settled.slack;
    let asked = CONNECTIONS * EACH;
    assert_eq!(log.answered, asked);
    equal("connections", settled.connects, CONNECTIONS, slack);
    equal("requests of the client", settled.client_requests, asked, slack);
    equal("requests of the server", settled.server_requests, asked, slack);
    assert_eq!((log.received, log.sent), (asked * question.len() as u64, received));
    equal_bytes("sent by the client", settled.client_sent, log.received, slack);
    equal_bytes("received by nginx", settled.server_received, log.received, slack);
    equal_bytes("sent by nginx", settled.server_sent, log.sent, slack);
    equal_bytes("received by the client", settled.client_received, received, slack);
}

/// Sends one request and reads the response to its end; returns its size. All others have the same.
fn first_answer(stream: &mut std::net::TcpStream, question: &[u8]) -> usize {
    stream.write_all(question).expect("asking");
    let mut answer = Vec::new();
    let body = "x".repeat(BODY);
    while !answer.ends_with(body.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    answer.len()
}
