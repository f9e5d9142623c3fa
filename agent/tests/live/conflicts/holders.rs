//! Who has a port now: not the process that bound it, where that has left it to another one; the
//! kernel, where no process has it; a client, where the kernel gave it the port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::claim::{Claim, conflict_of};
use crate::agent::Agent;
use crate::facts::{self, patience};
use crate::holder::Holder;
use crate::namespace::{Namespace, Pair};

/// The table is brought up to date every ten seconds.
const WITHIN: Duration = Duration::from_secs(20);

/// A program that is killed in the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

/// The rows of a port of a namespace in the table of ports.
fn rows(agent: &Agent, namespace: &Namespace, port: u16) -> Vec<Value> {
    let ports = agent.json(&format!("/api/v1/ports?port={port}"));
    let rows = ports["ports"].as_array().expect("a list").iter();
    rows.filter(|row| row["netns"] == namespace.inode()).cloned().collect()
}

/// The holder of a port in the table, as name and process.
fn holder(agent: &Agent, namespace: &Namespace, port: u16) -> Option<(String, u64)> {
    let rows = rows(agent, namespace, port);
    let holder = &rows.first()?["holder"];
    Some((holder["service"]["name"].as_str()?.to_owned(), holder["pid"].as_u64()?))
}

/// The holder in the conflict of a program that wants the port.
fn conflict(agent: &Agent, place: &Namespace, claimant: &str, claim: Claim, port: u16) -> Value {
    place.act_as(claimant, || claim.bind().expect_err("it is taken"));
    conflict_of(agent, claimant, port)
}

#[test]
fn the_holder_is_the_process_that_was_left_the_socket() {
    needs_kernel!();
    let pair = Pair::new();
    let place = &pair.server;
    let agent = Agent::start();
    // Bound by a process that goes on without it, as after fork or SCM_RIGHTS.
    let listener = place.act_as("the-binder", || TcpListener::bind(at(7101)).expect("free"));
    agent.eventually(Some(("the-binder".to_owned(), u64::from(std::process::id()))), |_| {
        holder(&agent, place, 7101)
    });
    let heir = Holder::new("the-heir", vec![listener.into()]);
    let found = conflict(&agent, place, "wants-7101", Claim::tcp(at(7101)), 7101);
    assert_eq!(found["holder"]["service"]["name"], "the-heir", "{found:#}");
    assert_eq!(found["holder"]["pid"], heir.pid(), "{found:#}");
    assert!(found["holder"]["since"].is_string(), "since it was bound: {found:#}");
    let expected = Some(("the-heir".to_owned(), u64::from(heir.pid())));
    let began = Instant::now();
    while holder(&agent, place, 7101) != expected {
        assert!(began.elapsed() < patience(WITHIN), "{:#?}", rows(&agent, place, 7101));
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(heir);
    agent.stop();
}

#[test]
fn a_socket_that_was_opened_for_a_service_is_the_services() {
    needs_kernel!();
    let activate = "systemd-socket-activate";
    if Command::new(activate).arg("--version").output().is_err() {
        println!("SKIPPED: {activate} is not installed");
        return;
    }
    let pair = Pair::new();
    let place = &pair.server;
    let agent = Agent::start();
    let mut command = place.command(activate);
    command.args(["--listen", "0.0.0.0:7102", "sleep", "600"]);
    let running = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let running = Running(running.expect("it is installed"));
    let opened = || rows(&agent, place, 7102).len();
    agent.eventually(1, |_| opened());
    // The first connection starts the service, in the same process.
    let _client = pair.client.connect((place.v4, 7102)).expect("it listens");
    let started = || std::fs::read_to_string(format!("/proc/{}/comm", running.0.id()));
    agent.eventually(true, |_| started().is_ok_and(|comm| comm.trim() == "sleep"));
    let found = conflict(&agent, place, "wants-7102", Claim::tcp(at(7102)), 7102);
    assert_eq!(found["holder"]["service"]["name"], "sleep", "{found:#}");
    assert_eq!(found["holder"]["pid"], running.0.id(), "{found:#}");
    drop(running);
    agent.stop();
}

#[test]
fn a_socket_of_the_kernel_is_no_programs() {
    needs_kernel!();
    let pair = Pair::new();
    let place = &pair.server;
    let agent = Agent::start();
    if facts::refuses_iterators_over_maps() {
        println!(
            "SKIPPED: this kernel refuses iterators over maps, and no process holds the socket"
        );
        return;
    }
    let add = ["link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "dev", "veth0"];
    if !place.command("ip").args(add).status().expect("iproute2 is installed").success() {
        println!("SKIPPED: this kernel has no vxlan");
        return;
    }
    let up = place.command("ip").args(["link", "set", "vx0", "up"]).status();
    assert!(up.expect("iproute2 is installed").success());
    agent.eventually(Some(("kernel".to_owned(), 0)), |_| holder(&agent, place, 4789));
    let found = conflict(&agent, place, "wants-4789", Claim::udp(at(4789)), 4789);
    let holder = &found["holder"];
    assert_eq!(holder["service"]["name"], "kernel", "{found:#}");
    assert_eq!((&holder["command"], &holder["pid"]), (&"vxlan".into(), &0.into()), "{found:#}");
    let finding = found["finding"].to_string();
    assert!(finding.contains("kernel (vxlan) has h"), "{finding}");
    assert!(finding.contains("ip -d link"), "{finding}");
    agent.stop();
}

#[test]
fn a_client_that_got_the_port_is_named_with_the_way_to_keep_it_free() {
    needs_kernel!();
    let pair = Pair::new();
    let place = &pair.server;
    let agent = Agent::start();
    // What a client's endless attempts to connect to a port without a server end in.
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 40_103);
    let itself = place.act_as("narcissus", || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&own.into()).expect("a free port");
        socket.connect(&own.into()).expect("both ends are one");
        TcpStream::from(socket)
    });
    let claim = |port| Claim::tcp(at(port)).reuse_address();
    let found = conflict(&agent, place, "wants-40103", claim(40_103), 40_103);
    assert_eq!(found["reason"], "self_connected", "{found:#}");
    assert_eq!(found["holder"]["pid"], std::process::id(), "{found:#}");
    let finding = found["finding"].to_string();
    assert!(finding.contains("ip_local_reserved_ports=40103"), "{finding}");
    // And a client of another server, whose port the kernel chose.
    let server = pair.client.listen((Ipv4Addr::UNSPECIFIED, 7104));
    let client = place.act_as("the-client", || TcpStream::connect((pair.client.v4, 7104)));
    let client = client.expect("a listener of ours");
    let taken = client.local_addr().expect("it has one").port();
    let found = conflict(&agent, place, "wants-any", claim(taken), taken);
    assert_eq!(found["reason"], "outgoing_connection", "{found:#}");
    let finding = found["finding"].to_string();
    assert!(finding.contains(&format!("ip_local_reserved_ports={taken}")), "{finding}");
    drop((itself, server, client));
    agent.stop();
}
