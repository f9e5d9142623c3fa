//! Retransmission timeouts, segments received twice, and how long senders are limited by a window or
//! a buffer. `TCP_INFO` of the sockets is the truth.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::agent::Agent;
use crate::facts::{self, Counters};
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::phases::{losing, until_sent_again};
use crate::queues::fill;
use crate::scrape::Scrape;
use crate::tcp_info::TcpInfo;
use crate::unseen::repeated;

const LIMITED: &str = "portolan_tcp_limited_seconds_total";

/// What the agent has counted of a side, as `TCP_INFO` would have it.
fn counted(now: &Scrape, pair: &Pair, port: u16, role: &str) -> TcpInfo {
    let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
    let limited_us = |by| (edge.number(LIMITED, &[("by", by)]) * 1e6).round() as u64;
    TcpInfo {
        receive_window_us: limited_us("receive_window"),
        send_buffer_us: limited_us("send_buffer"),
        dsacks: edge.gauge("portolan_tcp_dsacks_total"),
        timeouts: edge.gauge("portolan_tcp_rto_total"),
    }
}

/// The default, and one in which nothing is collected while a connection lives.
const INTERVALS: [&str; 2] = ["1s", "60s"];

/// The acknowledgements of a request are lost, until the client has sent it again after a timeout.
#[test]
fn timeouts_and_unnecessary_retransmits_are_what_the_kernel_counts() {
    needs_kernel!();
    repeated(|| {
        for interval in INTERVALS {
            let pair = Pair::new();
            let agent = Agent::with(&[("collection_interval", interval)]);
            let Connection { listener: _listener, port, mut client, mut server } =
                pair.connection();
            let before = Counters::of(&pair.client);
            losing(&pair.client, &format!("tcp sport {port}"), || {
                client.write_all(&[b'q'; 500]).unwrap();
                until_sent_again(&pair.client, &before);
                // The first repetition may be a probe for lost tails; a timeout follows.
                thread::sleep(Duration::from_secs(1));
            });
            // The next repetition is answered.
            let began = Instant::now();
            while TcpInfo::of(&client).dsacks == 0 {
                assert!(began.elapsed() < Duration::from_secs(10), "the server had nothing twice");
                thread::sleep(Duration::from_millis(5));
            }
            net::read_exactly(&mut server, 500).unwrap();
            server.write_all(&[b'a'; 500]).unwrap();
            net::read_exactly(&mut client, 500).unwrap();
            thread::sleep(Duration::from_secs(1));
            let truth = TcpInfo::of(&client);
            println!("{truth:?}");
            assert!(truth.timeouts > 0 || facts::kernel_is_before(6, 7), "no timer ran out");
            drop(client);
            drop(server);
            let now = agent.eventually(truth, |now| counted(now, &pair, port, "client"));
            assert_eq!(counted(&now, &pair, port, "server"), TcpInfo::default());
            agent.stop();
        }
    });
}

/// Also a connect that failed, which no connection reports.
#[test]
fn an_unanswered_connect_has_its_timeouts() {
    needs_kernel!();
    repeated(|| {
        if facts::kernel_is_before(6, 7) {
            println!("SKIPPED: this kernel does not count timeouts");
            return;
        }
        let pair = Pair::new();
        let agent = Agent::start();
        pair.client.sysctl("ipv4/tcp_syn_retries", "1");
        pair.server.nft_input("tcp dport 7001 drop");
        let socket = pair.client.begin_connect((pair.server.v4, 7001).into());
        let began = Instant::now();
        let errno = loop {
            if let Some(error) = socket.take_error().unwrap() {
                break error.raw_os_error();
            }
            assert!(began.elapsed() < Duration::from_secs(20), "the connect goes on");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(errno, Some(libc::ETIMEDOUT));
        let labels = [("client", pair.client.service.as_str()), ("port", "7001")];
        agent.eventually(1, |now| now.edges(&labels).connects("timeout"));
        let truth = TcpInfo::of(&socket.into()).timeouts;
        assert!(truth > 0, "no timer ran out");
        agent.eventually(truth, |now| now.edges(&labels).gauge("portolan_tcp_rto_total"));
        agent.stop();
    });
}

#[test]
fn a_reader_that_does_not_read_limits_the_sender() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        let written = fill(&mut client);
        // It goes on while the window is closed, and every look at it shows more.
        for _ in 0..3 {
            let before = TcpInfo::of(&client).receive_window_us;
            assert!(before > 0, "the window is open");
            let now = agent.scrape();
            let seen = counted(&now, &pair, port, "client").receive_window_us;
            let after = TcpInfo::of(&client).receive_window_us;
            assert!(before <= seen && seen <= after, "{seen} µs, between {before} and {after}");
            thread::sleep(Duration::from_millis(300));
        }
        net::read_exactly(&mut server, written as usize).unwrap();
        thread::sleep(Duration::from_millis(300));
        let truth = TcpInfo::of(&client);
        let now = agent.eventually(truth, |now| counted(now, &pair, port, "client"));
        assert_eq!(counted(&now, &pair, port, "server"), TcpInfo::default());
        drop((client, server));
        let active = |now: &Scrape| now.edges(&[("server", &pair.server.service)]).active();
        let now = agent.eventually(0, active);
        assert_eq!(counted(&now, &pair, port, "client"), truth, "the end adds nothing");
        agent.stop();
    });
}

/// A program that gives up while the window is closed; nothing is collected before.
#[test]
fn a_limit_that_ends_with_the_connection_counts_to_its_end() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::with(&[("collection_interval", "60s")]);
        let Connection { listener: _listener, port, mut client, server: _server } =
            pair.connection();
        fill(&mut client);
        thread::sleep(Duration::from_secs(1));
        let (least, began) = (TcpInfo::of(&client).receive_window_us, Instant::now());
        assert!(least > 0, "the window is open");
        net::close_with_reset(client);
        let most = least + began.elapsed().as_micros() as u64 + 20_000;
        agent.eventually(true, |now| {
            let seen = counted(now, &pair, port, "client").receive_window_us;
            least <= seen && seen <= most
        });
        agent.stop();
    });
}

/// Sets how many bytes a second a connection sends at most (`SO_MAX_PACING_RATE`, socket(7)).
fn pace(stream: &TcpStream, rate: u32) {
    // SAFETY: the descriptor is open, and the option's value is the number that is passed.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const rate).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_small_send_buffer_limits_the_sender() {
    needs_kernel!();
    repeated(|| {
        const SIZE: usize = 300_000;
        const CONNECTIONS: usize = 4;
        for interval in INTERVALS {
            let pair = Pair::new();
            let agent = Agent::with(&[("collection_interval", interval)]);
            let listener = pair.server.listen((pair.server.v4, 0));
            let port = net::port(&listener);
            // A queue that lets an acknowledgement through every 8 ms.
            if !pair.server.tc("qdisc add dev veth0 root tbf rate 64kbit burst 300 latency 400ms") {
                println!("SKIPPED: this kernel has no tbf");
                return;
            }
            // A paced sender still sends while its program waits for room, and when everything is sent
            // the stack finds the buffer too small, unless acknowledgements have made room meanwhile. Of
            // many connections that is so for some.
            let mut truth = TcpInfo::default();
            for _ in 0..10 {
                let (clients, servers): (Vec<_>, Vec<_>) = (0..CONNECTIONS)
                    .map(|_| {
                        let client = pair.client.connect((pair.server.v4, port)).unwrap();
                        SockRef::from(&client).set_send_buffer_size(4096).unwrap();
                        pace(&client, 200_000);
                        (client, net::accept(&listener))
                    })
                    .unzip();
                thread::scope(|scope| {
                    for mut server in servers {
                        scope.spawn(move || net::read_exactly(&mut server, SIZE).unwrap());
                    }
                    for mut client in &clients {
                        scope.spawn(move || client.write_all(&vec![b'x'; SIZE]).unwrap());
                    }
                });
                thread::sleep(Duration::from_millis(300));
                truth = clients.iter().map(TcpInfo::of).fold(truth, |sum, of| sum + of);
                if truth.send_buffer_us > 0 {
                    break;
                }
            }
            println!("{truth:?}");
            assert!(truth.send_buffer_us > 0, "the buffer was large enough");
            agent.eventually(truth, |now| counted(now, &pair, port, "client"));
            agent.stop();
        }
    });
}

/// What a connection has behind it when the agent comes is not the agent's to count.
#[test]
fn of_a_preexisting_connection_only_what_comes_counts() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        let written = fill(&mut client);
        net::read_exactly(&mut server, written as usize).unwrap();
        thread::sleep(Duration::from_millis(300));
        let old = TcpInfo::of(&client).receive_window_us;
        assert!(old > 0, "the window was never closed");
        let agent = Agent::start();
        let port = port.to_string();
        let labels = [("port", port.as_str()), ("role", "client")];
        agent.eventually(1, |now| now.edges(&labels).preexisting());
        let written = fill(&mut client);
        thread::sleep(Duration::from_secs(1));
        net::read_exactly(&mut server, written as usize).unwrap();
        thread::sleep(Duration::from_millis(300));
        let new = TcpInfo::of(&client).receive_window_us - old;
        assert!(new >= 900_000, "the window was open");
        agent.eventually(new, |now| {
            (now.edges(&labels).number(LIMITED, &[("by", "receive_window")]) * 1e6).round() as u64
        });
        agent.stop();
    });
}
