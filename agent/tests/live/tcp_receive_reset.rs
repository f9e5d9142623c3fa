//! Received resets: the cause is inferred from the state of the connection.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

/// A connection is idle after a second of silence; tests of that need the pause.
const IDLE: Duration = Duration::from_millis(1100);

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
    fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
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
    Scene::exchange(&mut client, &mut server);
    net::close_with_reset(server);
    scene.received("client", &[("aborted", 1)]);
    let (mut client, mut server) = scene.connection();
    Scene::exchange(&mut client, &mut server);
    net::close_with_reset(client);
    scene.received("server", &[("aborted", 1)]);
    scene.agent.stop();
}

#[test]
fn a_cut_while_the_request_is_worked_on_is_an_abort() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    Scene::exchange(&mut client, &mut server);
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
    Scene::exchange(&mut client, &mut server);
    thread::sleep(IDLE);
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
    Scene::exchange(&mut client, &mut server);
    scene.reset_requests();
    thread::sleep(IDLE);
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

/// What a server does that never answers.
#[derive(Clone, Copy, Debug)]
enum Deaf {
    /// It reads everything, and ends.
    Reads,
    /// It reads nothing, and ends with data unread: its kernel resets.
    ReadsNothing,
    /// A firewall forgets the connection.
    Forgotten,
}

/// Writes a line every 20 milliseconds until that fails, or for so long.
fn write_all_the_time(client: &mut TcpStream, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time && client.write_all(b"a.b 1 2\n").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

/// A log shipper: it has not been answered for long, and is never idle.
#[test]
fn a_client_that_writes_all_the_time_is_not_idle_although_nobody_answers() {
    needs_kernel!();
    let scene = Scene::new();
    // Each has an edge of its own: the kernel may choose one port twice.
    let mut ports = 18_971..;
    for deaf in [Deaf::Reads, Deaf::ReadsNothing, Deaf::Forgotten] {
        for (address, no_delay) in
            [(IpAddr::V4(scene.pair.server.v4), true), (scene.pair.server.v6.into(), false)]
        {
            println!("{deaf:?}, {address}");
            let port: u16 = ports.next().expect("another port");
            let listener = scene.pair.server.listen((address, port));
            let mut client = scene.pair.client.connect((address, port)).unwrap();
            client.set_nodelay(no_delay).unwrap();
            let mut server = net::accept(&listener);
            let reader = match deaf {
                Deaf::Reads => Some(thread::spawn(move || {
                    let began = Instant::now();
                    let mut line = [0; 99];
                    while began.elapsed() < 2 * IDLE {
                        assert_ne!(server.read(&mut line).expect("a line"), 0);
                    }
                })),
                Deaf::ReadsNothing => Some(thread::spawn(move || {
                    thread::sleep(2 * IDLE);
                    drop(server);
                })),
                Deaf::Forgotten => {
                    write_all_the_time(&mut client, 2 * IDLE);
                    let rule = format!("tcp dport {port} reject with tcp reset");
                    scene.pair.server.nft_input(&rule);
                    None
                }
            };
            write_all_the_time(&mut client, 4 * IDLE);
            if let Some(reader) = reader {
                reader.join().unwrap();
            }
            scene.pair.server.nft_flush();
            let (c, s) = (&scene.pair.client.service, &scene.pair.server.service);
            let expected = BTreeMap::from([("aborted".to_owned(), 1)]);
            scene.agent.eventually(expected, |now| {
                now.edge(c, s, port, "client").resets_by_cause("received")
            });
        }
    }
    scene.agent.stop();
}

/// The same shipper after a pause: its server has closed in the meantime.
#[test]
fn a_client_that_is_never_answered_and_pauses_reuses_an_idle_connection() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, server) = scene.connection();
    write_all_the_time(&mut client, IDLE);
    // Longer than an acknowledgement may be delayed: a line that is sent again must not be reset.
    thread::sleep(Duration::from_millis(300));
    scene.reset_requests();
    thread::sleep(IDLE);
    client.write_all(b"a.b 1 2\n").unwrap();
    scene.received("client", &[("idle_reuse", 1)]);
    drop(server);
    scene.agent.stop();
}

#[test]
fn a_server_that_closes_between_two_requests_of_a_busy_client_is_no_idle_timeout() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    let began = Instant::now();
    while began.elapsed() < IDLE {
        Scene::exchange(&mut client, &mut server);
    }
    drop(server);
    client.write_all(b"request").unwrap();
    scene.received("client", &[("aborted", 1)]);
    scene.agent.stop();
}

/// The server has taken the request, so nothing was wrong with the connection.
#[test]
fn a_cut_of_the_first_request_after_a_pause_is_an_abort_once_it_was_taken() {
    needs_kernel!();
    let scene = Scene::new();
    let (mut client, mut server) = scene.connection();
    Scene::exchange(&mut client, &mut server);
    thread::sleep(IDLE);
    client.write_all(b"request").unwrap();
    net::read_exactly(&mut server, 7).unwrap();
    // Longer than an acknowledgement may be delayed.
    thread::sleep(Duration::from_millis(300));
    net::close_with_reset(server);
    scene.received("client", &[("aborted", 1)]);
    scene.agent.stop();
}
