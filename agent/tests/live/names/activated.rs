//! Services for which a real systemd has opened the listening socket: their connections are theirs,
//! not systemd's, also where it accepts and starts an instance for each.

use super::units::{Machine, missing};
use super::{Edge, edge, edges, end, expect, text, until};
use crate::agent::Agent;

const TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=portolan-door.socket \
    portolan-each.socket portolan-short.socket portolan-caller.service portolan-visitor.service\n";
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
/// An instance for each connection, which is gone before it can be seen, unless the host is busy.
const SHORT: &str =
    "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=0.0.0.0:8083\nAccept=yes\n";
const SHORT_SERVICE: &str =
    "[Unit]\nDefaultDependencies=no\n[Service]\nStandardInput=socket\nExecStart=/bin/true\n";
const CALLER: &str = "
import socket, sys, time
kept = []
while True:
    socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()
    for port in sys.argv[2:]:
        kept = kept[-2:] + [socket.create_connection(('127.0.0.1', int(port)))]
    time.sleep(0.5)
";
const CALLER_SERVICE: &str = "[Unit]\nDefaultDependencies=no\n\
    After=portolan-door.socket portolan-each.socket portolan-short.socket\n[Service]\n\
    ExecStart=/usr/bin/python3 /etc/systemd/system/portolan-caller.py 8081 8082\n";
const VISITOR_SERVICE: &str = "[Unit]\nDefaultDependencies=no\nAfter=portolan-short.socket\n[Service]\n\
    ExecStart=/usr/bin/python3 /etc/systemd/system/portolan-caller.py 8083\n";

fn expected() -> Vec<Edge> {
    let caller = "/portolan-caller";
    vec![
        edge(caller, "/portolan-door", 8081, "client", ("unit", "listener")),
        edge(caller, "/portolan-door", 8081, "server", ("unit", "unit")),
        edge(caller, "/portolan-each", 8082, "client", ("unit", "listener")),
        edge(caller, "/portolan-each", 8082, "server", ("unit", "unit")),
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
        ("portolan-visitor.service", VISITOR_SERVICE),
        ("portolan-caller.py", CALLER),
    ];
    let _machine = Machine::with(folder.path(), &units);
    let is_ours = |name: &str| name == "/portolan-caller";
    expect(&agent, &expected(), is_ours);
    knows_no_more_than_can_be_seen(&agent);
    // The sockets themselves, too: the one of which the service is not known is systemd's.
    for (port, service) in [("8081", "portolan-door"), ("8082", "portolan-each")] {
        let labels = [("port", port), ("service", service)];
        assert!(agent.scrape().has("portolan_port_listeners", &labels), "{port}");
    }
    agent.stop();
    // All of it is there before this one.
    let agent = Agent::with(&[("names.units", "true")]);
    expect(&agent, &expected(), is_ours);
    knows_no_more_than_can_be_seen(&agent);
    agent.stop();
}

/// The server that the visitor connects to is the short service if it could be seen, else an
/// address: on both sides, and soon the same.
fn knows_no_more_than_can_be_seen(agent: &Agent) {
    until("both sides have one name", || {
        let all = edges(agent);
        let rows = all.iter().filter(|row| end(row, "client") == "/portolan-visitor");
        let mut found: Vec<_> = rows.map(|row| (text(row, "role"), end(row, "server"))).collect();
        found.sort();
        let both = |name: &str| ["client", "server"].map(|role| (role.to_owned(), name.to_owned()));
        let names = ["/portolan-short", "portolan-visitor/127.0.0.1"];
        names.iter().any(|name| found == both(name))
    });
}
