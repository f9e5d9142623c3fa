//! Requests without an answer: which ends of a connection leave one behind, on either side. The test
//! plays both programs, so it knows.

use std::io::Write as _;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::agent::Agent;
use crate::holder::Holder;
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::restart::PrivateBpf;
use crate::scrape::Scrape;

/// Longer than a program takes between its last message and the close.
const WAIT: Duration = Duration::from_millis(80);
/// Longer than a pause within a request.
const SILENCE: Duration = Duration::from_millis(150);

/// What the two programs do, with the client's end and the server's. `false`: this machine was too
/// busy for what the play is about.
type Play = fn(TcpStream, TcpStream) -> bool;

/// A play, and how many requests it leaves without an answer, as client and server see it.
const PLAYS: &[(&str, Play, (u64, u64))] = &[
    (
        "the client gives up",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client gives up, and the server has never read the request",
        |client, _server| {
            (&client).write_all(b"request").unwrap();
            thread::sleep(WAIT);
            drop(client);
            true
        },
        (1, 1),
    ),
    (
        "the client gives up with a reset",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            net::close_with_reset(client);
            net::read_to_end(&mut &server).unwrap_err();
            true
        },
        (1, 1),
    ),
    (
        "the server answers a client that gave up",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            (&server).write_all(b"too late").unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client gives up the second request",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(WAIT);
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client gives up with a last message",
        |client, server| {
            exchange(&client, &server);
            asks(&client, &server);
            thread::sleep(SILENCE);
            // As on a network, where no acknowledgement is back when the client closes.
            SockRef::from(&server).set_tcp_quickack(false).unwrap();
            (&client).write_all(b"close_notify").unwrap();
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server closes instead of an answer",
        |client, server| {
            asks(&client, &server);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server closes instead of the second answer",
        |client, server| {
            exchange(&client, &server);
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server closes without having read the request",
        |client, server| {
            exchange(&client, &server);
            (&client).write_all(b"request").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap_err();
            true
        },
        (1, 1),
    ),
    (
        "the server resets",
        |client, server| {
            asks(&client, &server);
            net::close_with_reset(server);
            net::read_to_end(&mut &client).unwrap_err();
            true
        },
        (1, 1),
    ),
    (
        "the client's process is killed while it waits",
        |client, server| {
            asks(&client, &server);
            let holder = Holder::new("holds-a-client", vec![OwnedFd::from(client)]);
            thread::sleep(WAIT);
            drop(holder);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server's process is killed while it works",
        |client, server| {
            asks(&client, &server);
            drop(Holder::new("holds-a-server", vec![OwnedFd::from(server)]));
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client takes its leave",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(SILENCE);
            let at_once = sends_and_closes(client, b"QUIT\r\n");
            net::read_to_end(&mut &server).unwrap();
            at_once
        },
        (0, 0),
    ),
    (
        "the client takes its leave, and the server does not read it",
        |client, server| {
            exchange(&client, &server);
            let at_once = sends_and_closes(client, b"QUIT\r\n");
            drop(server);
            at_once
        },
        (0, 0),
    ),
    (
        "the client takes its leave when the server has closed",
        |client, server| {
            exchange(&client, &server);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            sends_and_closes(client, b"QUIT\r\n")
        },
        (0, 0),
    ),
    (
        "the client takes its leave, and the server is the first to close",
        |client, server| {
            exchange(&client, &server);
            let began = Instant::now();
            (&client).write_all(b"QUIT\r\n").unwrap();
            net::read_exactly(&mut &server, 6).unwrap();
            drop(server);
            let at_once = began.elapsed() < WAIT / 4;
            net::read_to_end(&mut &client).unwrap();
            at_once
        },
        (0, 0),
    ),
    (
        "the client closes an idle connection",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the server closes an idle connection",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(WAIT);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the client closes its half, and is answered",
        |client, server| {
            asks(&client, &server);
            client.shutdown(Shutdown::Write).unwrap();
            net::read_to_end(&mut &server).unwrap();
            thread::sleep(WAIT);
            (&server).write_all(b"response").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the client waits, closes its half, and is answered",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            client.shutdown(Shutdown::Write).unwrap();
            net::read_to_end(&mut &server).unwrap();
            (&server).write_all(b"response").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the response comes with the FIN",
        |client, server| {
            asks(&client, &server);
            SockRef::from(&server).set_tcp_cork(true).unwrap();
            (&server).write_all(b"response").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the client sends its metrics and closes",
        |client, server| {
            let at_once = sends_and_closes(client, &[b'm'; 5000]);
            assert_eq!(net::read_to_end(&mut &server).unwrap(), 5000);
            at_once
        },
        (0, 0),
    ),
    (
        "the client sends much and closes",
        |client, server| {
            const SIZE: usize = 8 << 20;
            let writer = thread::spawn(move || {
                (&client).write_all(&vec![b'm'; SIZE - 5000]).unwrap();
                sends_and_closes(client, &[b'm'; 5000])
            });
            assert_eq!(net::read_to_end(&mut &server).unwrap(), SIZE as u64);
            writer.join().unwrap()
        },
        (0, 0),
    ),
    (
        "the client sends lines, and is killed",
        |client, server| sends_lines(client, server, true),
        (0, 0),
    ),
    (
        "the client sends lines, and the server restarts",
        |client, server| sends_lines(client, server, false),
        (0, 0),
    ),
    (
        "the server speaks first, and the client leaves",
        |client, server| {
            (&server).write_all(b"220 ready").unwrap();
            net::read_exactly(&mut &client, 9).unwrap();
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (0, 0),
    ),
];

/// The client sends a request, and the server reads it.
fn asks(mut client: &TcpStream, mut server: &TcpStream) {
    client.write_all(b"request").unwrap();
    net::read_exactly(&mut server, 7).unwrap();
}

/// A request and its response.
fn exchange(mut client: &TcpStream, mut server: &TcpStream) {
    asks(client, server);
    server.write_all(b"response").unwrap();
    net::read_exactly(&mut client, 8).unwrap();
}

/// The client of a log server, which nobody answers.
fn sends_lines(client: TcpStream, server: TcpStream, ended_by_client: bool) -> bool {
    for _ in 0..9 {
        (&client).write_all(b"a line\n").unwrap();
        net::read_exactly(&mut &server, 7).unwrap();
        thread::sleep(SILENCE);
    }
    let (first, last) = if ended_by_client { (client, server) } else { (server, client) };
    drop(first);
    net::read_to_end(&mut &last).unwrap();
    true
}

/// A client's last message and its close. Whether there was no time between them.
fn sends_and_closes(client: TcpStream, message: &[u8]) -> bool {
    let began = Instant::now();
    (&client).write_all(message).unwrap();
    drop(client);
    began.elapsed() < WAIT / 4
}

/// Open connections and unanswered requests, of client and server.
fn counted(now: &Scrape, pair: &Pair, port: u16) -> (u64, u64, (u64, u64)) {
    let [client, server] = ["client", "server"]
        .map(|role| now.edge(&pair.client.service, &pair.server.service, port, role));
    (client.active(), server.active(), (client.unanswered(), server.unanswered()))
}

#[test]
fn an_open_request_at_the_end_of_a_connection_counts_on_both_sides() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    // All are kept, so that no two plays have the same port.
    let mut listeners = Vec::new();
    for (what, play, expected) in PLAYS {
        for address in [IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6)] {
            // While it exists, the client knows its server by name.
            let port = loop {
                let listener = pair.server.listen("[::]:0");
                let port = net::port(&listener);
                let client = pair.client.connect((address, port)).unwrap();
                let server = net::accept(&listener);
                listeners.push(listener);
                if play(client, server) {
                    break port;
                }
            };
            agent.eventually((*what, address, (0, 0, *expected)), |now| {
                (*what, address, counted(now, &pair, port))
            });
        }
    }
    agent.stop();
}

#[test]
fn every_one_of_many_unanswered_requests_counts_and_nothing_else() {
    needs_kernel!();
    const CONNECTIONS: u64 = 240;
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("[::]:0");
    let port = net::port(&listener);
    let (mut answered, mut unanswered) = (0, 0);
    for i in 0..CONNECTIONS {
        let client = pair.client.connect((pair.server.v4, port)).unwrap();
        let server = net::accept(&listener);
        for _ in 0..i % 3 {
            exchange(&client, &server);
            answered += 1;
        }
        if i % 4 == 0 {
            asks(&client, &server);
            unanswered += 1;
            thread::sleep(WAIT);
            if i % 8 == 0 {
                drop((client, server));
            } else {
                drop((server, client));
            }
        }
    }
    agent.eventually(((0, 0, (unanswered, unanswered)), answered, answered), |now| {
        let [client, server] = ["client", "server"]
            .map(|role| now.edge(&pair.client.service, &pair.server.service, port, role));
        (counted(now, &pair, port), client.requests().count, server.requests().count)
    });
    agent.stop();
}

/// A stuck server: its program never learns that the client is gone.
#[test]
fn a_server_that_keeps_its_side_open_is_counted_once() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, client, server } = pair.connection();
    asks(&client, &server);
    thread::sleep(WAIT);
    drop(client);
    agent.eventually((0, 1, (1, 0)), |now| counted(now, &pair, port));
    thread::sleep(Duration::from_secs(5));
    agent.eventually((0, 1, (1, 1)), |now| counted(now, &pair, port));
    // Too late for everybody.
    (&server).write_all(b"response").unwrap();
    drop(server);
    let now = agent.eventually((0, 0, (1, 1)), |now| counted(now, &pair, port));
    let edge = now.edge(&pair.client.service, &pair.server.service, port, "server");
    assert_eq!(edge.requests().count, 0);
    agent.stop();
}

#[test]
fn a_request_on_a_connection_from_before_the_agent_counts() {
    needs_kernel!();
    let pair = Pair::new();
    let Connection { listener: _listener, port, client, server } = pair.connection();
    exchange(&client, &server);
    let agent = Agent::start();
    // Both ends belong to this process, which had no other name when the agent looked.
    let port = port.to_string();
    let counted = |now: &Scrape| {
        ["client", "server"].map(|role| {
            let edge = now.edges(&[("port", &port), ("role", role)]);
            (edge.active(), edge.unanswered())
        })
    };
    agent.eventually([(1, 0); 2], counted);
    asks(&client, &server);
    thread::sleep(WAIT);
    drop((client, server));
    agent.eventually([(0, 1); 2], counted);
    agent.stop();
}

#[test]
fn what_ends_while_no_agent_runs_counts_with_pins() {
    needs_kernel!();
    let (pair, bpf, run) = (Pair::new(), PrivateBpf::new(), tempfile::tempdir().unwrap());
    let start = bpf.start(run.path().to_str().unwrap(), "true");
    let agent = Agent::launch(&start);
    let Connection { listener: _listener, port, client, server } = pair.connection();
    exchange(&client, &server);
    agent.eventually((1, 1, (0, 0)), |now| counted(now, &pair, port));
    asks(&client, &server);
    agent.kill();
    thread::sleep(WAIT);
    drop((client, server));
    let agent = Agent::launch(&start);
    agent.eventually((0, 0, (1, 1)), |now| counted(now, &pair, port));
    agent.stop();
}

#[test]
fn without_hooks_that_note_responses_no_request_is_unanswered() {
    needs_kernel!();
    let pair = Pair::new();
    for setting in [("requests", "false"), ("disable_hooks", "sk_data_ready")] {
        let agent = Agent::with(&[setting]);
        let Connection { listener: _listener, port, client, server } = pair.connection();
        exchange(&client, &server);
        thread::sleep(WAIT);
        drop((client, server));
        agent.eventually((1, (0, 0, (0, 0))), |now| {
            let client = now.edge(&pair.client.service, &pair.server.service, port, "client");
            (client.connects("ok"), counted(now, &pair, port))
        });
        agent.stop();
    }
}
