//! Services for which a real systemd has opened the listening socket: their connections are theirs,
//! not systemd's, also where it accepts and starts an instance for each.

use super::units::{Machine, missing};
use super::{Edge, edge, edges, end, expect};
use crate::agent::Agent;

const TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=portolan-door.socket \
    portolan-each.socket portolan-short.socket portolan-caller.service\n";
/// The service takes the listening socket over, once somebody connects.
const DOOR: &str = "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=0.0.0.0:8081\n";
const DOOR_SERVICE: &str = "[Unit]\nDefaultDependencies=no\n[Service]\n\
    ExecStart=/usr/bin/python3 -c 'import socket; door = socket.socket(fileno=3); \
    any(door.accept()[0].close() for _ in iter(int, 1))'\n";
/// An instance for each connection, which lasts as long as that.
const EACH: &str =
    "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=0.0.0.0:8082\nAccept=yes\n";
const EACH_SERVICE: &str =
    "[Unit]\nDefaultDependencies=no\n[Service]\nStandardInput=socket\nExecStart=/bin/cat\n";
/// An instance for each connection, which is gone before anybody can look at it.
const SHORT: &str =
    "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=0.0.0.0:8083\nAccept=yes\n";
const SHORT_SERVICE: &str =
    "[Unit]\nDefaultDependencies=no\n[Service]\nStandardInput=socket\nExecStart=/bin/true\n";
const CALLER: &str = "
import socket, time
kept = []
while True:
    for port in (8081, 8083):
        socket.create_connection(('127.0.0.1', port)).close()
    kept = kept[-2:] + [socket.create_connection(('127.0.0.1', 8082))]
    time.sleep(0.5)
";
const CALLER_SERVICE: &str = "[Unit]\nDefaultDependencies=no\n\
    After=portolan-door.socket portolan-each.socket portolan-short.socket\n[Service]\n\
    ExecStart=/usr/bin/python3 /etc/systemd/system/portolan-caller.py\n";

fn expected() -> Vec<Edge> {
    let (caller, nobody) = ("/portolan-caller", "portolan-caller/127.0.0.1");
    vec![
        edge(caller, "/portolan-door", 8081, "client", ("unit", "listener")),
        edge(caller, "/portolan-door", 8081, "server", ("unit", "unit")),
        edge(caller, "/portolan-each", 8082, "client", ("unit", "listener")),
        edge(caller, "/portolan-each", 8082, "server", ("unit", "unit")),
        // Who accepts could not be seen: then only the address is known.
        edge(caller, nobody, 8083, "client", ("unit", "address")),
        edge(caller, nobody, 8083, "server", ("unit", "address")),
    ]
}

#[test]
fn a_socket_that_systemd_opened_is_of_the_service_that_accepts_or_of_its_address() {
    needs_kernel!();
    if let Some(program) = missing() {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::with(&[("names.units", "true")]);
    let units = [
        ("portolan.target", TARGET),
        ("portolan-door.socket", DOOR),
        ("portolan-door.service", DOOR_SERVICE),
        ("portolan-each.socket", EACH),
        ("portolan-each@.service", EACH_SERVICE),
        ("portolan-short.socket", SHORT),
        ("portolan-short@.service", SHORT_SERVICE),
        ("portolan-caller.service", CALLER_SERVICE),
        ("portolan-caller.py", CALLER),
    ];
    let _machine = Machine::with(folder.path(), &units);
    let is_ours = |name: &str| name == "/portolan-caller";
    expect(&agent, &expected(), is_ours);
    // The sockets themselves, too: the one of which the service is not known is systemd's.
    for (port, service) in [("8081", "portolan-door"), ("8082", "portolan-each")] {
        let labels = [("port", port), ("service", service)];
        assert!(agent.scrape().has("portolan_port_listeners", &labels), "{port}");
    }
    agent.stop();
    // All of it is there before this one.
    let agent = Agent::with(&[("names.units", "true")]);
    expect(&agent, &expected(), is_ours);
    let all = edges(&agent);
    let activators = all.iter().filter(|row| end(row, "server").ends_with("/systemd"));
    assert_eq!(activators.count(), 0);
    agent.stop();
}
