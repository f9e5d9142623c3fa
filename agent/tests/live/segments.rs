//! Violations of segments: one for every connection that is not allowed, whichever sides are seen.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

/// The networks of the test's segments.
const CONFIGURATION: &str = r#"
[segments]
allow = ["frontend -> backend", "backend -> database", "monitoring -> *"]
[segments.frontend]
networks = ["172.20.0.0/16"]
[segments.backend]
networks = ["172.21.0.0/16"]
[segments.database]
networks = ["172.22.0.0/16"]
[segments.monitoring]
networks = ["172.23.0.0/16"]
"#;

const FRONTEND: u8 = 20;
const BACKEND: u8 = 21;
const DATABASE: u8 = 22;

/// Our address in one of the networks. Other programs of this host, containers among them, may use
/// the same networks, hardly the same address.
fn at(network: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, network, std::process::id().to_le_bytes()[0] | 1, 177)
}

/// An agent with this configuration file; the folder must outlive it.
fn agent_with(configuration: &str) -> (Agent, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("portolan.toml");
    fs::write(&path, configuration).expect("writing a configuration");
    let path = path.to_str().expect("a plain path").to_owned();
    (Agent::with(&[("config", &path)]), folder)
}

/// A host with an address in each of the given networks; routes to the others lead to its peer.
fn live_in(namespace: &Namespace, addresses: &[Ipv4Addr], elsewhere: &[&str]) {
    let ip = |arguments: &str| {
        let done = namespace.command("ip").args(arguments.split(' ')).status();
        assert!(done.expect("starting ip").success(), "ip {arguments}");
    };
    for address in addresses {
        ip(&format!("addr add {address}/16 dev veth0"));
    }
    for network in elsewhere {
        ip(&format!("route add {network} dev veth0"));
    }
}

/// Frontend and backend on the client's side, the database on the server's.
fn networks() -> Pair {
    let pair = Pair::new();
    live_in(&pair.client, &[at(FRONTEND), at(BACKEND)], &["172.22.0.0/16"]);
    live_in(&pair.server, &[at(DATABASE)], &["172.20.0.0/16", "172.21.0.0/16"]);
    pair
}

/// A connection of a service on the client's side that comes from `from`.
fn connect_as(service: &str, pair: &Pair, from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    pair.client.act_as(service, || {
        let socket = net::socket_for(&to);
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of ours");
        socket.connect_timeout(&to.into(), Duration::from_secs(5)).expect("connecting");
        socket.into()
    })
}

/// Violations of this client, by segments and server.
fn violations(now: &Scrape, client: &str) -> Vec<(String, String, String, u64)> {
    now.matching("portolan_segment_violations_total", &[("client", client)])
        .map(|sample| {
            let label = |name| sample.label(name).unwrap_or_default().to_owned();
            let count = sample.value as u64;
            (label("client_segment"), label("server_segment"), label("server"), count)
        })
        .collect()
}

#[test]
fn a_frontend_that_connects_to_the_database_violates_once_per_connection() {
    needs_kernel!();
    let pair = networks();
    let (agent, _folder) = agent_with(CONFIGURATION);
    let listener = pair.server.listen((at(DATABASE), 0));
    let port = net::port(&listener);
    let to = SocketAddr::from((at(DATABASE), port));
    let expected = |count| {
        let row = ("frontend".into(), "database".into(), pair.server.service.clone(), count);
        vec![row]
    };
    let mut held = Vec::new();
    let frontend = &pair.client.service;
    let mut meet = |service: &str, from, connections: usize| {
        for _ in 0..connections {
            held.push((connect_as(service, &pair, from, to), net::accept(&listener)));
        }
    };
    meet(frontend, at(FRONTEND), 7);
    agent.eventually(expected(7), |now| violations(now, &pair.client.service));
    // The backend is allowed.
    meet("segments-api", at(BACKEND), 5);
    meet(frontend, at(FRONTEND), 3);
    agent.eventually(expected(10), |now| violations(now, &pair.client.service));
    assert_eq!(violations(&agent.scrape(), "segments-api"), []);
    // Both sides are seen, and further collections add nothing.
    let now = agent.scrape();
    for role in ["client", "server"] {
        let seen = now.sum(
            "portolan_tcp_connects_total",
            &[("server", &pair.server.service), ("role", role), ("result", "ok")],
        );
        assert_eq!(seen, 15, "as {role}");
    }
    drop(held);
    for _ in 0..5 {
        assert_eq!(violations(&agent.scrape(), &pair.client.service), expected(10));
    }

    let answer = agent.json("/api/v1/segments");
    let cell = |client: &str, server: &str| {
        let cells = answer["matrix"].as_array().expect("a list").iter();
        let mut cells = cells
            .filter(|cell| cell["client_segment"] == client && cell["server_segment"] == server);
        let cell = cells.next().cloned().unwrap_or_default();
        (cell["verdict"].clone(), cell["connections"].as_u64().unwrap_or(0))
    };
    // The matrix is of the whole host, and other containers may use the same networks.
    let (verdict, seen) = cell("frontend", "database");
    assert!(verdict == "violation" && seen >= 10, "{answer}");
    let (verdict, seen) = cell("backend", "database");
    assert!(verdict == "allowed" && seen >= 5, "{answer}");
    let all = answer["events"].as_array().expect("a list").iter();
    let events: Vec<_> = all.filter(|event| event["client"] == *frontend).collect();
    let total: u64 = events.iter().filter_map(|event| event["connections"].as_u64()).sum();
    assert_eq!(total, 10);
    for event in events {
        assert_eq!(event["client_address"], at(FRONTEND).to_string());
        assert_eq!(event["server_address"], at(DATABASE).to_string());
        assert_eq!(event["port"], port);
    }
    let log = agent.log();
    let line = format!(
        "{} in segment frontend connected to {}:{port} in segment database",
        pair.client.service, pair.server.service
    );
    assert!(log.contains(&line), "{log}");
    let said = portolan(&agent, &["segments", "violations"]);
    assert!(said.contains(&format!("{}  frontend", at(FRONTEND))), "{said}");
    let said = portolan(&agent, &["segments"]);
    assert!(said.contains("NO "), "{said}");
    agent.stop();
}

#[test]
fn a_violation_from_before_the_agent_counts_once_too() {
    needs_kernel!();
    let pair = networks();
    let listener = pair.server.listen((at(DATABASE), 0));
    let to = SocketAddr::from((at(DATABASE), net::port(&listener)));
    let client = connect_as(&pair.client.service, &pair, at(FRONTEND), to);
    let server = net::accept(&listener);
    let (agent, _folder) = agent_with(CONFIGURATION);
    // Whatever their names: this process made both sockets.
    let count = |now: &Scrape| {
        let port = to.port().to_string();
        now.sum("portolan_segment_violations_total", &[("port", &port)])
    };
    agent.eventually(1, count);
    for _ in 0..5 {
        assert_eq!(count(&agent.scrape()), 1);
    }
    drop((client, server));
    agent.stop();
}

#[test]
fn a_translated_connection_is_judged_where_it_ended() {
    needs_kernel!();
    let pair = networks();
    let (agent, _folder) = agent_with(CONFIGURATION);
    let listener = pair.server.listen((at(DATABASE), 0));
    let port = net::port(&listener);
    // Like a Service address: no interface has it, and it leads to the database.
    let database = at(DATABASE);
    pair.client.nft(&format!(
        "table ip nat {{ chain out {{ type nat hook output priority -100;\n\
         ip daddr 198.51.100.7 tcp dport 15432 dnat to {database}:{port}\n}}\n}}\n"
    ));
    let route = ["route", "add", "198.51.100.0/24", "dev", "veth0"];
    let done = pair.client.command("ip").args(route).status().expect("starting ip");
    assert!(done.success());
    let to = SocketAddr::from(([198, 51, 100, 7], 15432));
    let held: Vec<_> = (0..4)
        .map(|_| {
            (connect_as(&pair.client.service, &pair, at(FRONTEND), to), net::accept(&listener))
        })
        .collect();
    let count = |now: &Scrape| {
        now.sum("portolan_segment_violations_total", &[("server", &pair.server.service)])
    };
    agent.eventually(4, count);
    drop(held);
    for _ in 0..5 {
        assert_eq!(count(&agent.scrape()), 4);
    }
    agent.stop();
}

#[test]
fn contradictions_are_reported_with_both_lines_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("portolan.toml");
    let more = "[segments.cache]\nnetworks = [\n  \"172.22.0.0/16\",\n]\n";
    fs::write(&path, format!("{CONFIGURATION}{more}")).expect("writing a configuration");
    let mut command = std::process::Command::new(binary());
    forget_our_variables(&mut command);
    let output = command.args(["config", "check", "--config"]).arg(&path).output();
    let output = output.expect("starting portolan");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("portolan.toml:14: puts network 172.22.0.0/16"), "{said}");
    assert!(said.trim_end().ends_with("portolan.toml:9"), "{said}");
}

/// The output of a command about a running agent.
pub fn portolan(agent: &Agent, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(binary());
    forget_our_variables(&mut command);
    let output = command.args(arguments).args(["--url", &format!("http://{}", agent.address)]);
    let output = output.output().expect("starting portolan");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complained}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
