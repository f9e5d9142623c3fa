//! Established connections that die because the other end does not answer: whose kernel gave up, and
//! why. The program's errno and `TCPAbortOnTimeout` are the truth.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::agent::Agent;
use crate::facts::Counters;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;
use crate::unseen::repeated;

const SECOND: Duration = Duration::from_secs(1);

/// A way to die.
struct Death {
    what: &'static str,
    is_v6: bool,
    /// Whether the client gives up; else the server.
    is_client: bool,
    options: fn(&SockRef<'_>),
    /// What becomes of the other end.
    peer: Peer,
    /// What the program does then, before it waits for an answer.
    then: fn(&mut TcpStream),
    errno: i32,
    cause: &'static str,
}

#[derive(Clone, Copy)]
enum Peer {
    /// Nothing reaches it.
    Silent,
    /// The network says that it cannot be reached.
    Unreachable,
}

fn no_options(_: &SockRef<'_>) {}

fn user_timeout(socket: &SockRef<'_>) {
    socket.set_tcp_user_timeout(Some(SECOND)).unwrap();
}

fn keepalive(socket: &SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(1);
    socket.set_tcp_keepalive(&keepalive).unwrap();
}

/// The probes would go on for a minute.
fn keepalive_with_user_timeout(socket: &SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(60);
    socket.set_tcp_keepalive(&keepalive).unwrap();
    user_timeout(socket);
}

fn waits(_: &mut TcpStream) {}

fn asks(stream: &mut TcpStream) {
    stream.write_all(b"a request").unwrap();
}

const fn death(what: &'static str, cause: &'static str, errno: i32) -> Death {
    Death {
        what,
        is_v6: false,
        is_client: true,
        options: no_options,
        peer: Peer::Silent,
        then: asks,
        errno,
        cause,
    }
}

const TIMEOUT: i32 = libc::ETIMEDOUT;
const NO_HOST: i32 = libc::EHOSTUNREACH;

const DEATHS: [Death; 11] = [
    Death { options: user_timeout, ..death("a request, user timeout", "user_timeout", TIMEOUT) },
    Death {
        options: user_timeout,
        is_v6: true,
        is_client: false,
        ..death("a response, user timeout", "user_timeout", TIMEOUT)
    },
    Death { options: keepalive, then: waits, ..death("idle client, probes", "keepalive", TIMEOUT) },
    Death {
        options: keepalive,
        then: waits,
        is_v6: true,
        is_client: false,
        ..death("idle server, probes", "keepalive", TIMEOUT)
    },
    Death {
        options: keepalive_with_user_timeout,
        then: waits,
        ..death("idle client, probes and user timeout", "keepalive", TIMEOUT)
    },
    // Probes wait for the retransmission of what was written.
    Death { options: keepalive, ..death("a request with probes", "retransmission", TIMEOUT) },
    death("a request, kernel's retries", "retransmission", TIMEOUT),
    Death { is_v6: true, is_client: false, ..death("a response", "retransmission", TIMEOUT) },
    Death { peer: Peer::Unreachable, ..death("a request, ICMP", "unreachable", NO_HOST) },
    Death {
        options: user_timeout,
        peer: Peer::Unreachable,
        is_v6: true,
        is_client: false,
        ..death("a response, ICMPv6, user timeout", "unreachable", NO_HOST)
    },
    // The kernel takes no notice: what the error is about lies before what is outstanding.
    Death {
        options: keepalive,
        then: waits,
        peer: Peer::Unreachable,
        ..death("idle client, probes, ICMP", "keepalive", TIMEOUT)
    },
];

/// Aborts of a pair on one side, by cause.
fn aborts(now: &Scrape, pair: &Pair, role: &str) -> BTreeMap<String, u64> {
    let labels = [
        ("client", pair.client.service.as_str()),
        ("server", &pair.server.service),
        ("role", role),
    ];
    let samples = now.matching("portolan_tcp_aborts_total", &labels);
    samples.map(|one| (one.label("cause").unwrap().to_owned(), one.value as u64)).collect()
}

/// A few retries are enough here.
fn quick(namespace: &Namespace) {
    namespace.sysctl("ipv4/tcp_retries2", "2");
    namespace.sysctl("ipv4/tcp_orphan_retries", "1");
}

/// What the one program sees when it waits.
fn end_of(stream: &mut TcpStream) -> i32 {
    let error = stream.read(&mut [0; 99]).expect_err("nobody answers");
    error.raw_os_error().expect("the kernel's errno")
}

impl Death {
    fn address(&self, namespace: &Namespace) -> IpAddr {
        if self.is_v6 { namespace.v6.into() } else { namespace.v4.into() }
    }

    /// A connection that was used, and dies: the errno.
    fn happen(&self, pair: &Pair) -> i32 {
        pair.both().into_iter().for_each(quick);
        let listener = pair.server.listen((self.address(&pair.server), 0));
        let port = net::port(&listener);
        let mut client = pair.client.connect((self.address(&pair.server), port)).unwrap();
        let mut server = net::accept(&listener);
        net::patient(&client);
        client.write_all(b"hello").unwrap();
        net::read_exactly(&mut server, 5).unwrap();
        server.write_all(b"hello").unwrap();
        net::read_exactly(&mut client, 5).unwrap();
        // Long enough for the last acknowledgement, which may be delayed.
        std::thread::sleep(Duration::from_millis(300));
        let (mut dies, _lives) = if self.is_client { (client, server) } else { (server, client) };
        (self.options)(&SockRef::from(&dies));
        let (peer, filter) = if self.is_client {
            (&pair.server, format!("tcp dport {port}"))
        } else {
            (&pair.client, format!("tcp sport {port}"))
        };
        match (self.peer, self.is_v6) {
            (Peer::Silent, _) => peer.nft_input(&format!("{filter} drop")),
            (Peer::Unreachable, false) => {
                peer.nft_input(&format!("{filter} reject with icmp type host-unreachable"));
            }
            (Peer::Unreachable, true) => {
                peer.nft_input(&format!("{filter} reject with icmpv6 type addr-unreachable"));
            }
        }
        (self.then)(&mut dies);
        end_of(&mut dies)
    }
}

#[test]
fn every_death_has_its_cause_and_its_side() {
    needs_kernel!();
    repeated(|| {
        let pairs: Vec<Pair> = DEATHS.iter().map(|_| Pair::new()).collect();
        let agent = Agent::start();
        for (death, pair) in DEATHS.iter().zip(&pairs) {
            println!("{}", death.what);
            let (role, other) =
                if death.is_client { ("client", "server") } else { ("server", "client") };
            let side = if death.is_client { &pair.client } else { &pair.server };
            let before = Counters::of(side);
            assert_eq!(death.happen(pair), death.errno, "{}", death.what);
            let expected = BTreeMap::from([(death.cause.to_owned(), 1)]);
            let none = BTreeMap::new();
            let now = agent.eventually((expected, none), |now| {
                (aborts(now, pair, role), aborts(now, pair, other))
            });
            assert_eq!(Counters::of(side).since(&before, "TcpExtTCPAbortOnTimeout"), 1);
            let labels = [("server", pair.server.service.as_str()), ("role", role)];
            assert_eq!(now.edges(&labels).active(), 0, "{}", death.what);
            let found = agent.json(&format!("/api/v1/services?service={}", pair.server.service));
            let health = &found["services"][0]["health"];
            assert_eq!((&health["state"], &health["aborts"]), (&"degraded".into(), &1.into()));
        }
        agent.stop();
    });
}

#[test]
fn connections_that_end_otherwise_are_not_aborted() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        pair.both().into_iter().for_each(quick);
        let before = Counters::of(&pair.client);
        // An orderly end, after keep-alive probes that were answered.
        let connection = pair.connection();
        keepalive(&SockRef::from(&connection.client));
        std::thread::sleep(2 * SECOND);
        drop(connection);
        // A reset, with data on the way.
        let mut connection = pair.connection();
        user_timeout(&SockRef::from(&connection.client));
        asks(&mut connection.client);
        net::close_with_reset(connection.server);
        assert_eq!(end_of(&mut connection.client), libc::ECONNRESET);
        // The program does not wait for the end: the kernel gives up what nobody has any more.
        let mut connection = pair.connection();
        pair.server.nft_input(&format!("tcp dport {} drop", connection.port));
        asks(&mut connection.client);
        drop(connection.client);
        // A connect that is not answered is a failed connect.
        pair.server.nft_input("tcp dport 7001 drop");
        pair.client.sysctl("ipv4/tcp_syn_retries", "1");
        let error = pair.client.connect((pair.server.v4, 7001)).expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        agent.eventually((2, 0), |now| {
            let active =
                now.edges(&[("client", &pair.client.service), ("role", "client")]).active();
            (Counters::of(&pair.client).since(&before, "TcpExtTCPAbortOnTimeout"), active)
        });
        let now = agent.scrape();
        assert_eq!(aborts(&now, &pair, "client"), BTreeMap::new());
        assert_eq!(aborts(&now, &pair, "server"), BTreeMap::new());
        agent.stop();
    });
}

/// A pool's connections are often older than the agent.
#[test]
fn a_connection_from_before_the_agent_dies_as_any_other() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let mut connection = pair.connection();
        let agent = Agent::start();
        // Both ends are this process's, and had its name when the agent came.
        let port = connection.port.to_string();
        let labels = [("port", port.as_str()), ("role", "server")];
        agent.eventually(1, |now| now.edges(&labels).preexisting());
        user_timeout(&SockRef::from(&connection.server));
        pair.client.nft_input(&format!("tcp sport {} drop", connection.port));
        asks(&mut connection.server);
        assert_eq!(end_of(&mut connection.server), libc::ETIMEDOUT);
        agent.eventually(1, |now| {
            let labels = [labels[0], labels[1], ("cause", "user_timeout")];
            now.sum("portolan_tcp_aborts_total", &labels)
        });
        agent.stop();
    });
}
