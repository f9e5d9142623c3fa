//! The socket iteration: figures of connections and listeners while they are open.

use std::io::Write as _;
use std::net::SocketAddr;
use std::thread;

use socket2::Socket;

use crate::agent::Agent;
use crate::facts::{self, Counters};
use crate::namespace::{Connection, Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

#[test]
fn bytes_of_an_open_connection_are_those_that_were_sent() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    let (mut up, mut down) = (0u64, 0u64);
    // (sent by the client, received by the server, sent by the server, received by the client)
    let bytes = |now: &Scrape| {
        let edge = |role| now.edge(&pair.client.service, &pair.server.service, port, role);
        let (a, b) = (edge("client"), edge("server"));
        (a.sent_bytes(), b.received_bytes(), b.sent_bytes(), a.received_bytes())
    };
    for size in [1usize, 1000, 65_536, 1_000_003] {
        let writer = thread::scope(|scope| {
            let reader = scope.spawn(|| net::read_exactly(&mut server, size));
            client.write_all(&vec![b'u'; size]).unwrap();
            reader.join()
        });
        writer.unwrap().unwrap();
        up += size as u64;
        agent.eventually((up, up, down, down), bytes);
        let half = size / 2;
        thread::scope(|scope| {
            let reader = scope.spawn(|| net::read_exactly(&mut client, half));
            server.write_all(&vec![b'd'; half]).unwrap();
            reader.join()
        })
        .unwrap()
        .unwrap();
        down += half as u64;
        agent.eventually((up, up, down, down), bytes);
    }
    // Closing adds nothing: a FIN carries no bytes.
    drop((client, server));
    let active = |now: &Scrape| now.edges(&[("server", &pair.server.service)]).active();
    let now = agent.eventually(0, active);
    assert_eq!(bytes(&now), (up, up, down, down));
    agent.stop();
}

#[test]
fn what_a_full_window_holds_back_is_not_sent_yet() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    // The server does not read: its window closes, then the client's buffer fills.
    client.set_nonblocking(true).unwrap();
    let chunk = vec![b'x'; 65_536];
    let mut written = 0u64;
    let mut still = 0;
    while still < 20 {
        if let Ok(length) = client.write(&chunk) {
            written += length as u64;
            still = 0;
        } else {
            // Full: give the stack time to move what it can.
            still += 1;
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    let edge = |now: &Scrape, role| {
        let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
        (edge.sent_bytes(), edge.received_bytes())
    };
    let now = agent.eventually(true, |now| edge(now, "client").0 == edge(now, "server").1);
    let sent = edge(&now, "client").0;
    assert!(sent > 0 && sent < written, "{sent} of {written} bytes went out");
    net::read_exactly(&mut server, written as usize).unwrap();
    agent.eventually((written, written), |now| (edge(now, "client").0, edge(now, "server").1));
    agent.stop();
}

#[test]
fn round_trip_times_are_the_kernels_own() {
    needs_kernel!();
    let pair = Pair::new();
    // Between scrapes there is no periodic collection, so that one scrape is one sample.
    let agent = Agent::with(&[("collection_interval", "60s")]);
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    let rtt =
        |now: &Scrape| now.edge(&pair.client.service, &pair.server.service, port, "client").rtt();
    let before = rtt(&agent.scrape());
    // A queue that lets 4 Mbit/s through: data written at once waits there.
    if !pair.client.tc("qdisc add dev veth0 root tbf rate 4mbit burst 3200 latency 400ms") {
        println!("SKIPPED: this kernel has no tbf");
        return;
    }
    client.write_all(&vec![b'x'; 60_000]).unwrap();
    net::read_exactly(&mut server, 60_000).unwrap();
    let seen = |filter: &str| {
        let said = facts::socket_statistics(&pair.client, filter);
        let word = said.split_whitespace().find_map(|word| word.strip_prefix("rtt:"));
        let rtt = word.unwrap_or_else(|| panic!("no round trip time: {said}"));
        rtt.split('/').next().unwrap().parse::<f64>().unwrap() / 1000.0
    };
    // The last acknowledgements arrive: the figure stands still once all are here.
    let filter = format!("dport = :{port}");
    while facts::socket_statistics(&pair.client, &filter).contains("unacked:") {
        thread::yield_now();
    }
    let truth = seen(&filter);
    let after = rtt(&agent.scrape());
    assert_eq!(after.count, before.count + 1, "a new sample, once");
    let sample = after.sum - before.sum;
    assert!((sample - truth).abs() <= 2e-6, "{sample} s, and ss says {truth} s");
    assert!(sample >= 0.003, "the queue shows: {sample} s");
    // Nothing new has happened since.
    assert_eq!(rtt(&agent.scrape()).count, after.count);
    agent.stop();
}

/// A listener with room for `backlog` + 1 connections that are not accepted.
fn narrow(server: &Namespace, backlog: i32) -> (Socket, u16) {
    let address = SocketAddr::from((server.v4, 0));
    let socket = server.act(|| {
        let socket = net::socket_for(&address);
        socket.bind(&address.into()).unwrap();
        socket.listen(backlog).unwrap();
        socket
    });
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[test]
fn a_full_accept_queue_is_counted_as_the_kernel_counts_it() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (listener, port) = narrow(&pair.server, 1);
    let before = Counters::of(&pair.server);
    let address = SocketAddr::from((pair.server.v4, port));
    let waiting: Vec<_> = (0..8).map(|_| pair.client.begin_connect(address)).collect();
    let port_label = port.to_string();
    let labels = [("service", pair.server.service.as_str()), ("port", &port_label)];
    let overflows = |now: &Scrape| now.sum("portolan_listen_overflows_total", &labels);
    // Clients retry every second, so the figures change until all have gone.
    agent.eventually(true, |now| overflows(now) > 0);
    let now = agent.scrape();
    assert_eq!(now.sum("portolan_listen_backlog", &labels), 2, "the queue has room for two");
    assert_eq!(now.sum("portolan_listen_backlog_max", &labels), 1);
    drop(waiting);
    let kernel = |name| Counters::of(&pair.server).since(&before, name);
    agent.eventually(true, |now| overflows(now) == kernel("TcpExtListenDrops"));
    assert_eq!(kernel("TcpExtListenDrops"), kernel("TcpExtListenOverflows"), "nothing else");
    // And the count outlives the listener.
    let last = kernel("TcpExtListenDrops");
    drop(listener);
    agent
        .eventually((last, 0), |now| (overflows(now), now.sum("portolan_port_listeners", &labels)));
    agent.stop();
}

#[test]
fn the_list_of_listeners_shows_backlogs() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (listener, port) = narrow(&pair.server, 7);
    let open: Vec<_> =
        (0..3).map(|_| pair.client.connect((pair.server.v4, port)).unwrap()).collect();
    let labels = [("service", pair.server.service.as_str())];
    agent.eventually((1, 3, 7), |now| {
        let sum = |name| now.sum(name, &labels);
        let backlog = sum("portolan_listen_backlog");
        (sum("portolan_port_listeners"), backlog, sum("portolan_listen_backlog_max"))
    });
    let all = agent.json("/api/v1/listeners");
    let ours: Vec<_> = all["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["service"] == pair.server.service.as_str())
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(ours[0]["address"], pair.server.v4.to_string());
    assert_eq!(ours[0]["port"], port);
    assert_eq!(ours[0]["netns"], pair.server.inode());
    drop((open, listener));
    agent.eventually(0, |now| now.sum("portolan_port_listeners", &labels));
    agent.stop();
}
