//! EADDRNOTAVAIL of connect(2): each of its origins is a result of its own, and only one of them is
//! a shortage of ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use agent_common::edge::CONNECT_RESULT_NAMES;
use socket2::{Domain, Protocol, Socket, Type};

use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

/// How often each attempt is repeated.
const TRIES: u64 = 5;

/// `IP_BIND_ADDRESS_NO_PORT` and `IP_LOCAL_PORT_RANGE` (since 6.3), include/uapi/linux/in.h.
const BIND_ADDRESS_NO_PORT: i32 = 24;
const LOCAL_PORT_RANGE: i32 = 51;

/// Attempts from the client's service to a port, by result.
fn attempts(now: &Scrape, pair: &Pair, port: u16) -> Vec<(&'static str, u64)> {
    let port = port.to_string();
    let labels = [("client", pair.client.service.as_str()), ("role", "client"), ("port", &port)];
    let edges = now.edges(&labels);
    let counts = CONNECT_RESULT_NAMES.iter().map(|result| (*result, edges.connects(result)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// A socket with SO_REUSEADDR, bound to a source address and port if there is one.
fn socket(from: Option<SocketAddr>, is_v6: bool) -> Socket {
    let domain = if is_v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a TCP socket");
    socket.set_reuse_address(true).unwrap();
    if let Some(from) = from {
        socket.bind(&from.into()).unwrap_or_else(|error| panic!("binding {from}: {error}"));
    }
    socket
}

fn set_ip_option(socket: &Socket, option: i32, value: u32) -> io::Result<()> {
    let size = size_of::<u32>() as libc::socklen_t;
    // SAFETY: setsockopt reads `size` bytes of a value that outlives the call.
    let result = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, value, size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Connects in vain, for want of an address or port.
fn in_vain(socket: &Socket, to: SocketAddr) {
    let error = socket.connect(&to.into()).expect_err("it cannot connect");
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{to}: {error}");
}

fn ip(namespace: &Namespace, arguments: &str) {
    let mut ip = Command::new("ip");
    ip.args(["-n", &namespace.name]).args(arguments.split_whitespace());
    assert!(ip.status().expect("ip is installed").success(), "{arguments}");
}

/// The addresses of the client and of the server: IPv4, IPv6, IPv4 in IPv6 form.
fn ends(pair: &Pair) -> [(IpAddr, IpAddr); 3] {
    let (client, server) = (&pair.client, &pair.server);
    [
        (client.v4.into(), server.v4.into()),
        (client.v6.into(), server.v6.into()),
        (client.v4.to_ipv6_mapped().into(), server.v4.to_ipv6_mapped().into()),
    ]
}

/// Waits until each port has these results, and no event was lost on the way.
#[track_caller]
fn expect(agent: &Agent, pair: &Pair, expected: &[(u16, Vec<(&'static str, u64)>)]) {
    for (port, results) in expected {
        agent.eventually(results.clone(), |now| attempts(now, pair, *port));
    }
    let now = agent.ledger_adds_up();
    assert_eq!(now.sum("portolan_events_lost_total", &[("class", "connection")]), 0);
}

#[test]
fn a_bound_source_port_that_a_connection_has_is_in_use() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("[::]:0");
    let port = net::port(&listener);
    for (number, (from, to)) in (1..).zip(ends(&pair)) {
        let (from, to) = (SocketAddr::new(from, 5000 + number), SocketAddr::new(to, port));
        let open = pair.client.act(|| {
            let open = socket(Some(from), from.is_ipv6());
            open.connect(&to.into()).expect("a listener is there");
            for _ in 0..TRIES {
                in_vain(&socket(Some(from), from.is_ipv6()), to);
            }
            open
        });
        let all = u64::from(number);
        expect(&agent, &pair, &[(port, vec![("ok", all), ("port_in_use", all * TRIES)])]);
        drop((open, net::accept(&listener)));
    }
    agent.stop();
}

#[test]
fn a_bound_source_port_that_an_earlier_connection_leaves_is_in_time_wait() {
    needs_kernel!();
    let pair = Pair::new();
    // With timestamps the kernel takes a connection in TIME_WAIT over (`tcp_twsk_unique`).
    pair.client.sysctl("ipv4/tcp_timestamps", "0");
    let agent = Agent::start();
    let listener = pair.server.listen("[::]:0");
    let port = net::port(&listener);
    for (number, (from, to)) in (1..).zip(ends(&pair)) {
        let (from, to) = (SocketAddr::new(from, 5000 + number), SocketAddr::new(to, port));
        pair.client.act(|| {
            let closed = socket(Some(from), from.is_ipv6());
            closed.connect(&to.into()).expect("a listener is there");
            drop(closed);
            drop(net::accept(&listener));
            for _ in 0..TRIES {
                in_vain(&socket(Some(from), from.is_ipv6()), to);
            }
        });
        let all = u64::from(number);
        expect(&agent, &pair, &[(port, vec![("ok", all), ("time_wait", all * TRIES)])]);
    }
    agent.stop();
}

#[test]
fn a_family_without_an_address_is_no_shortage_of_ports() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let cases: [(&str, IpAddr); 3] = [
        // Also what a program meets that resolves `localhost` to IPv6 first.
        ("link set lo up", Ipv6Addr::LOCALHOST.into()),
        ("-6 route add 2001:db8::/64 dev veth0", "2001:db8::1".parse().unwrap()),
        ("-6 route add 2001:db8:1::/64 dev lo", "2001:db8:1::1".parse().unwrap()),
    ];
    ip(&pair.client, "-6 address flush dev veth0");
    ip(&pair.client, "-6 address del ::1/128 dev lo");
    let mut expected = Vec::new();
    for (port, (route, address)) in (7001..).zip(cases) {
        ip(&pair.client, route);
        pair.client.act(|| {
            for _ in 0..TRIES {
                in_vain(&socket(None, true), SocketAddr::new(address, port));
            }
        });
        expected.push((port, vec![("address_unavailable", TRIES)]));
    }
    // With IPv6 switched off the loopback has neither address nor device route.
    pair.client.sysctl("ipv6/conf/all/disable_ipv6", "1");
    pair.client.act(|| {
        for _ in 0..TRIES {
            in_vain(&socket(None, true), SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 7010));
        }
    });
    expected.push((7010, vec![("address_unavailable", TRIES)]));
    expect(&agent, &pair, &expected);
    agent.stop();
}

#[test]
fn a_range_without_a_free_port_is_exhausted() {
    needs_kernel!();
    let pair = Pair::new();
    pair.client.sysctl("ipv4/ip_local_port_range", "40000 40001");
    let agent = Agent::start();
    let mut expected = Vec::new();
    let mut held = Vec::new();
    for (from, to) in ends(&pair) {
        let listener = pair.server.listen("[::]:0");
        let to = SocketAddr::new(to, net::port(&listener));
        let is_v6 = to.is_ipv6();
        pair.client.act(|| {
            for _ in 0..2 {
                let open = socket(None, is_v6);
                open.connect(&to.into()).expect("two ports are free");
                held.push(open);
            }
            for number in 0..TRIES {
                // An address alone takes no port from connect.
                let from = SocketAddr::new(from, 0);
                let one = if number == 0 { socket(None, is_v6) } else { unported(from) };
                in_vain(&one, to);
            }
        });
        expected.push((to.port(), vec![("ok", 2), ("ports_exhausted", TRIES)]));
        held.push(listener.into());
    }
    expect(&agent, &pair, &expected);
    agent.stop();
}

/// A socket that is bound to an address and leaves the choice of the port to connect.
fn unported(from: SocketAddr) -> Socket {
    let socket = socket(None, from.is_ipv6());
    set_ip_option(&socket, BIND_ADDRESS_NO_PORT, 1).expect("since 4.2");
    socket.bind(&from.into()).expect("an address of ours");
    socket
}

/// The range of a socket's own may be narrower than the namespace's.
#[test]
fn a_range_of_a_sockets_own_is_exhausted_as_well() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let to = SocketAddr::from((pair.server.v4, net::port(&listener)));
    // From 41000 to 41000.
    let narrow = || {
        let socket = socket(None, false);
        set_ip_option(&socket, LOCAL_PORT_RANGE, 0xa028_a028).map(|()| socket)
    };
    if let Err(error) = narrow() {
        assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT), "{error}");
        println!("SKIPPED: this kernel has no IP_LOCAL_PORT_RANGE");
        return;
    }
    let open = pair.client.act(|| {
        let open = narrow().unwrap();
        open.connect(&to.into()).expect("the port is free");
        for _ in 0..TRIES {
            in_vain(&narrow().unwrap(), to);
        }
        // Others have ports.
        drop(TcpStream::connect(to).expect("the namespace's range is wide"));
        open
    });
    let expected = vec![("ok", 2), ("ports_exhausted", TRIES)];
    expect(&agent, &pair, &[(to.port(), expected)]);
    drop(open);
    agent.stop();
}

/// A program that tries again on the same socket, as HAProxy does with a source address.
#[test]
fn a_port_that_becomes_free_is_connected_from() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let to = SocketAddr::from((pair.server.v4, net::port(&listener)));
    let from = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5000));
    let again = pair.client.act(|| {
        let first = socket(Some(from), false);
        first.connect(&to.into()).expect("a listener is there");
        let second = socket(Some(from), false);
        in_vain(&second, to);
        in_vain(&second, to);
        net::close_with_reset(first.into());
        second.connect(&to.into()).expect("the port is free");
        second
    });
    expect(&agent, &pair, &[(to.port(), vec![("ok", 2), ("port_in_use", 2)])]);
    drop(again);
    agent.stop();
}
