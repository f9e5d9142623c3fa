//! Packet loss: retransmits are counted as the kernel counts them, and latency includes them.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::facts::Counters;
use crate::namespace::{Connection, Namespace, Pair};
use crate::net;
use crate::unseen::repeated;

/// Data that comes in to `port`, with a condition on top.
fn lose_data(at: &Namespace, port: u16, when: &str) {
    at.nft_input(&format!(
        "tcp dport {port} tcp flags & (syn | fin | rst) == 0 meta length > 100 {when} drop"
    ));
}

#[test]
fn retransmits_are_what_the_kernel_counts() {
    needs_kernel!();
    repeated(|| {
        const SIZE: usize = 1 << 20;
        let pair = Pair::new();
        let agent = Agent::start();
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        lose_data(&pair.server, port, "numgen random mod 20 == 0");
        let before = Counters::of(&pair.client);
        let reader = thread::spawn(move || {
            net::read_exactly(&mut server, SIZE).unwrap();
            server
        });
        // Small writes make many packets, so that many are lost.
        client.set_nodelay(true).unwrap();
        for chunk in vec![b'x'; SIZE].chunks(4096) {
            client.write_all(chunk).unwrap();
        }
        let server = reader.join().unwrap();
        let (c, s) = (&pair.client.service, &pair.server.service);
        // Still open. The last acknowledgement may be in flight, so the kernel's figure changes too.
        let retransmits = || Counters::of(&pair.client).since(&before, "TcpRetransSegs");
        let now = agent.eventually(true, |now| {
            let edge = now.edge(c, s, port, "client");
            edge.retransmits() > 0 && edge.retransmits() == retransmits()
        });
        assert_eq!(
            now.edge(c, s, port, "client").sent_bytes(),
            SIZE as u64,
            "repetitions are extra"
        );
        assert_eq!(now.edge(c, s, port, "server").received_bytes(), SIZE as u64);
        assert_eq!(now.edge(c, s, port, "server").retransmits(), 0);
        drop((client, server));
        agent.eventually(true, |now| {
            let edge = now.edge(c, s, port, "client");
            edge.active() == 0 && edge.retransmits() == retransmits()
        });
        agent.stop();
    });
}

#[test]
fn a_lost_syn_is_a_retransmit() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let before = Counters::of(&pair.client);
        pair.server.nft_input("tcp flags & (syn | ack) == syn numgen inc mod 1000 == 0 drop");
        let client = pair.client.connect((pair.server.v4, port)).unwrap();
        agent.eventually(1, |now| {
            now.edge(&pair.client.service, &pair.server.service, port, "client").retransmits()
        });
        assert_eq!(Counters::of(&pair.client).since(&before, "TcpRetransSegs"), 1);
        drop(client);
        agent.stop();
    });
}

#[test]
fn a_connect_that_fails_keeps_its_retransmits() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        pair.client.sysctl("ipv4/tcp_syn_retries", "1");
        let agent = Agent::start();
        let before = Counters::of(&pair.client);
        pair.server.nft_input("tcp flags & (syn | ack) == syn drop");
        pair.client.connect((pair.server.v4, 9)).unwrap_err();
        let sent_again = Counters::of(&pair.client).since(&before, "TcpRetransSegs");
        assert!(sent_again > 0);
        agent.eventually((1, sent_again), |now| {
            let edge = now.edges(&[("client", &pair.client.service), ("role", "client")]);
            (edge.all_connects(), edge.retransmits())
        });
        agent.stop();
    });
}

#[test]
fn request_latency_includes_the_wait_for_a_lost_request() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        net::patient(&client);
        let work = thread::spawn(move || net::answer(&mut server, 500, 500, Duration::ZERO));
        // An exchange without loss first.
        net::ask(&mut client, 500, 500).unwrap();
        // The request and its first repetition are lost.
        lose_data(&pair.server, port, "limit rate 2/hour burst 2 packets");
        let began = Instant::now();
        net::ask(&mut client, 500, 500).unwrap();
        let waited = began.elapsed().as_secs_f64();
        let (c, s) = (&pair.client.service, &pair.server.service);
        let now = agent.eventually((2, 2), |now| {
            let count = |role| now.edge(c, s, port, role).requests().count;
            (count("client"), count("server"))
        });
        let client_saw = now.edge(c, s, port, "client").requests().sum;
        assert!(waited > 0.2, "two losses take a timeout: {waited} s");
        assert!(
            client_saw >= waited * 0.8,
            "{client_saw} s of the {waited} s that the program waited"
        );
        // The server never saw the segments that the network lost.
        assert!(now.edge(c, s, port, "server").requests().sum < waited * 0.8);
        drop(client);
        work.join().unwrap().unwrap();
        agent.stop();
    });
}

#[test]
fn request_latency_includes_the_wait_for_a_lost_response() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        net::patient(&client);
        let work = thread::spawn(move || net::answer(&mut server, 500, 500, Duration::ZERO));
        pair.client.nft_input(&format!(
            "tcp sport {port} meta length > 100 limit rate 2/hour burst 2 packets drop"
        ));
        let began = Instant::now();
        net::ask(&mut client, 500, 500).unwrap();
        let waited = began.elapsed().as_secs_f64();
        let (c, s) = (&pair.client.service, &pair.server.service);
        let now = agent.eventually((1, 1), |now| {
            let count = |role| now.edge(c, s, port, role).requests().count;
            (count("client"), count("server"))
        });
        let saw = now.edge(c, s, port, "client").requests().sum;
        assert!(waited > 0.2 && saw >= waited * 0.8 && saw <= waited, "{saw} s of {waited} s");
        assert!(now.edge(c, s, port, "server").retransmits() >= 2, "the server sent it again");
        drop(client);
        work.join().unwrap().unwrap();
        agent.stop();
    });
}
