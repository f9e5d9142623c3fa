//! Requests without an answer: which ends of a connection leave one behind, on either side. The test
//! plays both programs, so it knows.

mod plays;

use std::io::Write as _;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use self::plays::{PLAYS, WAIT, asks, exchange};
use crate::agent::Agent;
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::restart::PrivateBpf;
use crate::scrape::Scrape;

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
    // All are kept open, so that no two plays have the same port.
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
    // Too late for either side.
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
