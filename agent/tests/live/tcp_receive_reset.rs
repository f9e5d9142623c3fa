//! Received resets: the cause is inferred from the state of the connection.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

struct Scene {
    pair: Pair,
    agent: Agent,
    port: u16,
    listener: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let pair = Pair::new();
        let agent = Agent::start();
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        Self { pair, agent, port, listener }
    }

    fn connection(&self) -> (TcpStream, TcpStream) {
        let client = self.pair.client.connect((self.pair.server.v4, self.port)).unwrap();
        (client, net::accept(&self.listener))
    }

    /// One exchange, so that the connection has been used.
    fn turn(client: &mut TcpStream, server: &mut TcpStream) {
        client.write_all(b"request").unwrap();
        net::read_exactly(server, 7).unwrap();
        server.write_all(b"response").unwrap();
        net::read_exactly(client, 8).unwrap();
    }

    /// Answers every request to the server with a reset, like a firewall that has lost its state.
    fn reset_requests(&self) {
        let rule = format!("tcp dport {} meta length > 52 reject with tcp reset", self.port);
        self.pair.server.nft_input(&rule);
    }

    /// Waits until `role` has received these resets and no others.
    #[track_caller]
    fn received(&self, role: &str, expected: &[(&str, u64)]) {
        let expected: BTreeMap<String, u64> =
            expected.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect();
        let (client, server) = (&self.pair.client.service, &self.pair.server.service);
        self.agent.eventually(expected, |now| {
            now.edge(client, server, self.port, role).resets_by_cause("received")
        });
    }
}

#[test]
fn a_refused_connect_met_no_listener() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    for address in [IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6)] {
        let probe = pair.server.within(|| TcpListener::bind("[::]:0").unwrap());
        let port = net::port(&probe);
        drop(probe);
        pair.client.connect((address, port)).unwrap_err();
        agent.eventually((1, 1), |now| {
            let port = port.to_string();
            let edge = now.edges(&[("client", &pair.client.service), ("port", &port)]);
            (edge.resets("received", "no_listener"), edge.connects("refused"))
        });
    }
    agent.stop();
}

#[test]
fn a_cut_in_use_is_an_abort_on_either_side() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    Scene::turn(&mut client, &mut server);
    net::close_with_reset(server);
    scene.received("client", &[("aborted", 1)]);
    let (mut client, mut server) = scene.connection();
    Scene::turn(&mut client, &mut server);
    net::close_with_reset(client);
    scene.received("server", &[("aborted", 1)]);
    scene.agent.stop();
}

#[test]
fn a_cut_while_the_request_is_worked_on_is_an_abort() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    Scene::turn(&mut client, &mut server);
    client.write_all(b"request").unwrap();
    net::read_exactly(&mut server, 7).unwrap();
    net::close_with_reset(server);
    scene.received("client", &[("aborted", 1)]);
    scene.agent.stop();
}

#[test]
fn a_request_to_a_server_that_closed_its_idle_connection_is_idle_reuse() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    Scene::turn(&mut client, &mut server);
    drop(server);
    let (c, s) = (&scene.pair.client.service, &scene.pair.server.service);
    scene.agent.eventually(0, |now| now.edge(c, s, scene.port, "server").active());
    client.write_all(b"request").unwrap();
    scene.received("client", &[("idle_reuse", 1)]);
    scene.agent.stop();
}

#[test]
fn a_request_on_a_connection_that_a_firewall_forgot_is_idle_reuse() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    Scene::turn(&mut client, &mut server);
    scene.reset_requests();
    // A connection is idle after a second of silence; the test needs this pause.
    thread::sleep(Duration::from_millis(1100));
    client.write_all(b"request").unwrap();
    scene.received("client", &[("idle_reuse", 1)]);
    drop(server);
    scene.agent.stop();
}

#[test]
fn the_same_without_a_pause_is_an_abort() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    scene.reset_requests();
    // The connection is young: nothing was idle.
    client.write_all(b"request").unwrap();
    scene.received("client", &[("aborted", 1)]);
    drop(server.write_all(b"x"));
    scene.agent.stop();
}

#[test]
fn a_reset_connection_is_no_longer_active() {
    needs_kernel!();
    let scene = Scene::new();
    let open: Vec<_> = (0..5).map(|_| scene.connection()).collect();
    for (client, server) in open {
        net::close_with_reset(server);
        drop(client);
    }
    scene.received("client", &[("aborted", 5)]);
    let (c, s) = (&scene.pair.client.service, &scene.pair.server.service);
    scene.agent.eventually((0, 0, 5, 5), |now| {
        let (a, b) = (now.edge(c, s, scene.port, "client"), now.edge(c, s, scene.port, "server"));
        (a.active(), b.active(), a.connects("ok"), b.connects("ok"))
    });
    scene.agent.stop();
}
