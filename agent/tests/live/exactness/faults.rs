//! Faults: refused and lost packets, resets; the books must still balance.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Between, Books, Watcher, equal, equal_bytes, free_port_in};
use crate::agent::Agent;
use crate::facts::{Counters, patience};
use crate::namespace::Pair;
use crate::{net, unseen};

/// Drops one packet in `every` on arrival; and rejects every 61st before it leaves, which its socket
/// sees, so that it writes the segment again without counting a retransmit.
fn loss(every: u32) -> String {
    format!(
        "table inet loss {{
            chain arriving {{
                type filter hook input priority 0;
                meta l4proto tcp numgen random mod {every} == 0 drop
            }}
            chain leaving {{
                type filter hook output priority 0;
                meta l4proto tcp numgen inc mod 61 == 0 drop
            }}
        }}"
    )
}

#[test]
fn every_refused_connect_is_an_attempt_that_failed() {
    needs_kernel!();
    const ATTEMPTS: u64 = 200;
    let pair = Pair::new();
    let agent = Agent::start();
    let books = Books::open(&pair, &agent);
    let port = free_port_in(&pair.server);
    let address = SocketAddr::from((pair.server.v4, port));
    Watcher::during(&agent, || {
        pair.client.act(|| {
            for _ in 0..ATTEMPTS {
                let error =
                    std::net::TcpStream::connect(address).expect_err("there is no listener");
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            }
        });
    });
    let server = pair.server.v4.to_string();
    let between = Between { client: &pair.client.service, server: &server, port };
    let settled = books.close(&pair, &agent, between);
    assert_eq!(settled.connects, 0);
    let now = agent.scrape();
    let edge = now.edge(&pair.client.service, &server, port, "client");
    equal("refused", edge.connects("refused"), ATTEMPTS, settled.slack);
    equal("received resets", edge.resets("received", "no_listener"), ATTEMPTS, settled.slack);
    agent.stop();
}

#[test]
fn retransmits_and_bytes_stay_exact_when_packets_are_lost() {
    needs_kernel!();
    unseen::repeated(|| exchanges_with_loss(25, 20, 8));
}

/// At 1, 3 and 5 percent of loss in both directions.
#[test]
fn of_two_thousand_exchanges_none_is_missed_at_any_loss() {
    needs_kernel!();
    for every in [100, 33, 20] {
        unseen::repeated(|| exchanges_with_loss(every, 50, 40));
    }
}

/// So many connections with so many exchanges each; one packet in `every` is lost.
fn exchanges_with_loss(every: u32, connections: usize, exchanges_each: usize) {
    // The wait of a repeatedly lost segment doubles each time.
    const LONG: Duration = Duration::from_mins(1);
    let (request, response) = (4000, 9000);
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    let address = SocketAddr::from((pair.server.v4, port));
    for end in pair.both() {
        // Where the kernel allows it (6.15), a segment lost twice does not wait long.
        let sysctl = "ipv4/tcp_rto_max_ms";
        if end.within(|| Path::new("/proc/sys/net").join(sysctl).exists()) {
            end.sysctl(sysctl, "1000");
        }
        // With so short a limit the kernel would soon drop a closed socket whose FIN is lost, and
        // the other end would wait forever.
        end.sysctl("ipv4/tcp_orphan_retries", "100");
        end.nft(&loss(every));
    }
    let books = Books::open(&pair, &agent);
    Watcher::during(&agent, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..connections {
                    let mut stream = net::accept(&listener);
                    stream.set_read_timeout(Some(LONG)).expect("setting a timeout");
                    scope.spawn(move || {
                        net::answer(&mut stream, request, response, Duration::ZERO)
                            .expect("exchanges")
                    });
                }
            });
            for _ in 0..connections {
                scope.spawn(|| {
                    let mut stream = pair.client.connect(address).expect("connecting");
                    net::patient(&stream);
                    stream.set_read_timeout(Some(LONG)).expect("setting a timeout");
                    for _ in 0..exchanges_each {
                        net::ask(&mut stream, request, response).expect("an exchange");
                    }
                });
            }
        });
    });
    for end in pair.both() {
        end.nft_flush();
    }
    let (client, server) = (&pair.client.service, &pair.server.service);
    let settled = books.close(&pair, &agent, Between { client, server, port });
    let exchanges = connections * exchanges_each;
    equal("exchanges of the client", settled.client_requests, exchanges as u64, settled.slack);
    equal("exchanges of the server", settled.server_requests, exchanges as u64, settled.slack);
    equal_bytes("client sent", settled.client_sent, (exchanges * request) as u64, settled.slack);
    equal_bytes(
        "server received",
        settled.server_received,
        (exchanges * request) as u64,
        settled.slack,
    );
    equal_bytes("server sent", settled.server_sent, (exchanges * response) as u64, settled.slack);
    equal_bytes(
        "client received",
        settled.client_received,
        (exchanges * response) as u64,
        settled.slack,
    );
    let now = agent.scrape();
    assert!(now.edge(client, server, port, "client").retransmits() > 0, "nothing was lost");
    agent.stop();
}

#[test]
fn resets_of_established_connections_are_counted_by_both_ends() {
    needs_kernel!();
    const CUT: u64 = 100;
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    let address = SocketAddr::from((pair.server.v4, port));
    let books = Books::open(&pair, &agent);
    Watcher::during(&agent, || {
        for _ in 0..CUT {
            let mut client = pair.client.connect(address).expect("connecting");
            let mut server = net::accept(&listener);
            std::io::Write::write_all(&mut client, b"hello").expect("writing");
            net::read_exactly(&mut server, 5).expect("reading");
            net::close_with_reset(client);
        }
    });
    let (client, server) = (&pair.client.service, &pair.server.service);
    let settled = books.close(&pair, &agent, Between { client, server, port });
    let now = agent.scrape();
    let sent = now.edge(client, server, port, "client").resets_by_cause("sent");
    let received = now.edge(client, server, port, "server").resets_by_cause("received");
    equal("sent", sent.values().sum(), CUT, settled.slack);
    equal("received", received.values().sum(), CUT, settled.slack);
    assert_eq!(
        (settled.client_requests, settled.server_requests),
        (0, 0),
        "there are no responses"
    );
    agent.stop();
}

#[test]
fn listen_overflows_are_the_namespaces_listen_drops() {
    needs_kernel!();
    const WAITING: usize = 12;
    // A queue of two takes three; the others are dropped at once, and again when they repeat.
    const ENOUGH: u64 = 9;
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.act(|| {
        let socket = net::socket_for(&(pair.server.v4, 0).into());
        socket.bind(&SocketAddr::from((pair.server.v4, 0)).into()).expect("binding");
        socket.listen(2).expect("listening");
        std::net::TcpListener::from(socket)
    });
    let port = net::port(&listener);
    agent.eventually(true, |now| now.has("portolan_port_listeners", &at(port).borrowed()));
    let before = Counters::of(&pair.server);
    let address = SocketAddr::from((pair.server.v4, port));
    let clients: Vec<_> = (0..WAITING).map(|_| pair.client.begin_connect(address)).collect();
    let dropped = |now: &Counters| now.since(&before, "TcpExtListenDrops");
    let began = Instant::now();
    while dropped(&Counters::of(&pair.server)) < ENOUGH {
        assert!(began.elapsed() < patience(Duration::from_secs(10)), "nothing overflows");
        thread::sleep(Duration::from_millis(20));
    }
    drop(clients);
    // Without the client no more requests come; data in flight comes to rest.
    agent.eventually(true, |now| {
        let ours = now.sum("portolan_listen_overflows_total", &at(port).borrowed());
        ours == dropped(&Counters::of(&pair.server))
    });
    agent.stop();
}

#[test]
fn a_deferred_accept_is_not_an_overflow() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen((pair.server.v4, 0));
    defer_accept(&listener);
    let port = net::port(&listener);
    let between = Between { client: &pair.client.service, server: &pair.server.service, port };
    let books = Books::open(&pair, &agent);
    for _ in 0..20 {
        let mut client = pair.client.connect((pair.server.v4, port)).expect("connecting");
        std::io::Write::write_all(&mut client, b"hello").expect("writing");
        let mut server = net::accept(&listener);
        net::read_exactly(&mut server, 5).expect("reading");
    }
    let settled = books.close(&pair, &agent, between);
    equal("connections", settled.connects, 20, settled.slack);
    let overflows = agent.scrape().sum("portolan_listen_overflows_total", &at(port).borrowed());
    assert_eq!(overflows, 0);
    agent.stop();
}

/// Labels of a port.
struct At(String);

fn at(port: u16) -> At {
    At(port.to_string())
}

impl At {
    fn borrowed(&self) -> [(&str, &str); 1] {
        [("port", &self.0)]
    }
}

/// The kernel completes a connection only when data has come: it drops the bare ACK.
fn defer_accept(listener: &std::net::TcpListener) {
    let seconds: libc::c_int = 5;
    // SAFETY: the option is an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
