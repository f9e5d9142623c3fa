//! The map of a small topology of real programs, to the last number.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::exactness::{Redis, Server, free_port_in, missing};
use crate::namespace::Pair;
use crate::net;
use crate::segments::portolan;

const REQUESTS: u64 = 40;

/// A backend that queries Redis once for every request, over one connection.
const BACKEND: &str = r"
const http = require('http'), net = require('net');
const [port, redisPort, redisHost] = process.argv.slice(2);
const redis = net.connect(Number(redisPort), redisHost);
const waiting = [];
redis.on('data', () => waiting.shift()());
http.createServer((request, response) => {
  waiting.push(() => response.end('ok'));
  redis.write('PING\r\n');
}).listen(Number(port), '127.0.0.1');
";

#[test]
fn the_map_of_a_small_topology_is_the_expected_graph() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx", "node", "redis-server"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let redis = Redis::start(&pair.server);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    let backend = |name: &str| {
        let script = root.join(name);
        fs::write(&script, BACKEND).expect("writing a script");
        let port = free_port_in(&pair.server);
        let mut command = pair.server.command("node");
        command.arg(&script).args([port.to_string(), redis.port.to_string()]);
        command.arg(pair.server.v4.to_string());
        (port, Server::start(&mut command, &pair.server, port, libc::SIGTERM))
    };
    let (a, _a) = backend("api-a.js");
    let (b, _b) = backend("api-b.js");
    let front = free_port_in(&pair.server);
    let configuration = format!(
        "daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0};\n\
         fastcgi_temp_path {0}; uwsgi_temp_path {0}; scgi_temp_path {0};\n\
         upstream api {{ server 127.0.0.1:{a}; server 127.0.0.1:{b}; }}\n\
         server {{ listen {1}:{front}; location / {{ proxy_pass http://api; }} }} }}\n",
        root.display(),
        pair.server.v4
    );
    let file = root.join("nginx.conf");
    fs::write(&file, configuration).expect("writing a configuration");
    let mut command = pair.server.command("nginx");
    command.arg("-c").arg(&file).arg("-e").arg(root.join("error"));
    let _nginx = Server::start(&mut command, &pair.server, front, libc::SIGQUIT);

    let client = &pair.client.service;
    let mut stream =
        pair.client.connect(SocketAddr::from((pair.server.v4, front))).expect("connecting");
    net::patient(&stream);
    for _ in 0..REQUESTS {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: map\r\n\r\n").expect("asking");
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") && !answer.ends_with(b"\r\n\r\nok") {
            let mut some = [0; 4096];
            let read = stream.read(&mut some).expect("an answer");
            assert!(read > 0, "nginx closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&some[..read]);
        }
    }
    let port = redis.port.to_string();
    agent.eventually(REQUESTS, |now| {
        let labels = [("server", "redis-server"), ("port", &port), ("role", "client")];
        now.sum("portolan_request_duration_seconds_count", &labels)
    });

    let (outside, inside) = (pair.client.scope(), pair.server.scope());
    // Starting at our client: the host may have other edges.
    let expected = json!({
        "nodes": [client, "api-a.js", "api-b.js", "nginx", "redis-server"],
        "edges": [
            edge([&outside, client], [&inside, "nginx"], front, 1, REQUESTS),
            edge([&inside, "nginx"], [&inside, "api-a.js"], a, REQUESTS / 2, REQUESTS / 2),
            edge([&inside, "nginx"], [&inside, "api-b.js"], b, REQUESTS / 2, REQUESTS / 2),
            edge([&inside, "api-a.js"], [&inside, "redis-server"], redis.port, 1, REQUESTS / 2),
            edge([&inside, "api-b.js"], [&inside, "redis-server"], redis.port, 1, REQUESTS / 2),
        ],
    });
    let path = format!("/api/v1/map?service={client}");
    assert_eq!(graph(&agent.json(&path)), sorted(expected.clone()));
    // The last minutes are all the time there was.
    assert_eq!(graph(&agent.json(&format!("{path}&window=300"))), sorted(expected));
    let said = portolan(&agent, &["map", client]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], pair.client.full_name(client), "{said}");
    assert!(lines[1].starts_with(&format!("└─ {inside}/nginx:{front}  ")), "{said}");
    assert!(said.contains(&format!("   ├─ {inside}/api-a.js:{a}  ")), "{said}");
    assert!(said.contains(&format!("   │  └─ {inside}/redis-server:{}  ", redis.port)), "{said}");
    let printed = portolan(&agent, &["map", client, "--output", "json"]);
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(graph(&printed), graph(&agent.json(&path)));
    for (format, beginning) in [("mermaid", "flowchart LR\n"), ("dot", "digraph portolan {\n")] {
        let said = portolan(&agent, &["map", client, "--format", format]);
        assert!(said.starts_with(beginning), "{said}");
        assert_eq!(said.matches("redis-server").count(), 1, "{said}");
    }
    agent.stop();
}

/// An edge, both sides of which are seen.
fn edge(client: [&str; 2], server: [&str; 2], port: u16, connections: u64, requests: u64) -> Value {
    let ([client_namespace, client], [server_namespace, server]) = (client, server);
    json!({
        "client": client, "client_namespace": client_namespace,
        "server": server, "server_namespace": server_namespace,
        "port": port, "seen_by": ["client"], "connections": connections, "failed": 0,
        "aborts": 0, "resets": 0, "requests": requests, "unanswered": 0, "server_requests": requests,
    })
}

/// The fields that do not depend on the speed of the machine.
fn graph(answer: &Value) -> Value {
    let names = answer["nodes"].as_array().expect("a list").iter();
    let names: Vec<Value> = names.map(|node| node["name"].clone()).collect();
    let mut edges = answer["edges"].as_array().cloned().expect("a list");
    for edge in &mut edges {
        let fields = edge.as_object_mut().expect("an object");
        fields.retain(|name, _| !name.ends_with("_seconds") && !name.ends_with("_per_second"));
    }
    sorted(json!({ "nodes": names, "edges": edges }))
}

/// In an order of its own, as ports are chosen by the kernel.
fn sorted(mut graph: Value) -> Value {
    for list in ["nodes", "edges"] {
        let list = graph[list].as_array_mut().expect("a list");
        list.sort_by_key(ToString::to_string);
    }
    graph
}
