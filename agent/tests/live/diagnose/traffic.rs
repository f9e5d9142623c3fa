//! Connections of a pair of namespaces, and when the agent or the kernel has seen them.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::facts::patience;
use crate::namespace::{Namespace, Pair};
use crate::net;

/// `CLIENT SERVER:PORT` of a pair.
pub(super) fn words(pair: &Pair, port: u16) -> [String; 2] {
    [pair.client.service.clone(), format!("{}:{port}", pair.server.service)]
}

/// Tries to connect from the client, and gives up soon.
pub(super) fn try_connect(pair: &Pair, to: SocketAddr) -> std::io::Result<TcpStream> {
    pair.client.act(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)))
}

/// Waits until the agent has this result of connects from the client of a pair.
pub(super) fn connects(agent: &Agent, pair: &Pair, port: u16, result: &str, n: u64) {
    let port = port.to_string();
    agent.eventually(n, |now| {
        now.edges(&[("client", &pair.client.service), ("port", &port), ("role", "client")])
            .connects(result)
    });
}

/// A listener of the server of a pair, and its port; one client has connected to it.
pub(super) fn served(pair: &Pair) -> (TcpListener, u16) {
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let client = pair.client.connect((pair.server.v4, port)).expect("a listener of ours");
    drop((net::accept(&listener), client));
    (listener, port)
}

/// Waits until something listens on a port, without a connect.
pub(super) fn listens(namespace: &Namespace, port: u16) {
    let port = format!(":{port:04X}");
    let listens = || {
        let tables = ["tcp", "tcp6"].map(|name| format!("/proc/thread-self/net/{name}"));
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let tables = namespace.within(|| tables.each_ref().map(read));
        tables.iter().flat_map(|table| table.lines()).any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // State 0A is LISTEN.
            fields.get(1).is_some_and(|local| local.ends_with(&port))
                && fields.get(3) == Some(&"0A")
        })
    };
    let began = Instant::now();
    while !listens() {
        assert!(began.elapsed() < patience(Duration::from_secs(10)), "nothing listens on {port}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// One exchange of a connection.
pub(super) fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"request").unwrap();
    net::read_exactly(server, 7).unwrap();
    server.write_all(b"response").unwrap();
    net::read_exactly(client, 8).unwrap();
}
