//! Life cycle: every way in which a connection starts, fails and ends; listeners.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::{Connection, Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;
use crate::unseen::repeated;

/// Connections requests that come in, and nothing else.
const SYN: &str = "tcp flags & (syn | ack) == syn";

/// A port of the server without a listener.
fn unused_port(server: &Namespace) -> u16 {
    let probe = server.within(|| TcpListener::bind((server.v4, 0)).expect("a free port"));
    net::port(&probe)
}

/// The attempts on the client's side of a port: all of them, and those with `result`.
fn attempts(now: &Scrape, client: &Namespace, port: u16, result: &str) -> (u64, u64) {
    let edge =
        now.edges(&[("client", &client.service), ("port", &port.to_string()), ("role", "client")]);
    (edge.all_connects(), edge.connects(result))
}

/// (ok of the client, ok of the server, active of the client, active of the server).
fn both_sides(now: &Scrape, pair: &Pair, port: u16) -> (u64, u64, u64, u64) {
    let (client, server) = (&pair.client.service, &pair.server.service);
    let a = now.edge(client, server, port, "client");
    let b = now.edge(client, server, port, "server");
    (a.connects("ok"), b.connects("ok"), a.active(), b.active())
}

#[test]
fn a_connection_counts_once_on_each_side_in_every_family() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let mapped = IpAddr::V6(pair.server.v4.to_ipv6_mapped());
        for (listen, connect) in [
            ("0.0.0.0:0", IpAddr::V4(pair.server.v4)),
            ("[::]:0", IpAddr::V6(pair.server.v6)),
            ("[::]:0", IpAddr::V4(pair.server.v4)),
            ("[::]:0", mapped),
        ] {
            let listener = pair.server.listen(listen);
            let port = net::port(&listener);
            let client = pair.client.connect((connect, port)).unwrap();
            let server = net::accept(&listener);
            agent.eventually((1, 1, 1, 1), |now| both_sides(now, &pair, port));
            drop((client, server));
            agent.eventually((1, 1, 0, 0), |now| both_sides(now, &pair, port));
        }
        agent.stop();
    });
}

#[test]
fn active_connections_go_up_and_down_whichever_end_closes_first() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let mut open: Vec<_> = (0..10)
            .map(|_| {
                let client = pair.client.connect((pair.server.v4, port)).unwrap();
                (client, net::accept(&listener))
            })
            .collect();
        agent.eventually((10, 10, 10, 10), |now| both_sides(now, &pair, port));
        for (client, server) in open.drain(..5) {
            drop(client);
            drop(server);
        }
        agent.eventually((10, 10, 5, 5), |now| both_sides(now, &pair, port));
        for (client, server) in open.drain(..4) {
            drop(server);
            drop(client);
        }
        agent.eventually((10, 10, 1, 1), |now| both_sides(now, &pair, port));
        // The last one is cut: closed for both at once.
        let (client, server) = open.remove(0);
        net::close_with_reset(client);
        agent.eventually((10, 10, 0, 0), |now| both_sides(now, &pair, port));
        drop(server);
        agent.stop();
    });
}

#[test]
fn a_connection_lives_as_long_as_any_process_holds_it() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let Connection { listener: _listener, port, client, server } = pair.connection();
        // Another process gets the accepted connection, and we let go of it.
        let mut holder = Command::new("sleep");
        holder.arg("60").stdin(Stdio::from(OwnedFd::from(server)));
        let mut child = holder.spawn().unwrap();
        drop(holder);
        agent.eventually((1, 1, 1, 1), |now| both_sides(now, &pair, port));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(client);
        agent.eventually((1, 1, 0, 0), |now| both_sides(now, &pair, port));
        agent.stop();
    });
}

#[test]
fn a_port_without_a_listener_refuses() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        for address in [IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6)] {
            let port = unused_port(&pair.server);
            for _ in 0..3 {
                let error = pair.client.connect((address, port)).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            }
            agent.eventually((3, 3), |now| attempts(now, &pair.client, port, "refused"));
        }
        agent.stop();
    });
}

#[test]
fn a_socket_may_try_again_after_a_refusal() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let port = unused_port(&pair.server);
        let address = SocketAddr::from((pair.server.v4, port));
        let socket = pair.client.within(|| net::socket_for(&address));
        assert!(pair.client.act(|| socket.connect(&address.into())).is_err());
        let listener = pair.server.listen(address);
        pair.client.act(|| socket.connect(&address.into())).unwrap();
        agent.eventually((2, 1, 1), |now| {
            let (all, refused) = attempts(now, &pair.client, port, "refused");
            (all, refused, both_sides(now, &pair, port).2)
        });
        drop((socket, listener));
        agent.stop();
    });
}

#[test]
fn an_unanswered_connect_times_out() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        pair.client.sysctl("ipv4/tcp_syn_retries", "1");
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        pair.server.nft_input(&format!("{SYN} drop"));
        let address = SocketAddr::from((pair.server.v4, port));
        let error = pair.client.act(|| TcpStream::connect(address)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        let now = agent.eventually((1, 1), |now| attempts(now, &pair.client, port, "timeout"));
        assert_eq!(both_sides(&now, &pair, port), (0, 0, 0, 0));
        agent.stop();
    });
}

#[test]
fn icmp_errors_fall_into_their_class() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let (v4, v6) = (IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6));
        let cases = [
            (v4, "icmp type host-unreachable", "unreachable"),
            (v4, "icmp type net-unreachable", "unreachable"),
            (v4, "icmp type admin-prohibited", "unreachable"),
            (v4, "icmp type port-unreachable", "refused"),
            (v6, "icmpv6 type no-route", "unreachable"),
            (v6, "icmpv6 type addr-unreachable", "unreachable"),
            (v6, "icmpv6 type admin-prohibited", "denied"),
            (v6, "icmpv6 type port-unreachable", "refused"),
        ];
        // The kernel drops an error that arrives while connect holds the socket; the next SYN, a second
        // later, causes it again. All cases wait together.
        let mut waiting = Vec::new();
        let mut rules = Vec::new();
        for (address, with, result) in cases {
            let port = unused_port(&pair.server) ^ (waiting.len() as u16);
            rules.push(format!("tcp dport {port} reject with {with}"));
            waiting.push((SocketAddr::from((address, port)), result));
        }
        pair.server.nft_input(&rules.join("; "));
        let sockets: Vec<_> =
            waiting.iter().map(|(address, _)| pair.client.begin_connect(*address)).collect();
        for (address, result) in &waiting {
            agent.eventually((1, 1), |now| attempts(now, &pair.client, address.port(), result));
        }
        drop(sockets);
        agent.stop();
    });
}

#[test]
fn giving_up_before_the_answer_is_an_abort() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let port = unused_port(&pair.server);
        pair.server.nft_input(&format!("{SYN} drop"));
        for _ in 0..3 {
            let address = SocketAddr::from((pair.server.v4, port));
            let socket = pair.client.begin_connect(address);
            drop(socket);
        }
        agent.eventually((3, 3), |now| attempts(now, &pair.client, port, "aborted"));
        agent.stop();
    });
}

#[test]
fn running_out_of_local_ports_is_reported() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        pair.client.sysctl("ipv4/ip_local_port_range", "40000 40003");
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let mut open = Vec::new();
        let error = loop {
            match pair.client.connect((pair.server.v4, port)) {
                Ok(stream) => open.push((stream, net::accept(&listener))),
                Err(error) => break error,
            }
            assert!(open.len() < 5, "four local ports were more");
        };
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        let taken = open.len() as u64;
        agent
            .eventually((taken + 1, 1), |now| attempts(now, &pair.client, port, "ports_exhausted"));
        agent.eventually((taken, taken, taken, taken), |now| both_sides(now, &pair, port));
        agent.stop();
    });
}

#[test]
fn a_simultaneous_open_is_a_connection_of_two_clients() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let ends: Vec<_> = pair
            .both()
            .map(|side| {
                let address = SocketAddr::from((side.v4, unused_port(side)));
                side.nft_input(&format!("{SYN} drop"));
                let socket = side.within(|| net::socket_for(&address));
                socket.bind(&address.into()).unwrap();
                (side, address, socket)
            })
            .into();
        for (from, to) in [(0, 1), (1, 0)] {
            let (side, _, socket) = &ends[from];
            side.act(|| net::begin_connect(socket, ends[to].1));
        }
        // Both have sent their SYN and wait; the next one comes through.
        pair.both().into_iter().for_each(Namespace::nft_flush);
        for (from, to) in [(0, 1), (1, 0)] {
            let port = ends[to].1.port();
            let now = agent.eventually((1, 1), |now| attempts(now, ends[from].0, port, "ok"));
            let service = ends[from].0.service.as_str();
            let edge = now.edges(&[("client", service), ("role", "client")]);
            assert_eq!((edge.active(), edge.connect_duration().count), (1, 1));
            let served = now.edges(&[("server", service), ("role", "server")]);
            assert_eq!(served.all_connects(), 0, "no connection was accepted");
        }
        drop(ends);
        agent.eventually((0, 0), |now| {
            let active = |side: &Namespace| now.edges(&[("client", &side.service)]).active();
            (active(&pair.client), active(&pair.server))
        });
        agent.stop();
    });
}

#[test]
fn a_half_open_connection_is_open_only_where_the_handshake_ended() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        // The last packet of the handshake does not arrive.
        pair.server.nft_input("tcp flags & (syn | ack) == ack drop");
        let mut client = pair.client.connect((pair.server.v4, port)).unwrap();
        agent.eventually((1, 0, 1, 0), |now| {
            let edge = now.edges(&[("port", &port.to_string()), ("role", "client")]);
            let served = now.edges(&[("server", &pair.server.service), ("role", "server")]);
            (edge.connects("ok"), served.all_connects(), edge.active(), served.active())
        });
        pair.server.nft_flush();
        client.write_all(b"hello").unwrap();
        let server = net::accept(&listener);
        agent.eventually((1, 1, 1, 1), |now| both_sides(now, &pair, port));
        drop((client, server));
        agent.eventually((1, 1, 0, 0), |now| both_sides(now, &pair, port));
        agent.stop();
    });
}

#[test]
fn connect_latency_is_what_the_program_waited() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let connect = || {
            let began = Instant::now();
            let stream = pair.client.connect((pair.server.v4, port)).unwrap();
            (began.elapsed(), stream, net::accept(&listener))
        };
        let duration = |now: &Scrape| {
            now.edge(&pair.client.service, &pair.server.service, port, "client").connect_duration()
        };
        let (waited, ..) = connect();
        let now = agent.eventually(1, |now| duration(now).count);
        let quick = duration(&now).sum;
        assert!(quick > 0.0 && quick <= waited.as_secs_f64(), "{quick} s of {waited:?}");
        // The first SYN is lost, the second comes a second later.
        pair.server.nft_input(&format!("{SYN} numgen inc mod 1000 == 0 drop"));
        let (waited, ..) = connect();
        let now = agent.eventually(2, |now| duration(now).count);
        let slow = duration(&now).sum - quick;
        assert!(waited >= Duration::from_millis(900), "the SYN was lost: {waited:?}");
        assert!(
            slow <= waited.as_secs_f64() && slow >= waited.as_secs_f64() * 0.9,
            "{slow}, {waited:?}"
        );
        assert_eq!(duration(&now).at_most(0.5), 1);
        agent.stop();
    });
}

#[test]
fn listeners_come_and_go_with_their_sockets() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let service = pair.server.service.as_str();
        let listeners = |now: &Scrape| {
            now.sum("portolan_port_listeners", &[("service", service), ("port", &port.to_string())])
        };
        agent.eventually(1, listeners);
        // A process that dies takes its listener with it.
        let mut holder = Command::new("sleep");
        let copy = listener.try_clone().unwrap();
        holder.arg("60").stdin(Stdio::from(OwnedFd::from(copy)));
        let mut child = holder.spawn().unwrap();
        drop((listener, holder));
        agent.eventually(1, listeners);
        child.kill().unwrap();
        child.wait().unwrap();
        agent.eventually(0, listeners);
        // The port may be bound again.
        let again = pair.server.listen(("0.0.0.0", port));
        agent.eventually(1, listeners);
        drop(again);
        agent.eventually(0, listeners);
        agent.stop();
    });
}
