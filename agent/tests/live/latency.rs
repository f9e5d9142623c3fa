//! Latency: the agent's histograms against a packet capture of the same traffic, and against the
//! clock of the program that waited.
//!
//! The capture stamps a packet where it leaves or enters the host, the agent where TCP hands it
//! over: a mean may differ by 5 % or 20 µs, no more. The program also waits to be woken, which on
//! a busy machine takes any time, so it bounds the agent from above; where the server's own delay
//! is long in comparison, the two must agree as well.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use self::capture::{Capture, End, latencies};
use crate::agent::Agent;
use crate::exactness::{Load, Nginx, missing};
use crate::figure;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Histogram;

mod capture;

/// Allowed difference of two means, in seconds.
const NEAR: f64 = 20e-6;
const NEAR_RATIO: f64 = 0.05;
/// Connections without a request, so many at a time, so many times: of few, one that was preempted
/// would decide the mean.
const CONNECTS: usize = 60;
const ROUNDS: usize = 5;

fn mean_us(values: &[u64]) -> f64 {
    values.iter().sum::<u64>() as f64 / values.len() as f64
}

/// Requires that a histogram has as many observations as the capture and nearly its mean.
#[track_caller]
fn agrees(what: &str, histogram: &Histogram, captured_us: &[u64]) {
    let captured = mean_us(captured_us) / 1e6;
    figure::latency(what, "a capture", histogram.mean(), captured);
    assert_eq!(histogram.count, captured_us.len() as u64, "{what}: how many");
    let apart = (histogram.mean() - captured).abs();
    assert!(
        apart <= NEAR.max(captured * NEAR_RATIO),
        "{what}: mean {} s, the capture says {captured} s",
        histogram.mean()
    );
}

/// A first connection finds every cache cold; a mean is of many.
fn connections_to(address: SocketAddr) -> Vec<TcpStream> {
    (0..CONNECTS).map(|_| TcpStream::connect(address).expect("connecting")).collect()
}

/// Some clients send requests to a server that waits for `delay` before it responds.
fn latency_of_a_server_that_takes(delay: Duration, connections: usize, exchanges: usize) {
    let pair = Pair::new();
    let agent = Agent::start();
    let captures = pair.both().map(Capture::start);
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    let address = SocketAddr::from((pair.server.v4, port));
    for _ in 0..ROUNDS {
        let more = pair.client.act(|| connections_to(address));
        drop((more.iter().map(|_| net::accept(&listener)).collect::<Vec<_>>(), more));
    }
    let mut waited: Vec<u64> = Vec::new();
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let mut client = pair.client.connect(address).expect("connecting");
            let mut server = net::accept(&listener);
            net::patient(&client);
            scope.spawn(move || net::answer(&mut server, 100, 1000, delay).expect("exchanges"));
            clients.push(scope.spawn(move || {
                let exchange = |_| {
                    let began = Instant::now();
                    net::ask(&mut client, 100, 1000).expect("an exchange");
                    began.elapsed().as_micros() as u64
                };
                (0..exchanges).map(exchange).collect::<Vec<_>>()
            }));
        }
        for client in clients {
            waited.extend(client.join().expect("no panic"));
        }
    });
    let (client, server) = (&pair.client.service, &pair.server.service);
    let all = (connections * exchanges) as u64;
    let now = agent.eventually((all, all, 0), |now| {
        let at_client = now.edge(client, server, port, "client");
        let at_server = now.edge(client, server, port, "server");
        (at_client.requests().count, at_server.requests().count, at_client.active())
    });
    let [captured_client, captured_server] = capture::stop_all(&pair, captures);
    let captured = latencies(&captured_client, port, End::Client);
    let at_client = now.edge(client, server, port, "client");
    let requests = at_client.requests();
    agrees("request at the client", &requests, &captured.requests);
    agrees("connect", &at_client.connect_duration(), &captured.connects);
    let captured = latencies(&captured_server, port, End::Server);
    let at_server = now.edge(client, server, port, "server").requests();
    agrees("request at the server", &at_server, &captured.requests);

    let program = mean_us(&waited) / 1e6;
    if delay >= Duration::from_millis(10) {
        figure::latency("request at the client", "the program's clock", requests.mean(), program);
    }
    assert!(requests.mean() <= program, "longer than the program waited: {program} s");
    assert!(at_server.mean() >= delay.as_secs_f64(), "shorter than the server took");
    assert_eq!(requests.at_most(0.05), if delay < Duration::from_millis(50) { all } else { 0 });
    if delay >= Duration::from_millis(10) {
        let apart = program - requests.mean();
        assert!(apart <= program * NEAR_RATIO, "the program waited {program} s");
        // No more of our latencies than of the program's lie above a bound, at every bound.
        for (bound, count) in &requests.buckets {
            let below = waited.iter().filter(|us| **us as f64 / 1e6 <= *bound).count() as u64;
            assert!(*count >= below, "{count} up to {bound} s, of the program's {below}");
        }
    }
    agent.stop();
}

macro_rules! needs_capture {
    ($($program:literal),*) => {
        needs_kernel!();
        if crate::facts::is_emulated() {
            println!("SKIPPED: an emulated processor takes milliseconds between a packet's two stamps");
            return;
        }
        if let Some(why) = missing(&["tcpdump", $($program),*]) {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

#[test]
fn latency_without_delay_is_the_captures() {
    needs_capture!();
    latency_of_a_server_that_takes(Duration::ZERO, 4, 500);
}

#[test]
fn a_millisecond_of_latency_is_the_captures() {
    needs_capture!();
    latency_of_a_server_that_takes(Duration::from_millis(1), 4, 100);
}

#[test]
fn ten_milliseconds_of_latency_are_the_captures_and_the_programs() {
    needs_capture!();
    latency_of_a_server_that_takes(Duration::from_millis(10), 4, 40);
}

#[test]
fn fifty_milliseconds_of_latency_are_the_captures_and_the_programs() {
    needs_capture!();
    latency_of_a_server_that_takes(Duration::from_millis(50), 4, 15);
}

#[test]
fn latency_of_nginx_under_wrk_is_the_captures() {
    needs_capture!("nginx", "wrk");
    let pair = Pair::new();
    let agent = Agent::start();
    let nginx = Nginx::start(&pair.server, 500);
    let port = nginx.port;
    let capture = Capture::start(&pair.client);
    let address = (pair.server.v4, port).into();
    drop(pair.client.act_as("wrk", || connections_to(address)));
    let wrk = Load::wrk(&pair.client, address, 2, &[]);
    let edge = |now: &crate::scrape::Scrape| {
        let edge = now.edge("wrk", "nginx", port, "client");
        (edge.active(), edge.requests(), edge.connect_duration())
    };
    let now = agent.eventually(0, |now| edge(now).0);
    let (_, requests, connects) = edge(&now);
    let captured = latencies(&capture::stop_all(&pair, [capture])[0], port, End::Client);
    agrees("connect", &connects, &captured.connects);
    agrees("request at the client", &requests, &captured.requests);
    let program = wrk.number("sum mean_us") as f64 / 1e6;
    assert!(requests.mean() <= program, "longer than wrk waited: {program} s");

    // Once more without the capture, which takes time that wrk waits for and nginx does not.
    let wrk = Load::wrk(&pair.client, address, 2, &[]);
    let (_, all, _) = edge(&agent.eventually(0, |now| edge(now).0));
    let program = wrk.number("sum mean_us") as f64 / 1e6;
    let mean = (all.sum - requests.sum) / (all.count - requests.count) as f64;
    figure::latency("request at the client", "wrk's own figure", mean, program);
    assert!(mean <= program, "longer than wrk waited: {program} s");
    agent.stop();
}

/// wrk waits to be woken, too: beside ten milliseconds that does not count.
#[test]
fn latency_of_a_slow_server_under_wrk_is_wrks() {
    needs_kernel!();
    if let Some(why) = missing(&["wrk"]) {
        println!("SKIPPED: {why}");
        return;
    }
    const CONNECTIONS: u32 = 4;
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    // wrk opens one more, to see whether the server is there.
    let serve = move || {
        let serve_one = |mut stream: TcpStream| move || answer_slowly(&mut stream);
        let serving: Vec<_> =
            (0..=CONNECTIONS).map(|_| thread::spawn(serve_one(net::accept(&listener)))).collect();
        for one in serving {
            one.join().expect("no panic");
        }
    };
    let server = thread::spawn(serve);
    let wrk = Load::wrk(&pair.client, (pair.server.v4, port).into(), CONNECTIONS, &[]);
    server.join().expect("no panic");
    let edge = |now: &crate::scrape::Scrape| {
        let edge = now.edge("wrk", &pair.server.service, port, "client");
        (edge.active(), edge.requests())
    };
    let (_, requests) = edge(&agent.eventually(0, |now| edge(now).0));
    let program = wrk.number("sum mean_us") as f64 / 1e6;
    figure::latency("request at the client", "wrk's own figure", requests.mean(), program);
    assert!(requests.count >= wrk.number("sum requests"), "{requests:?}");
    assert!(requests.mean() <= program, "longer than wrk waited: {program} s");
    assert!(program - requests.mean() <= program * NEAR_RATIO, "wrk waited {program} s");
    agent.stop();
}

/// Answers HTTP requests after ten milliseconds each, until the client closes.
fn answer_slowly(stream: &mut TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut asked = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        asked.extend_from_slice(&piece[..read]);
        if asked.ends_with(b"\r\n\r\n") {
            asked.clear();
            thread::sleep(Duration::from_millis(10));
            // A client that has closed does not read it.
            let _ = stream.write_all(ANSWER);
        }
    }
}
