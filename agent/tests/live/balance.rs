//! Balance: the agent's figures per backend equal those of the backends' access logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use tempfile::TempDir;

use crate::agent::Agent;
use crate::exactness::{Server, free_port_in, missing};
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::segments::portolan;

const REQUESTS: u64 = 1100;

/// One nginx that is several backends, each with an address and an access log of its own.
pub struct Backends {
    /// The port of all of them.
    pub port: u16,
    /// The address of each.
    pub addresses: Vec<Ipv4Addr>,
    server: Server,
    directory: TempDir,
}

/// A load balancer in the client's namespace.
struct Balancer {
    port: u16,
    _server: Server,
    _directory: TempDir,
}

// === impl Backends ===

impl Backends {
    /// Starts so many.
    pub fn start(namespace: &Namespace, count: u8) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (root, port) = (directory.path().display(), free_port_in(namespace));
        let [a, b, c, d] = namespace.v4.octets();
        let addresses: Vec<_> = (0..count).map(|i| Ipv4Addr::new(a, b, c, d + i)).collect();
        let mut servers = String::new();
        for (i, address) in addresses.iter().enumerate() {
            if i > 0 {
                let address = format!("{address}/24");
                let add = ["addr", "add", &address, "dev", "veth0"];
                let done = namespace.command("ip").args(add).status().expect("starting ip");
                assert!(done.success());
            }
            let _ = writeln!(
                servers,
                "server {{ listen {address}:{port}; access_log {root}/{address} one; location / {{ return 200 ok; }} }}"
            );
        }
        let configuration = format!(
            "{} log_format one '$connection $connection_requests'; {servers} }}\n",
            nginx_head(&directory)
        );
        let server = nginx(namespace, &directory, port, &configuration);
        Self { port, addresses, server, directory }
    }

    /// Requests of each so far, by its access log, in the order of the addresses.
    pub fn requests(&self) -> Vec<u64> {
        let log = |address: &Ipv4Addr| {
            let text = fs::read_to_string(self.directory.path().join(address.to_string()));
            text.unwrap_or_default().lines().count() as u64
        };
        self.addresses.iter().map(log).collect()
    }

    /// Connections and requests of each, by its access log.
    fn stop(self) -> BTreeMap<String, (u64, u64)> {
        let Self { port, addresses, server, directory } = self;
        drop(server);
        let log = |address: &Ipv4Addr| {
            let path = directory.path().join(address.to_string());
            let text = fs::read_to_string(path).expect("an access log");
            let connections: BTreeSet<&str> =
                text.lines().filter_map(|line| line.split(' ').next()).collect();
            (format!("{address}:{port}"), (connections.len() as u64, text.lines().count() as u64))
        };
        addresses.iter().map(log).collect()
    }
}

/// The head of an nginx.conf that keeps to a directory, up to what is in http {}.
pub fn nginx_head(directory: &TempDir) -> String {
    let root = directory.path().display();
    format!(
        "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; keepalive_requests 10000000; client_body_temp_path {root};\n\
         proxy_temp_path {root}; fastcgi_temp_path {root}; uwsgi_temp_path {root};\n\
         scgi_temp_path {root};\n"
    )
}

fn nginx(namespace: &Namespace, directory: &TempDir, port: u16, configuration: &str) -> Server {
    let file = directory.path().join("nginx.conf");
    fs::write(&file, configuration).expect("writing a configuration");
    let mut command = namespace.command("nginx");
    command.arg("-c").arg(&file).arg("-e").arg(directory.path().join("error"));
    Server::start(&mut command, namespace, port, libc::SIGQUIT)
}

// === impl Balancer ===

impl Balancer {
    /// nginx that chooses the backend by a hash of the query: uneven, if the keys are few.
    fn by_hash(namespace: &Namespace, backends: &Backends) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port_in(namespace);
        let mut servers = String::new();
        for address in &backends.addresses {
            let _ = write!(servers, "server {address}:{}; ", backends.port);
        }
        let configuration = format!(
            "{} upstream api {{ hash $arg_key; {servers} }}\n\
             server {{ listen {}:{port}; location / {{ proxy_pass http://api; }} }} }}\n",
            nginx_head(&directory),
            namespace.v4
        );
        let server = nginx(namespace, &directory, port, &configuration);
        Self { port, _server: server, _directory: directory }
    }

    /// HAProxy with weights 10 to 1.
    fn by_weight(namespace: &Namespace, backends: &Backends) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port_in(namespace);
        let mut servers = String::new();
        for (i, (address, weight)) in backends.addresses.iter().zip([10, 1]).enumerate() {
            let _ = writeln!(servers, "  server s{i} {address}:{} weight {weight}", backends.port);
        }
        let configuration = format!(
            "global\n  maxconn 256\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             listen api\n  bind {}:{port}\n  balance roundrobin\n{servers}",
            namespace.v4
        );
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, configuration).expect("writing a configuration");
        let mut command = namespace.command("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let server = Server::start(&mut command, namespace, port, libc::SIGTERM);
        Self { port, _server: server, _directory: directory }
    }
}

/// Sends one request after the other, three of four for the same key.
fn ask(client: &Namespace, port: u16) {
    let address = SocketAddr::from((client.v4, port));
    let mut stream = client.connect(address).expect("connecting to the balancer");
    net::patient(&stream);
    for i in 0..REQUESTS {
        let key = if i % 4 == 0 { 1 + i / 4 % 12 } else { 0 };
        let question = format!("GET /?key={key} HTTP/1.1\r\nHost: balance\r\n\r\n");
        // In one piece: a second small one would wait for an acknowledgement.
        io::Write::write_all(&mut stream, question.as_bytes()).expect("asking");
        read_answer(&mut stream);
    }
}

/// Reads one response, whose body is `ok`, with a length or in chunks.
fn read_answer(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    let is_whole = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        if is_chunked { body.ends_with("0\r\n\r\n") } else { body == "ok" }
    };
    while !is_whole(&answer) {
        let mut some = [0; 4096];
        let read = stream.read(&mut some).expect("an answer");
        assert!(read > 0, "the balancer closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..read]);
    }
}

/// The group of this client and port, in JSON.
fn group(agent: &Agent, client: &str, port: u16) -> serde_json::Value {
    let answer = agent.json("/api/v1/balance?service=nginx");
    let groups = answer["groups"].as_array().expect("a list").iter();
    let mut groups = groups.filter(|group| {
        group["client"] == client && group["port"] == port && group["role"] == "client"
    });
    groups.next().cloned().unwrap_or_default()
}

/// Connections and requests of each backend, from the agent.
fn shares(group: &serde_json::Value) -> BTreeMap<String, (u64, u64)> {
    let backends = group["backends"].as_array().cloned().unwrap_or_default();
    let count = |backend: &serde_json::Value, what: &str| backend[what].as_u64().unwrap_or(0);
    let name = |backend: &serde_json::Value| backend["backend"].as_str().unwrap_or("").to_owned();
    backends.iter().map(|b| (name(b), (count(b, "connections"), count(b, "requests")))).collect()
}

/// Waits until all requests are counted.
fn settled(agent: &Agent, client: &str, port: u16) -> serde_json::Value {
    let labels = [("client", client), ("server", "nginx"), ("role", "client")];
    agent.eventually(REQUESTS, |now| {
        let port = port.to_string();
        let labels: Vec<_> = labels.iter().copied().chain([("port", port.as_str())]).collect();
        now.sum("portolan_backend_requests_total", &labels)
    });
    group(agent, client, port)
}

/// The command prints the same numbers.
fn printed(agent: &Agent, expected: &BTreeMap<String, (u64, u64)>) -> String {
    let said = portolan(agent, &["balance", "nginx"]);
    for (backend, (connections, requests)) in expected {
        let counts: Vec<u64> = said
            .lines()
            .filter(|line| line.trim_start().starts_with(&format!("{backend} ")))
            .filter_map(|line| {
                line.split("expected").next()?.split_whitespace().last()?.parse().ok()
            })
            .collect();
        assert_eq!(counts, [*connections, *requests], "{backend}:\n{said}");
    }
    said
}

#[test]
fn shares_behind_a_hashing_nginx_are_those_of_the_access_logs() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let backends = Backends::start(&pair.server, 3);
    let agent = Agent::start();
    let port = backends.port;
    let balancer = Balancer::by_hash(&pair.client, &backends);
    ask(&pair.client, balancer.port);
    let group = settled(&agent, "nginx", port);
    let logs = backends.stop();
    let served: BTreeMap<_, _> =
        logs.iter().filter(|(_, (_, n))| *n > 0).map(|(k, v)| (k.clone(), *v)).collect();
    println!("{logs:?}");
    assert_eq!(shares(&group), served);
    assert_eq!(served.values().map(|(_, requests)| requests).sum::<u64>(), REQUESTS);
    // One key has most requests, and its backend the connections: nginx opens one for each.
    assert_eq!(group["requests"]["verdict"], "unbalanced", "{group}");
    assert_eq!(group["connections"]["verdict"], "unbalanced", "{group}");
    let said = printed(&agent, &served);
    assert!(said.contains("UNBALANCED"), "{said}");
    drop(balancer);
    agent.stop();
}

#[test]
fn shares_behind_a_weighted_haproxy_are_those_of_the_access_logs() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx", "haproxy"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let weights = format!("{}=10", pair.server.v4);
    let backends = Backends::start(&pair.server, 2);
    let agent = Agent::with(&[("balance.weights", &weights)]);
    let port = backends.port;
    let balancer = Balancer::by_weight(&pair.client, &backends);
    ask(&pair.client, balancer.port);
    let group = settled(&agent, "haproxy", port);
    // Ends its connections, so that the logs have them all.
    drop(balancer);
    let logs = backends.stop();
    println!("{logs:?}");
    assert_eq!(shares(&group), logs);
    let requests: Vec<u64> = logs.values().map(|(_, requests)| *requests).collect();
    assert_eq!(requests, [1000, 100], "HAProxy keeps to its weights");
    // As declared; without the declaration it would be off by 41 points.
    assert_eq!(group["requests"]["verdict"], "balanced", "{group}");
    let said = printed(&agent, &logs);
    assert!(said.contains("requests: balanced, within 0.0 points"), "{said}");
    agent.stop();
}

#[test]
fn a_declared_backend_that_got_nothing_is_there_with_zero() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx", "haproxy"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    // HAProxy knows two of them.
    let backends = Backends::start(&pair.server, 3);
    let [first, .., idle] = backends.addresses[..] else { panic!("three addresses") };
    let port = backends.port;
    let agent = Agent::with(&[("balance.weights", &format!("{first}=10,{idle}:{port}=1"))]);
    let balancer = Balancer::by_weight(&pair.client, &backends);
    ask(&pair.client, balancer.port);
    let _ = settled(&agent, "haproxy", port);
    // The endpoints of Services are looked up every few seconds.
    agent.eventually(3, |_| shares(&group(&agent, "haproxy", port)).len());
    let group = group(&agent, "haproxy", port);
    drop(balancer);
    let logs = backends.stop();
    println!("{logs:?} {group}");
    assert_eq!(shares(&group), logs);
    assert_eq!(logs[&format!("{idle}:{port}")], (0, 0));
    // One of 12 was due to the one that got nothing.
    let deviation = group["requests"]["deviation"].as_f64().expect("there were requests");
    assert!((deviation - 1.0 / 12.0).abs() < 1e-9, "{deviation}");
    assert_eq!(group["requests"]["verdict"], "unbalanced", "{group}");
    let said = printed(&agent, &logs);
    assert!(said.contains("UNBALANCED, off by 8.3 points"), "{said}");
    agent.stop();
}
