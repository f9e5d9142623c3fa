//! Connects that the kernel refuses before a SYN: they change no state of the socket, so only the
//! connect hooks see them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use agent_common::edge::{CONNECT_RESULT_NAMES, connect_result};

use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

const STORM: u64 = 10_000;

/// A kind of route, an address behind it, and the errno that connect(2) gives.
const ROUTES: [(&str, &str, &str, i32); 4] = [
    ("unreachable", "198.51.100.1", "2001:db8:1::1", libc::EHOSTUNREACH),
    ("blackhole", "198.51.101.1", "2001:db8:2::1", libc::EINVAL),
    ("prohibit", "198.51.102.1", "2001:db8:3::1", libc::EACCES),
    // No route at all.
    ("", "198.51.103.1", "2001:db8:4::1", libc::ENETUNREACH),
];

fn add_routes(namespace: &Namespace) {
    for (kind, v4, v6, _) in ROUTES.iter().filter(|route| !route.0.is_empty()) {
        for (family, address) in [("-4", v4), ("-6", v6)] {
            let mut ip = Command::new("ip");
            ip.args(["-n", &namespace.name, family, "route", "add", kind, address]);
            assert!(ip.status().expect("ip is installed").success(), "{kind} {address}");
        }
    }
}

/// The result that the errno stands for.
fn result_of(errno: i32) -> &'static str {
    CONNECT_RESULT_NAMES[usize::from(connect_result(errno))]
}

/// Attempts from the client's service to a port, by result.
fn attempts(now: &Scrape, pair: &Pair, port: u16) -> Vec<(&'static str, u64)> {
    let port = port.to_string();
    let labels = [("client", pair.client.service.as_str()), ("role", "client"), ("port", &port)];
    let edges = now.edges(&labels);
    let counts = CONNECT_RESULT_NAMES.iter().map(|result| (*result, edges.connects(result)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn errno(result: io::Result<TcpStream>) -> i32 {
    result.expect_err("it cannot connect").raw_os_error().expect("the kernel's errno")
}

/// Every kind of refusal, by its errno, among connects that succeed.
fn every_refusal_is_counted(
    address: impl Fn(&(&str, &str, &str, i32)) -> IpAddr + Sync,
    own: impl Fn(&Namespace) -> IpAddr,
) {
    let pair = Pair::new();
    add_routes(&pair.client);
    let agent = Agent::start();
    let listener = pair.server.listen(SocketAddr::new(own(&pair.server), 0));
    let good = SocketAddr::new(own(&pair.server), net::port(&listener));
    // A port for each kind, so that each is an edge whatever the name of its address.
    let place = |number: usize| SocketAddr::new(address(&ROUTES[number]), 7001 + number as u16);
    let tries = |number: usize| 3 + 2 * number as u64;
    pair.client.act(|| {
        for (number, (kind, .., expected)) in ROUTES.iter().enumerate() {
            for _ in 0..tries(number) {
                assert_eq!(errno(TcpStream::connect(place(number))), *expected, "{kind}");
            }
            // One that succeeds ends none of them, and is none of them.
            drop(TcpStream::connect(good).expect("a listener is there"));
            drop(net::accept(&listener));
        }
    });
    for (number, (.., errno)) in ROUTES.iter().enumerate() {
        let expected = vec![(result_of(*errno), tries(number))];
        agent.eventually(expected, |now| attempts(now, &pair, 7001 + number as u16));
    }
    let succeeded = vec![("ok", ROUTES.len() as u64)];
    agent.eventually(succeeded, |now| attempts(now, &pair, good.port()));
    let now = agent.ledger_adds_up();
    assert_eq!(now.sum("portolan_events_lost_total", &[("class", "connection")]), 0);
    agent.stop();
}

fn v4(route: &(&str, &str, &str, i32)) -> IpAddr {
    route.1.parse().unwrap()
}

fn v6(route: &(&str, &str, &str, i32)) -> IpAddr {
    route.2.parse().unwrap()
}

#[test]
fn connect4_counts_every_refusal_by_its_errno() {
    needs_kernel!();
    every_refusal_is_counted(v4, |namespace| namespace.v4.into());
}

#[test]
fn connect6_counts_every_refusal_by_its_errno() {
    needs_kernel!();
    every_refusal_is_counted(v6, |namespace| namespace.v6.into());
}

/// An IPv4 address in IPv6 form passes the hook of IPv6 and the routes of IPv4.
#[test]
fn connect6_counts_refusals_of_mapped_addresses_once() {
    needs_kernel!();
    let mapped = |route: &(&str, &str, &str, i32)| match v4(route) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 @ IpAddr::V6(_) => v6,
    };
    every_refusal_is_counted(mapped, |namespace| namespace.v4.to_ipv6_mapped().into());
}

/// A storm is counted exactly; so are single attempts of many threads.
#[test]
fn connect4_counts_a_storm_exactly() {
    needs_kernel!();
    const THREADS: u64 = 200;
    let pair = Pair::new();
    add_routes(&pair.client);
    let agent = Agent::start();
    let (storm, crowd) =
        (SocketAddr::new(v4(&ROUTES[0]), 7001), SocketAddr::new(v4(&ROUTES[2]), 7002));
    pair.client.act(|| {
        for _ in 0..STORM {
            errno(TcpStream::connect(storm));
        }
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| errno(TcpStream::connect(crowd)));
            }
        });
    });
    agent.eventually(vec![("unreachable", STORM)], |now| attempts(now, &pair, 7001));
    agent.eventually(vec![("denied", THREADS)], |now| attempts(now, &pair, 7002));
    agent.ledger_adds_up();
    agent.stop();
}

/// A failed bind and a failed connect share a thread's entry, and each counts as what it was.
#[test]
fn connect4_and_binds_of_one_thread_are_kept_apart() {
    needs_kernel!();
    let pair = Pair::new();
    add_routes(&pair.client);
    let agent = Agent::start();
    let taken = pair.client.listen((pair.client.v4, 8080));
    let to = SocketAddr::new(v4(&ROUTES[0]), 7001);
    let (here, client) = (SocketAddr::new(pair.client.v4.into(), 8080), &pair.client.service);
    pair.client.act(|| {
        for _ in 0..50 {
            errno(TcpStream::connect(to));
            std::net::TcpListener::bind(here).expect_err("it is taken");
        }
    });
    agent.eventually(vec![("unreachable", 50)], |now| attempts(now, &pair, 7001));
    let labels = [("claimant", client.as_str()), ("port", "8080")];
    agent.eventually(50, |now| now.sum("portolan_port_conflicts_total", &labels));
    agent.ledger_adds_up();
    drop(taken);
    agent.stop();
}

/// Datagram sockets connect too, and are not connections.
#[test]
fn connect4_leaves_datagrams_alone() {
    needs_kernel!();
    let pair = Pair::new();
    add_routes(&pair.client);
    let agent = Agent::start();
    let to = SocketAddr::new(v4(&ROUTES[0]), 7001);
    pair.client.act(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(to).expect_err("there is no route");
        errno(TcpStream::connect(SocketAddr::new(to.ip(), 7002)));
    });
    let now = agent.eventually(vec![("unreachable", 1)], |now| attempts(now, &pair, 7002));
    assert_eq!(attempts(&now, &pair, 7001), []);
    agent.stop();
}
