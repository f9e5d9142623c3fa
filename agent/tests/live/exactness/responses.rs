//! Responses: statuses and protocols equal what the servers and their clients count themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use super::postgres::{self, Postgres};
use super::programs::{Server, free_port_in, tls_client, tls_server};
use super::{Load, Nginx, Redis, equal, missing};
use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

/// Responses at a port, by protocol and status.
fn responses(now: &Scrape, port: u16) -> BTreeMap<String, u64> {
    let port = port.to_string();
    let mut all = BTreeMap::new();
    for sample in now.matching("portolan_responses_total", &[("port", &port), ("role", "server")]) {
        let label = |name| sample.label(name).expect("a label of the metric");
        let name = format!("{} {}", label("protocol"), label("status"));
        *all.entry(name).or_default() += sample.value as u64;
    }
    all
}

/// Connections at a port, by security and protocol.
fn security(now: &Scrape, port: u16) -> BTreeMap<String, u64> {
    let port = port.to_string();
    let labels = [("port", port.as_str()), ("role", "server")];
    let mut all = BTreeMap::new();
    for sample in now.matching("portolan_connection_security_total", &labels) {
        let label = |name| sample.label(name).expect("a label of the metric");
        let name = format!("{} {}", label("security"), label("protocol"));
        *all.entry(name).or_default() += sample.value as u64;
    }
    all
}

/// As the maps above.
fn counts<const N: usize>(all: [(&str, u64); N]) -> BTreeMap<String, u64> {
    all.map(|(name, count)| (name.to_owned(), count)).into()
}

/// nginx that answers `/NNN` with that status.
fn nginx_of_statuses(namespace: &Namespace, directory: &tempfile::TempDir) -> (Server, u16) {
    let port = free_port_in(namespace);
    let mut locations = String::new();
    for status in [200, 204, 301, 404, 429, 500, 503] {
        let _ = writeln!(locations, "location /{status} {{ return {status}; }}");
    }
    let configuration = format!(
        "{} server {{ listen {}:{port}; {locations} }} }}\n",
        crate::balance::nginx_head(directory),
        namespace.v4,
    );
    let file = directory.path().join("nginx.conf");
    fs::write(&file, configuration).expect("writing a configuration");
    let mut command = namespace.command("nginx");
    command.arg("-c").arg(&file).arg("-e").arg(directory.path().join("error"));
    (Server::start(&mut command, namespace, port, libc::SIGQUIT), port)
}

/// One request over a connection; reads the head of the response, and its body. Whether the server
/// keeps the connection.
fn ask(stream: &mut TcpStream, method: &str, path: &str) -> bool {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asking");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a response");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head is text").to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
    if method != "HEAD" {
        net::read_exactly(stream, length).expect("a body");
    }
    !head.contains("connection: close")
}

#[test]
fn statuses_of_nginx_are_those_its_client_got() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let (pair, directory) = (Pair::new(), tempfile::tempdir().expect("a temporary directory"));
    let agent = Agent::with(&[("responses", "true")]);
    let (server, port) = nginx_of_statuses(&pair.server, &directory);
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let (mut stream, mut connections) = (None, 0);
    for (turn, status) in [200, 204, 301, 404, 429, 500, 503].repeat(60).into_iter().enumerate() {
        let open = stream.get_or_insert_with(|| {
            connections += 1;
            let stream = pair.client.connect((pair.server.v4, port)).expect("connecting");
            net::patient(&stream);
            stream
        });
        let method = ["GET", "HEAD", "DELETE"][turn % 3];
        if !ask(open, method, &format!("/{status}")) {
            stream = None;
        }
        *expected.entry(format!("http {}xx", status / 100)).or_default() += 1;
    }
    agent.eventually(expected, |now| responses(now, port));
    agent.eventually(counts([("plaintext http", connections)]), |now| security(now, port));
    let errors = agent.json(&format!("/api/v1/events?kind=response&port={port}"));
    let errors: Vec<_> = errors["events"].as_array().into_iter().flatten().collect();
    assert!(errors.iter().all(|one| one["cause"] == "response_http_5xx"), "{errors:?}");
    let count: u64 = errors.iter().filter_map(|one| one["count"].as_u64()).sum();
    // 500 and 503, each 60 times.
    assert_eq!(count, 120, "{errors:?}");
    agent.ledger_adds_up();
    drop(server);
    agent.stop();
}

/// wrk is so fast that it asks again before the send of the response has returned to nginx.
#[test]
fn every_response_under_load_has_its_status() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx", "wrk"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::with(&[("responses", "true")]);
    let nginx = Nginx::start(&pair.server, 12);
    let (port, server) = (nginx.port, SocketAddr::from((pair.server.v4, nginx.port)));
    Load::wrk(&pair.client, server, 16, &[]);
    Load::wrk(&pair.client, server, 16, &["Connection: close"]);
    agent.eventually(0, |now| now.edge("wrk", "nginx", port, "server").active());
    let now = agent.ledger_adds_up();
    let log = nginx.stop();
    let found = responses(&now, port);
    // On the whole host: other servers have their part in it.
    let lost = now.sum("portolan_events_lost_total", &[("class", "response")]);
    println!("{found:?}, nginx: {log:?}, lost {lost}");
    let ok = found.get("http 2xx").copied().unwrap_or(0);
    assert!(ok <= log.answered && ok + lost + now.skipped() >= log.answered, "{found:?} {log:?}");
    assert!((log.answered - ok) * 1000 <= log.answered, "{ok} of {}", log.answered);
    assert!(log.answered > 1000, "too little load");
    agent.stop();
}

#[test]
fn replies_and_errors_of_redis() {
    needs_kernel!();
    if let Some(why) = missing(&["redis-server", "redis-benchmark"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::with(&[("responses", "true")]);
    let redis = Redis::start(&pair.server);
    let port = redis.port;
    let mut stream = pair.client.connect((pair.server.v4, port)).expect("connecting to redis");
    net::patient(&stream);
    for (command, reply) in [
        ("PING\r\n", "+PONG\r\n"),
        ("SET key value\r\n", "+OK\r\n"),
        ("GET key\r\n", "$5\r\nvalue\r\n"),
        ("GET none\r\n", "$-1\r\n"),
        (
            "LPUSH key 1\r\n",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
        ("INCR number\r\n", ":1\r\n"),
    ] {
        stream.write_all(command.as_bytes()).expect("asking redis");
        net::read_exactly(&mut stream, reply.len()).expect("a reply of redis");
    }
    agent.eventually(counts([("redis error", 1), ("redis ok", 5)]), |now| responses(now, port));
    let mut command = pair.client.command("redis-benchmark");
    command.args(["-h", &pair.server.v4.to_string(), "-p", &port.to_string()]);
    Load::run(command.args(["-P", "1", "-q", "-c", "4", "-n", "2000", "-t", "get"]));
    let now = agent.eventually(Ok(()), |now| {
        let all: u64 = responses(now, port).values().sum();
        // One command asks for the configuration.
        if all + now.skipped() >= 2007 { Ok(()) } else { Err(responses(now, port)) }
    });
    println!("{:?}", responses(&now, port));
    equal("errors", responses(&now, port)["redis error"], 1, 0);
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn transactions_and_errors_of_postgresql() {
    needs_kernel!();
    if let Some(why) = postgres::cannot_run() {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::with(&[("responses", "true")]);
    let postgres = Postgres::start(&pair.server);
    let port = postgres.port;
    let script = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(script.path(), "SELECT 1;\n").expect("writing a script");
    let bench = |protocol: &str| {
        let options = format!("-M {protocol} -n -c 1 -t 100 -f {}", script.path().display());
        postgres.pgbench(&pair.client, &pair.server, &options);
    };
    // No password is asked for, so a login is one response; pgbench logs in once more at its start.
    bench("simple");
    agent.eventually(counts([("postgresql ok", 102)]), |now| responses(now, port));
    bench("extended");
    agent.eventually(counts([("postgresql ok", 204)]), |now| responses(now, port));
    // One exchange more, to prepare the statement.
    bench("prepared");
    agent.eventually(counts([("postgresql ok", 307)]), |now| responses(now, port));
    for statement in ["SELECT 1/0", "SELECT * FROM nothing", "nonsense"] {
        let mut command = pair.client.command("psql");
        command.env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
        command.args(["-h", &pair.server.v4.to_string(), "-p", &port.to_string()]);
        command.args(["-U", "postgres", "-c", statement, "postgres"]);
        let output = command.stdin(Stdio::null()).output().expect("starting psql");
        assert!(!output.status.success(), "{statement}");
    }
    let expected = counts([("postgresql error", 3), ("postgresql ok", 310)]);
    agent.eventually(expected, |now| responses(now, port));
    agent.eventually(counts([("plaintext postgresql", 9)]), |now| security(now, port));
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn connections_of_tls_are_told_from_others() {
    needs_kernel!();
    if let Some(why) = missing(&["openssl"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let (pair, directory) = (Pair::new(), tempfile::tempdir().expect("a temporary directory"));
    let agent = Agent::with(&[("responses", "true")]);
    let port = free_port_in(&pair.server);
    let server = tls_server(&pair, directory.path(), port);
    for version in ["-tls1_2", "-tls1_3"] {
        tls_client(&pair, port, version);
    }
    // A server that speaks before it is asked, and one that speaks something of its own.
    let listener = pair.server.listen((pair.server.v4, 0));
    let other = net::port(&listener);
    let mut client = pair.client.connect((pair.server.v4, other)).expect("connecting");
    let mut accepted = net::accept(&listener);
    accepted.write_all(b"220 mail.example.org ESMTP\r\n").expect("greeting");
    net::read_exactly(&mut client, 28).expect("a greeting");
    let mut second = pair.client.connect((pair.server.v4, other)).expect("connecting");
    let mut served = net::accept(&listener);
    let work = std::thread::spawn(move || net::answer(&mut served, 4, 9, Duration::ZERO));
    net::ask(&mut second, 4, 9).expect("an exchange");
    drop(second);
    work.join().expect("no panic").expect("answering");
    agent.eventually(counts([("tls tls", 2)]), |now| security(now, port));
    agent.eventually(counts([("unknown unknown", 2)]), |now| security(now, other));
    agent.eventually(counts([]), |now| responses(now, port));
    agent.ledger_adds_up();
    drop(server);
    agent.stop();
}
