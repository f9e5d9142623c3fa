//! Requests: what counts as one, and its latency, as both sides see it.
//!
//! Latencies are compared with two clocks of the test: the time in the server's program must fit
//! into the time at the server's socket, that into the time at the client's socket, and that into
//! the time that the client's program waited. No load on the machine can break this order.

use std::io::Write as _;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::{Histogram, Scrape};

/// A connection; the test holds both ends.
struct Connection {
    pair: Pair,
    agent: Agent,
    port: u16,
    client: TcpStream,
    server: TcpStream,
    /// While it exists, the client knows its server by name.
    _listener: TcpListener,
}

impl Connection {
    fn new() -> Self {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("[::]:0");
        let port = net::port(&listener);
        let client = pair.client.connect((pair.server.v4, port)).unwrap();
        net::patient(&client);
        client.set_nodelay(true).unwrap();
        let server = net::accept(&listener);
        server.set_nodelay(true).unwrap();
        Self { pair, agent, port, client, server, _listener: listener }
    }

    /// Requests as client and server saw them.
    fn requests(&self, now: &Scrape) -> (Histogram, Histogram) {
        let (client, server) = (&self.pair.client.service, &self.pair.server.service);
        let side = |role| now.edge(client, server, self.port, role).requests();
        (side("client"), side("server"))
    }

    /// Waits until both sides have counted this many.
    #[track_caller]
    fn counted(&self, expected: u64) -> (Histogram, Histogram) {
        let counts = |now: &Scrape| {
            let (client, server) = self.requests(now);
            (client.count, server.count)
        };
        let now = self.agent.eventually((expected, expected), counts);
        self.requests(&now)
    }
}

#[test]
fn every_exchange_of_an_open_connection_counts_on_both_sides_with_its_latency() {
    needs_kernel!();
    const EXCHANGES: u64 = 25;
    let mut connection = Connection::new();
    let mut server = connection.server.try_clone().unwrap();
    let work = thread::spawn(move || {
        let mut worked = Duration::ZERO;
        for _ in 0..EXCHANGES {
            net::read_exactly(&mut server, 100).unwrap();
            let began = Instant::now();
            thread::sleep(Duration::from_millis(20));
            worked += began.elapsed();
            server.write_all(&[b'x'; 300]).unwrap();
        }
        worked
    });
    let mut waited = Duration::ZERO;
    for _ in 0..EXCHANGES {
        let began = Instant::now();
        net::ask(&mut connection.client, 100, 300).unwrap();
        waited += began.elapsed();
    }
    let worked = work.join().unwrap();
    // Still open: a pooled connection may live for days.
    let (client, server) = connection.counted(EXCHANGES);
    let order = [worked.as_secs_f64(), server.sum, client.sum, waited.as_secs_f64()];
    // Each may be truncated to whole microseconds.
    let slack = EXCHANGES as f64 * 2e-6;
    assert!(order.windows(2).all(|pair| pair[0] <= pair[1] + slack), "not in order: {order:?}");
    assert_eq!((client.at_most(0.01), server.at_most(0.01)), (0, 0), "none was so quick");
    assert!(client.mean() >= 0.02 && server.mean() >= 0.02, "{client:?} {server:?}");
    connection.agent.stop();
}

#[test]
fn a_server_that_speaks_first_answers_nothing() {
    needs_kernel!();
    let mut connection = Connection::new();
    connection.server.write_all(b"220 ready\n").unwrap();
    net::read_exactly(&mut connection.client, 10).unwrap();
    connection.client.write_all(b"HELO\n").unwrap();
    net::read_exactly(&mut connection.server, 5).unwrap();
    connection.server.write_all(b"250 hello\n").unwrap();
    net::read_exactly(&mut connection.client, 10).unwrap();
    connection.counted(1);
    connection.agent.stop();
}

#[test]
fn pipelined_requests_are_one_exchange() {
    needs_kernel!();
    let mut connection = Connection::new();
    for _ in 0..3 {
        connection.client.write_all(b"GET a\n").unwrap();
    }
    net::read_exactly(&mut connection.server, 18).unwrap();
    for _ in 0..3 {
        connection.server.write_all(b"200 a\n").unwrap();
    }
    net::read_exactly(&mut connection.client, 18).unwrap();
    connection.counted(1);
    // And the next one is an exchange of its own.
    connection.client.write_all(b"GET b\n").unwrap();
    net::read_exactly(&mut connection.server, 6).unwrap();
    connection.server.write_all(b"200 b\n").unwrap();
    net::read_exactly(&mut connection.client, 6).unwrap();
    connection.counted(2);
    connection.agent.stop();
}

#[test]
fn a_large_request_and_a_large_response_are_one_exchange() {
    needs_kernel!();
    const SIZE: usize = 3 << 20;
    let mut connection = Connection::new();
    let mut server = connection.server.try_clone().unwrap();
    let work = thread::spawn(move || {
        for _ in 0..3 {
            net::read_exactly(&mut server, SIZE).unwrap();
            server.write_all(&vec![b'x'; SIZE]).unwrap();
        }
    });
    for exchange in 1..=3 {
        net::ask(&mut connection.client, SIZE, SIZE).unwrap();
        connection.counted(exchange);
    }
    work.join().unwrap();
    connection.agent.stop();
}

#[test]
fn a_slow_upload_counts_from_its_last_byte_for_the_client_and_its_first_for_the_server() {
    needs_kernel!();
    let mut connection = Connection::new();
    let uploading = Instant::now();
    for part in 0..4 {
        if part > 0 {
            thread::sleep(Duration::from_millis(30));
        }
        connection.client.write_all(b"part").unwrap();
    }
    let uploaded = uploading.elapsed();
    net::read_exactly(&mut connection.server, 16).unwrap();
    let answering = Instant::now();
    connection.server.write_all(b"thanks").unwrap();
    net::read_exactly(&mut connection.client, 6).unwrap();
    let answered = answering.elapsed();
    let (client, server) = connection.counted(1);
    assert!(server.sum >= 0.09, "the server saw it for 90 ms at least: {server:?}");
    let whole = (uploaded + answered).as_secs_f64();
    assert!(client.sum <= whole - 0.09 + 0.001, "the client waited {client:?} of {whole} s");
    connection.agent.stop();
}

#[test]
fn a_slow_download_is_one_exchange_that_ends_with_its_first_byte() {
    needs_kernel!();
    let mut connection = Connection::new();
    let asked = Instant::now();
    connection.client.write_all(b"stream").unwrap();
    net::read_exactly(&mut connection.server, 6).unwrap();
    connection.server.write_all(b"part").unwrap();
    net::read_exactly(&mut connection.client, 4).unwrap();
    let first = asked.elapsed();
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(30));
        connection.server.write_all(b"part").unwrap();
        net::read_exactly(&mut connection.client, 4).unwrap();
    }
    let (client, server) = connection.counted(1);
    assert!(client.sum <= first.as_secs_f64(), "{client:?} of {first:?}");
    assert!(server.sum <= first.as_secs_f64(), "{server:?} of {first:?}");
    connection.agent.stop();
}

#[test]
fn requests_count_in_every_family() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let mapped = IpAddr::V6(pair.server.v4.to_ipv6_mapped());
    for address in [IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6), mapped] {
        let listener = pair.server.listen("[::]:0");
        let port = net::port(&listener);
        let mut client = pair.client.connect((address, port)).unwrap();
        let mut server = net::accept(&listener);
        let work = thread::spawn(move || net::answer(&mut server, 10, 10, Duration::ZERO));
        for _ in 0..50 {
            net::ask(&mut client, 10, 10).unwrap();
        }
        drop(client);
        assert_eq!(work.join().unwrap().unwrap(), 50);
        agent.eventually((50, 50), |now| {
            let (client, server) = (&pair.client.service, &pair.server.service);
            let count = |role| now.edge(client, server, port, role).requests().count;
            (count("client"), count("server"))
        });
    }
    agent.stop();
}
