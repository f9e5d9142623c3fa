//! Failures while a server stops are told apart from faults: refused connects, resets and requests
//! without a response, on both sides, and only for some seconds.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;
use crate::services::service;

/// For so long failures after the end of a listener are those of a server that stops.
const WINDOW: Duration = Duration::from_secs(5);

/// Accepts connections, reads the first byte of each, and never answers.
const SERVER: &str = "
import socket, sys
listener = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print(listener.getsockname()[1], flush=True)
kept = []
while True:
    one, _ = listener.accept()
    one.recv(1)
    kept.append(one)
";

/// A server in a process of its own, and its port.
fn serve(pair: &Pair, address: IpAddr) -> (Child, u16) {
    let mut command: Command = pair.server.command("python3");
    command.args(["-c", SERVER, &address.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

/// Of a role at a port: refused connects, resets of connections, requests without a response; and the
/// same while stopping.
fn failures(now: &Scrape, role: &str, port: u16) -> ([u64; 3], [u64; 3]) {
    let port = port.to_string();
    let of = |name: &str, label: &'static str, value: &str| {
        now.sum(name, &[("role", role), ("port", &port), (label, value)])
    };
    let resets = |cause: &str| of("portolan_tcp_resets_total", "cause", cause);
    let faults = [
        of("portolan_tcp_connects_total", "result", "refused"),
        resets("aborted") + resets("idle_reuse") + resets("unread_data"),
        of("portolan_requests_unanswered_total", "cause", "other"),
    ];
    let stopping = [
        of("portolan_tcp_connects_total", "result", "stopping"),
        resets("stopping"),
        of("portolan_requests_unanswered_total", "cause", "stopping"),
    ];
    (faults, stopping)
}

/// A process with connections in use is killed, and its clients connect again.
fn killed(address: impl Fn(&Pair) -> IpAddr) {
    let pair = Pair::new();
    let agent = Agent::start();
    let (mut child, port) = serve(&pair, address(&pair));
    let at = SocketAddr::new(address(&pair), port);
    let server = "python3";
    agent.eventually(true, |now| {
        now.has("portolan_port_listeners", &[("port", &port.to_string()), ("service", server)])
    });
    let clients: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut client = pair.client.connect(at).unwrap();
            // One byte is read, the others are not: the kernel resets at the end.
            client.write_all(b"request").unwrap();
            client
        })
        .collect();
    agent.eventually(3, |now| {
        now.sum("portolan_tcp_connects_total", &[("role", "server"), ("port", &port.to_string())])
    });
    thread::sleep(Duration::from_millis(100));
    child.kill().unwrap();
    child.wait().unwrap();
    for mut client in clients {
        net::read_to_end(&mut client).unwrap_err();
    }
    for _ in 0..4 {
        pair.client.connect(at).unwrap_err();
    }
    agent.eventually(([0; 3], [4, 3, 3]), |now| failures(now, "client", port));
    agent.eventually(([0; 3], [0, 3, 3]), |now| failures(now, "server", port));
    let health = service(&agent, server)["health"].clone();
    assert_eq!((&health["state"], &health["reasons"]), (&json!("ok"), &json!([])), "{health}");
    assert!(health["stopping"].as_u64().unwrap() >= 6, "{health}");
    // It does not come back.
    thread::sleep(WINDOW);
    agent.scrape();
    for _ in 0..2 {
        pair.client.connect(at).unwrap_err();
    }
    agent.eventually(([2, 0, 0], [4, 3, 3]), |now| failures(now, "client", port));
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn a_killed_server_cuts_and_refuses_while_it_stops_and_then_it_is_a_fault() {
    needs_kernel!();
    killed(|pair| pair.server.v4.into());
}

#[test]
fn a_killed_server_on_ipv6_likewise() {
    needs_kernel!();
    killed(|pair| pair.server.v6.into());
}

#[test]
fn failures_of_a_server_that_goes_on_are_faults() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let other = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    for _ in 0..3 {
        let mut client = pair.client.connect((pair.server.v4, port)).unwrap();
        let mut server = net::accept(&listener);
        client.write_all(b"request").unwrap();
        net::read_exactly(&mut server, 1).unwrap();
        drop(server);
        net::read_to_end(&mut client).unwrap_err();
    }
    // Another listener of the program ends, on another port.
    drop(other);
    let expected = ([0, 3, 3], [0; 3]);
    agent.eventually(expected, |now| failures(now, "client", port));
    agent.eventually(expected, |now| failures(now, "server", port));
    let health = service(&agent, &pair.server.service)["health"].clone();
    assert_eq!((&health["state"], &health["stopping"]), (&json!("degraded"), &json!(0)));
    agent.stop();
}

/// One of two sockets with SO_REUSEPORT ends, as in a rolling restart: what waits in its queue is cut.
#[test]
fn a_worker_that_ends_cuts_what_waits_in_its_queue() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listen = |port: u16| -> std::net::TcpListener {
        pair.server.act(|| {
            let address = SocketAddr::from((pair.server.v4, port));
            let socket = net::socket_for(&address);
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(64).unwrap();
            socket.into()
        })
    };
    let first = listen(0);
    let port = net::port(&first);
    let second = listen(port);
    let labels = port.to_string();
    agent.eventually(2, |now| now.sum("portolan_port_listeners", &[("port", &labels)]));
    let clients: Vec<TcpStream> =
        (0..40).map(|_| pair.client.connect((pair.server.v4, port)).unwrap()).collect();
    agent.eventually(40, |now| {
        now.sum("portolan_tcp_connects_total", &[("role", "server"), ("port", &labels)])
    });
    drop(second);
    let now = agent.eventually(true, |now| failures(now, "client", port).1[1] > 0);
    assert_eq!(failures(&now, "client", port).0, [0; 3]);
    drop((clients, first));
    agent.stop();
}
