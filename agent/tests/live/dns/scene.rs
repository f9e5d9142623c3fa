//! The scene of these tests: two namespaces, clients that query as resolvers do, and the names that
//! the agent gives to the servers.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::server;
use crate::agent::Agent;
use crate::facts::patience;
use crate::namespace::{Namespace, Pair};

/// An address of no interface: routed to the server's namespace, and local there.
pub(super) const V4: &str = "192.0.2";
pub(super) const V6: &str = "2001:db8:53";
/// Timeout of a client's query.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Timeout for a name to appear.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The two namespaces, with the servers' addresses.
pub(super) fn pair() -> Pair {
    let pair = Pair::new();
    let (v4, v6) = (pair.server.v4.to_string(), pair.server.v6.to_string());
    ip(&pair.client, &format!("route add {V4}.0/24 via {v4}"));
    ip(&pair.client, &format!("-6 route add {V6}::/64 via {v6}"));
    ip(&pair.server, &format!("route add local {V4}.0/24 dev lo"));
    ip(&pair.server, &format!("-6 route add local {V6}::/64 dev lo"));
    pair
}

pub(super) fn ip(namespace: &Namespace, arguments: &str) {
    let status = namespace.command("ip").args(arguments.split_whitespace()).status();
    assert!(status.expect("starting ip").success(), "ip {arguments}");
}

/// An agent that reads DNS answers.
pub(super) fn agent(more: &[(&str, &str)]) -> Agent {
    let mut settings = vec![("names.dns", "true")];
    settings.extend_from_slice(more);
    Agent::with(&settings)
}

/// Queries a name as musl and many resolvers do: from a socket that is not connected.
pub(super) fn ask(client: &Namespace, server: Ipv4Addr, name: &str, kind: u16) {
    client.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a UDP socket");
        exchange(&socket, &|query| socket.send_to(query, (server, 53)).map(drop), name, kind);
    });
}

/// Queries a name as glibc does: from a connected socket.
pub(super) fn ask_connected(client: &Namespace, server: Ipv4Addr, name: &str) {
    client.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a UDP socket");
        socket.connect((server, 53)).expect("connecting a UDP socket");
        exchange(&socket, &|query| socket.send(query).map(drop), name, server::A);
    });
}

fn exchange(
    socket: &UdpSocket,
    send: &dyn Fn(&[u8]) -> std::io::Result<()>,
    name: &str,
    kind: u16,
) {
    socket.set_read_timeout(Some(patience(ANSWER_WITHIN))).expect("a timeout");
    send(&server::query(name, kind)).expect("asking");
    socket.recv(&mut [0; 4096]).unwrap_or_else(|error| panic!("no answer for {name}: {error}"));
}

/// The client's edges on a port, each as (server, source, kind, connections).
pub(super) fn servers(agent: &Agent, port: u16) -> Vec<(String, String, String, u64)> {
    let answer = agent.json("/api/v1/edges");
    let edges = answer["edges"].as_array().expect("a list of edges").iter();
    let text = |edge: &Value, field: &str| edge[field].as_str().unwrap_or_default().to_owned();
    edges
        .filter(|edge| edge["port"] == port && edge["role"] == "client")
        .map(|edge| {
            let [server, source, kind] =
                ["server", "server_source", "server_kind"].map(|field| text(edge, field));
            (server, source, kind, edge["opened"].as_u64().unwrap_or_default())
        })
        .collect()
}

pub(super) fn named(name: &str, connections: u64) -> (String, String, String, u64) {
    (name.to_owned(), "dns".to_owned(), "dns_name".to_owned(), connections)
}

pub(super) fn by_address(address: &str, connections: u64) -> (String, String, String, u64) {
    (address.to_owned(), "address".to_owned(), "address".to_owned(), connections)
}

#[track_caller]
pub(super) fn expect(agent: &Agent, port: u16, expected: &[(String, String, String, u64)]) {
    let began = Instant::now();
    loop {
        let found = servers(agent, port);
        if found == expected {
            return;
        }
        let sources = &agent.json("/api/v1/status")["name_sources"];
        assert!(
            began.elapsed() < patience(PATIENCE),
            "expected {expected:?}, found {found:?}; {sources}\nlost: {:?}",
            agent.scrape().losses()
        );
        std::thread::sleep(PAUSE);
    }
}

/// DNS answers: seen, exported, lost.
pub(super) fn ledger(agent: &Agent) -> (u64, u64, u64) {
    let now = agent.ledger_adds_up();
    let of = |name: &str| now.sum(name, &[("class", "dns_answer")]);
    (
        of("portolan_events_seen_total"),
        of("portolan_events_exported_total"),
        of("portolan_events_lost_total"),
    )
}

/// The source in `/api/v1/status`, if it is there.
pub(super) fn source(agent: &Agent) -> Option<Value> {
    let status = agent.json("/api/v1/status");
    let mut sources = status["name_sources"].as_array().expect("a list").iter();
    sources.find(|source| source["name"] == "dns").cloned()
}
