//! How long connections are idle before a request, and before an end closes them. The test plays
//! both programs and measures the pauses itself, from within and from without.

use std::io::Write as _;
use std::net::{IpAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::{self, Agent};
use crate::namespace::Pair;
use crate::net;
use crate::scrape::{Histogram, Scrape};

/// Longer than the shortest pause that counts.
const PAUSE: Duration = Duration::from_millis(700);
/// Times are in units of 1024 µs: a beginning may be off by two, an end by one.
const UNIT: f64 = 0.0032;

/// A pause: at least as long as it was from the end of what came before to the beginning of what
/// came after, at most as from the beginning of one to the end of the other.
type Bounds = (f64, f64);

/// The pauses of a play: before requests, and before the client or the server closed.
#[derive(Debug, Default)]
struct Pauses {
    reuse: Option<Bounds>,
    by_client: Option<Bounds>,
    by_server: Option<Bounds>,
}

type Play = fn(TcpStream, TcpStream) -> Pauses;

const PLAYS: &[(&str, Play)] = &[
    ("a request after a pause", |client, server| {
        let pause = Pause::after(|| exchange(&client, &server));
        let reuse = pause.until(|| exchange(&client, &server));
        // Not after a pause.
        exchange(&client, &server);
        drop(client);
        net::read_to_end(&mut &server).unwrap();
        Pauses { reuse: Some(reuse), ..Pauses::default() }
    }),
    ("the server closes", |client, server| {
        let pause = Pause::after(|| exchange(&client, &server));
        let by_server = pause.until(|| {
            drop(server);
            net::read_to_end(&mut &client).unwrap();
        });
        Pauses { by_server: Some(by_server), ..Pauses::default() }
    }),
    ("the client closes", |client, server| {
        let pause = Pause::after(|| exchange(&client, &server));
        let by_client = pause.until(|| {
            drop(client);
            net::read_to_end(&mut &server).unwrap();
        });
        Pauses { by_client: Some(by_client), ..Pauses::default() }
    }),
    ("the client closes with a last message", |client, server| {
        let pause = Pause::after(|| exchange(&client, &server));
        let by_client = pause.until(|| {
            (&client).write_all(b"QUIT").unwrap();
            drop(client);
            net::read_to_end(&mut &server).unwrap();
        });
        Pauses { by_client: Some(by_client), ..Pauses::default() }
    }),
    ("the server closes with a last message", |client, server| {
        let pause = Pause::after(|| exchange(&client, &server));
        let by_server = pause.until(|| {
            (&server).write_all(b"close_notify").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap();
        });
        Pauses { by_server: Some(by_server), ..Pauses::default() }
    }),
    ("the client closes what it never used", |client, server| {
        let pause = Pause::after(|| ());
        let by_client = pause.until(|| {
            drop(client);
            net::read_to_end(&mut &server).unwrap();
        });
        // It was established before the play began.
        Pauses { by_client: Some((by_client.0, f64::INFINITY)), ..Pauses::default() }
    }),
    ("a slow response, behind which the server closes", |client, server| {
        asks(&client, &server);
        thread::sleep(PAUSE);
        (&server).write_all(b"response").unwrap();
        drop(server);
        net::read_to_end(&mut &client).unwrap();
        Pauses::default()
    }),
    ("a pause within a response", |client, server| {
        asks(&client, &server);
        (&server).write_all(b"response").unwrap();
        net::read_exactly(&mut &client, 8).unwrap();
        thread::sleep(PAUSE);
        (&server).write_all(b"response").unwrap();
        net::read_exactly(&mut &client, 8).unwrap();
        exchange(&client, &server);
        drop(client);
        net::read_to_end(&mut &server).unwrap();
        Pauses::default()
    }),
    ("the client gives up a request", |client, server| {
        asks(&client, &server);
        thread::sleep(PAUSE);
        drop(client);
        net::read_to_end(&mut &server).unwrap();
        Pauses::default()
    }),
];

/// A pause that goes on.
struct Pause {
    within: Instant,
    without: Instant,
}

impl Pause {
    fn after(before: impl FnOnce()) -> Self {
        let without = Instant::now();
        before();
        Self { within: Instant::now(), without }
    }

    fn until(self, then: impl FnOnce()) -> Bounds {
        thread::sleep(PAUSE);
        let within = self.within.elapsed();
        then();
        (within.as_secs_f64(), self.without.elapsed().as_secs_f64())
    }
}

fn asks(mut client: &TcpStream, mut server: &TcpStream) {
    client.write_all(b"request").unwrap();
    net::read_exactly(&mut server, 7).unwrap();
}

fn exchange(mut client: &TcpStream, mut server: &TcpStream) {
    asks(client, server);
    server.write_all(b"response").unwrap();
    net::read_exactly(&mut client, 8).unwrap();
}

#[test]
fn idle_connections_are_as_long_idle_as_their_programs_let_them_be_on_both_sides() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let addresses = [IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6)];
    let plays = PLAYS.iter().flat_map(|play| addresses.map(|address| (play, address)));
    // All at once: they are pauses for the most part.
    let running: Vec<_> = plays
        .map(|((name, play), address)| {
            let listener = pair.server.listen("[::]:0");
            let port = net::port(&listener);
            let client = pair.client.connect((address, port)).unwrap();
            let server = net::accept(&listener);
            (*name, address, port, thread::spawn(move || (play(client, server), listener)))
        })
        .collect();
    for (name, address, port, play) in running {
        let (pauses, _listener) = play.join().expect("a play succeeds");
        let expected = [pauses.reuse, pauses.by_client, pauses.by_server];
        let counts = expected.map(|bounds| u64::from(bounds.is_some()));
        for role in ["client", "server"] {
            let of = |now: &Scrape| {
                let labels = &[
                    ("client", &*pair.client.service),
                    ("server", &*pair.server.service),
                    ("port", &port.to_string()),
                    ("role", role),
                ];
                let closed = |by| {
                    let labels = [labels, &[("closed_by", by)][..]].concat();
                    now.histogram("portolan_tcp_idle_close_seconds", &labels)
                };
                [
                    now.histogram("portolan_tcp_idle_reuse_seconds", labels),
                    closed("client"),
                    closed("server"),
                ]
            };
            let ended = |now: &Scrape| {
                let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
                (edge.active(), of(now).map(|histogram| histogram.count))
            };
            agent.eventually((0, counts), ended);
            for (found, bounds) in of(&agent.scrape()).into_iter().zip(expected) {
                let Some((least, most)) = bounds else { continue };
                let Histogram { sum, .. } = found;
                let fits = (least - UNIT..=most + UNIT).contains(&sum);
                assert!(fits, "{name}, {address}, {role}: {sum} is not in {bounds:?}");
            }
        }
    }
    agent.stop();
}

#[test]
fn a_keep_alive_mismatch_is_reported_before_the_first_reset() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let pool: Vec<(TcpStream, TcpStream)> = (0..3)
        .map(|_| {
            let client = pair.client.connect((pair.server.v4, port)).unwrap();
            (client, net::accept(&listener))
        })
        .collect();
    let used = || pool.iter().for_each(|(client, server)| exchange(client, server));
    used();
    thread::sleep(Duration::from_millis(600));
    used();
    thread::sleep(PAUSE);
    for (client, server) in pool {
        drop(server);
        net::read_to_end(&mut &client).unwrap();
    }
    let ends = (&*pair.client.service, &*pair.server.service);
    agent.eventually(0, |now| now.edge(ends.0, ends.1, port, "client").active());

    let timeouts = |arguments: &[&str]| {
        let mut command = Command::new(agent::binary());
        agent::forget_our_variables(&mut command);
        command.arg("timeouts").arg(ends.1).args(arguments);
        command.env("PORTOLAN_URL", format!("http://{}", agent.address));
        let output = command.output().expect("the agent's own binary runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("it prints text"))
    };
    let (code, json) = timeouts(&["--output", "json"]);
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    let edges = answer["edges"].as_array().expect("a list");
    let [edge] = &edges[..] else { panic!("not one edge: {answer:#}") };
    let facts = (&edge["verdict"], &edge["finding"]["code"], &edge["idle_reuse_resets"]);
    assert_eq!(facts, (&json!("mismatch"), &json!("PP231"), &json!(0)), "{answer:#}");
    assert_eq!(code, Some(0), "it was only asked");
    let (code, text) = timeouts(&["--exit-code"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("mismatch: resets ahead") && text.contains("fix: "), "{text}");
    agent.stop();
}
