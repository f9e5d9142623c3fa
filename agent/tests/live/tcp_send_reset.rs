//! Resets that a host sends: each is counted, with the kernel's own reason for it.
//!
//! The kernel names reasons from 6.10 on; before, every cause is `unknown` and only the sums hold.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::agent::Agent;
use crate::facts::{self, Counters};
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;

/// A connection between two namespaces, and the kernel's counters before it.
struct Scene {
    pair: Pair,
    agent: Agent,
    port: u16,
    listener: TcpListener,
    before: [Counters; 2],
    /// Resets without a connection, of all namespaces of this host.
    unconnected: BTreeMap<String, u64>,
    /// Resets that other programs of this host had sent.
    elsewhere: BTreeMap<String, u64>,
}

fn unconnected(now: &Scrape) -> BTreeMap<String, u64> {
    now.edge("any", "none", 0, "server").resets_by_cause("sent")
}

impl Scene {
    fn new() -> Self {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let before = pair.both().map(Counters::of);
        let elsewhere = facts::resets_elsewhere(&pair.both());
        let unconnected = unconnected(&agent.scrape());
        Self { pair, agent, port, listener, before, unconnected, elsewhere }
    }

    /// Resets that other programs may have sent since. The whole host shares the row without a
    /// connection: on a quiet host this is none, and the test is exact.
    fn sent_by_others(&self) -> u64 {
        let now = facts::resets_elsewhere(&self.pair.both());
        let grown = now.iter().map(|(name, sent)| sent - self.elsewhere.get(name).unwrap_or(&0));
        let gone = self.elsewhere.keys().any(|name| !now.contains_key(name));
        // A namespace that is gone cannot be read.
        if gone { u64::from(u32::MAX) } else { grown.sum() }
    }

    fn connection(&self) -> (TcpStream, TcpStream) {
        let client = self.pair.client.connect((self.pair.server.v4, self.port)).unwrap();
        (client, net::accept(&self.listener))
    }

    /// Waits until exactly these resets were sent, (role or `none`, cause, count); then compares
    /// their sum with the kernel's.
    #[track_caller]
    fn sent(&self, expected: &[(&str, &str, u64)]) -> Scrape {
        let all: u64 = expected.iter().map(|(.., count)| count).sum();
        // Before it had reasons, the kernel did not report resets without a socket.
        let is_reported = |role: &str| role != "none" || facts::names_reset_reasons();
        let expected: BTreeMap<(String, String), u64> = expected
            .iter()
            .filter(|(role, ..)| is_reported(role))
            .map(|(role, cause, count)| {
                let cause = if facts::names_reset_reasons() { cause } else { "unknown" };
                ((role.to_string(), cause.to_owned()), *count)
            })
            .collect();
        let any = "any".to_owned();
        let now = self.agent.eventually(expected.clone(), |now| {
            let mut sent = BTreeMap::new();
            let (client, server) = (&self.pair.client.service, &self.pair.server.service);
            for (role, client) in [("client", client), ("server", client), ("listener", &any)] {
                let edge = now.edge(client, server, self.port, role);
                for (cause, count) in edge.resets_by_cause("sent") {
                    sent.insert((role.to_owned(), cause), count);
                }
            }
            for (cause, count) in unconnected(now) {
                let more = count - self.unconnected.get(&cause).copied().unwrap_or(0);
                let key = ("none".to_owned(), cause);
                // Other causes are not ours; of ours there may be more, if other programs sent some
                // too.
                let Some(ours) = expected.get(&key).copied() else { continue };
                let others = more > ours && more - ours <= self.sent_by_others();
                if more > 0 {
                    sent.insert(key, if others { ours } else { more });
                }
            }
            sent
        });
        let kernel: u64 = self
            .pair
            .both()
            .iter()
            .zip(&self.before)
            .map(|(side, before)| Counters::of(side).since(before, "TcpOutRsts"))
            .sum();
        assert_eq!(all, kernel, "TcpOutRsts of both namespaces");
        now
    }
}

#[test]
fn closing_with_linger_zero() {
    needs_kernel!();
    let scene = Scene::new();
    let (client, server) = scene.connection();
    net::close_with_reset(server);
    scene.sent(&[("server", "linger", 1)]);
    drop(client);
    let (mut client, mut server) = scene.connection();
    client.write_all(b"request").unwrap();
    net::read_exactly(&mut server, 7).unwrap();
    net::close_with_reset(client);
    scene.sent(&[("server", "linger", 1), ("client", "linger", 1)]);
    drop(server);
    // A client that has sent nothing has only looked whether somebody listens.
    let (client, server) = scene.connection();
    net::close_with_reset(client);
    scene.sent(&[("server", "linger", 1), ("client", "linger", 1), ("client", "unused", 1)]);
    drop(server);
    scene.agent.stop();
}

#[test]
fn closing_with_data_unread() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, server) = scene.connection();
    client.write_all(b"never read").unwrap();
    let (c, s) = (&scene.pair.client.service, &scene.pair.server.service);
    scene.agent.eventually(10, |now| now.edge(c, s, scene.port, "server").received_bytes());
    drop(server);
    scene.sent(&[("server", "unread_data", 1)]);
    drop(client);
    scene.agent.stop();
}

#[test]
fn a_connection_request_without_a_listener() {
    needs_kernel!();
    let scene = Scene::new();
    let probe = scene.pair.server.within(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = net::port(&probe);
    drop(probe);
    for _ in 0..3 {
        scene.pair.client.connect((scene.pair.server.v4, port)).unwrap_err();
        scene.pair.client.connect((scene.pair.server.v6, port)).unwrap_err();
    }
    scene.sent(&[("none", "no_listener", 6)]);
    scene.agent.stop();
}

#[test]
fn data_for_a_connection_that_its_program_has_closed() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, server) = scene.connection();
    // The FIN gets lost, so that the closed socket lingers on while data arrives.
    scene.pair.client.nft_input("tcp flags & fin == fin drop");
    drop(server);
    client.write_all(b"are you there?").unwrap();
    scene.sent(&[("server", "aborted", 1)]);
    drop(client);
    scene.agent.stop();
}

#[test]
fn data_for_a_connection_in_time_wait() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, server) = scene.connection();
    drop(server);
    // Once its FIN is acknowledged, little is left of the server's socket.
    let (c, s) = (&scene.pair.client.service, &scene.pair.server.service);
    scene.agent.eventually(0, |now| now.edge(c, s, scene.port, "server").active());
    client.write_all(b"are you there?").unwrap();
    scene.sent(&[("none", "no_connection", 1)]);
    drop(client);
    scene.agent.stop();
}

#[test]
fn data_for_a_connection_that_is_forgotten() {
    needs_kernel!();
    for listening in [true, false] {
        let mut scene = Scene::new();
        let (mut client, server) = scene.connection();
        // The reset gets lost: the server has closed, the client does not know it yet.
        scene.pair.client.nft_input("tcp flags & rst == rst drop");
        net::close_with_reset(server);
        scene.sent(&[("server", "linger", 1)]);
        scene.pair.client.nft_flush();
        if !listening {
            scene.listener = scene.pair.server.listen("0.0.0.0:0");
        }
        client.write_all(b"are you there?").unwrap();
        // A listener there answers for the port.
        let by = if listening { "listener" } else { "none" };
        scene.sent(&[("server", "linger", 1), (by, "no_connection", 1)]);
        drop(client);
        scene.agent.stop();
    }
}

#[test]
fn keep_alive_probes_without_an_answer() {
    needs_kernel!();
    let scene = Scene::new();
    let (client, server) = scene.connection();
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1);
    SockRef::from(&client).set_tcp_keepalive(&keepalive).unwrap();
    scene.pair.server.nft_input("tcp flags & ack == ack drop");
    let now = scene.sent(&[("client", "keepalive_timeout", 1)]);
    let (c, s) = (&scene.pair.client.service, &scene.pair.server.service);
    assert_eq!(now.edge(c, s, scene.port, "client").active(), 0, "the kernel gave it up");
    assert_eq!(
        now.edge(c, s, scene.port, "server").active(),
        1,
        "the server was is_reported nothing"
    );
    drop((client, server));
    scene.agent.stop();
}
