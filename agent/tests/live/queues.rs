//! What is stuck: data that nobody reads, data that is not acknowledged, and connections that only
//! the peer has closed. `FIONREAD` and `TIOCOUTQ` of the sockets are the truth.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::scrape::Scrape;
use crate::tcp_info::{unacknowledged, unread};

/// Receive queue, send queue.
fn queues(now: &Scrape, pair: &Pair, port: u16, role: &str) -> (u64, u64) {
    let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
    (edge.gauge("portolan_tcp_receive_queue_bytes"), edge.gauge("portolan_tcp_send_queue_bytes"))
}

/// Writes until nothing more goes in; returns how much did.
pub fn fill(stream: &mut TcpStream) -> u64 {
    stream.set_nonblocking(true).unwrap();
    let (chunk, mut written, mut still) = (vec![b'x'; 65_536], 0, 0);
    while still < 20 {
        if let Ok(length) = stream.write(&chunk) {
            written += length as u64;
            still = 0;
        } else {
            // Full: the stack gets time to move what it can.
            still += 1;
            thread::sleep(Duration::from_millis(5));
        }
    }
    stream.set_nonblocking(false).unwrap();
    written
}

#[test]
fn what_nobody_reads_is_in_the_queues_of_both_sides() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener, port, mut client, mut server } = pair.connection();
    // Another connection of the edge, whose queues add up with those of the first.
    let mut second = pair.client.connect((pair.server.v4, port)).unwrap();
    let mut accepted = net::accept(&listener);
    second.write_all(&[b'q'; 777]).unwrap();
    agent.eventually((777, 0), |now| queues(now, &pair, port, "server"));
    let written = fill(&mut client);
    let now = agent.eventually(true, |now| {
        let (at_server, at_client) =
            (queues(now, &pair, port, "server"), queues(now, &pair, port, "client"));
        at_server == (unread(&server) + 777, 0) && at_client == (0, unacknowledged(&client))
    });
    let (unread_now, sending) =
        (queues(&now, &pair, port, "server").0, queues(&now, &pair, port, "client").1);
    assert!(sending > 0 && unread_now + sending == written + 777, "{unread_now} and {sending}");
    let edges = agent.json("/api/v1/edges?role=server");
    let edge = edges["edges"].as_array().unwrap().iter().find(|edge| edge["port"] == port).unwrap();
    assert_eq!(
        (&edge["receive_queue_bytes"], &edge["close_wait"]),
        (&unread_now.into(), &0.into())
    );

    // A FIN is not a byte: neither unread nor unacknowledged.
    second.shutdown(Shutdown::Write).unwrap();
    net::read_exactly(&mut server, written as usize).unwrap();
    agent.eventually(((777, 0), (0, 0)), |now| {
        (queues(now, &pair, port, "server"), queues(now, &pair, port, "client"))
    });
    assert_eq!(net::read_to_end(&mut accepted).unwrap(), 777);
    agent.eventually(((0, 0), (0, 0)), |now| {
        (queues(now, &pair, port, "server"), queues(now, &pair, port, "client"))
    });

    // What was not read when the connection ends waits no more.
    server.write_all(&[b'a'; 99]).unwrap();
    agent.eventually((99, 0), |now| queues(now, &pair, port, "client"));
    drop((client, server, second, accepted));
    agent.eventually(((0, 0), 0), |now| {
        let active = now.edges(&[("server", &pair.server.service)]).active();
        (queues(now, &pair, port, "client"), active)
    });
    agent.stop();
}

/// Waits for more than a minute, because the kernel half's clock is the real one.
#[test]
fn a_connection_that_only_the_peer_has_closed_is_a_leak_after_a_minute() {
    needs_kernel!();
    const MINUTE: Duration = Duration::from_mins(1);
    let pair = Pair::new();
    let agent = Agent::start();
    let leaks = |now: &Scrape, role, port: u16| {
        let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
        edge.gauge("portolan_tcp_close_wait_connections")
    };
    let by_server = pair.connection();
    let listener = pair.server.listen((pair.server.v6, 0));
    let v6_port = net::port(&listener);
    let leaking = pair.client.connect((pair.server.v6, v6_port)).unwrap();
    // One side closes, and the program of the other does not care.
    let began = Instant::now();
    by_server.client.shutdown(Shutdown::Write).unwrap();
    drop(net::accept(&listener));
    agent.scrape();
    let seen = Instant::now();
    // Another one of the server's, half a minute later; and one that stays open.
    thread::sleep(MINUTE / 2);
    let young = pair.client.connect((pair.server.v4, by_server.port)).unwrap();
    let held = net::accept(&by_server.listener);
    young.shutdown(Shutdown::Write).unwrap();
    let open = pair.client.connect((pair.server.v4, by_server.port)).unwrap();
    let also_open = net::accept(&by_server.listener);
    let all = |now: &Scrape| {
        [by_server.port, v6_port]
            .map(|port| (leaks(now, "server", port), leaks(now, "client", port)))
    };
    let now = agent.scrape();
    assert!(began.elapsed() < MINUTE, "too slow to see it before the minute is over");
    assert_eq!(all(&now), [(0, 0), (0, 0)], "after {:?}", began.elapsed());
    thread::sleep(MINUTE.saturating_sub(seen.elapsed()));
    agent.eventually([(1, 0), (0, 1)], all);
    drop((by_server.server, leaking));
    agent.eventually([(0, 0), (0, 0)], all);
    drop((young, held, open, also_open));
    agent.stop();
}
