//! What people read: numbers of a window, by address, what fails in words, and the exit code.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables, free_port};
use crate::facts::patience;
use crate::namespace::{Namespace, Pair};
use crate::net;

/// Answers to clients that may take a while.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(agent: &Agent, arguments: &[&str]) -> Output {
    run_at(&format!("http://{}", agent.address), arguments)
}

fn run_at(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    command.args(arguments).args(["--url", url]).output().expect("starting portolan")
}

/// Repeats until `look` has something.
#[track_caller]
fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < patience(PATIENCE), "not yet: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The client's edges to this port, with these further parameters.
fn edges(agent: &Agent, client: &str, port: u16, query: &str) -> (Vec<Value>, f64) {
    let answer = agent.json(&format!("/api/v1/edges?role=client&port={port}&{query}"));
    let edges = answer["edges"].as_array().expect("a list").iter();
    let ours = edges.filter(|edge| edge["client"] == client).cloned().collect();
    (ours, answer["window"]["seconds"].as_f64().expect("a number"))
}

/// Gives the namespace a second address.
fn second_address(namespace: &Namespace) -> Ipv4Addr {
    let [a, b, c, _] = namespace.v4.octets();
    let second = Ipv4Addr::new(a, b, c, 77);
    let address = format!("{second}/24");
    let added = namespace.command("ip").args(["addr", "add", &address, "dev", "veth0"]).status();
    assert!(added.expect("starting ip").success());
    second
}

#[test]
fn a_window_has_what_happened_in_it_and_all_of_it_before_it_is_over() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    let client = &pair.client.service;
    let connect = |times| {
        for _ in 0..times {
            drop(pair.client.connect((pair.server.v4, port)).expect("connecting"));
            drop(net::accept(&listener));
        }
    };
    let ok = |query: &str| {
        let (edges, seconds) = edges(&agent, client, port, query);
        let ok: u64 = edges.iter().filter_map(|edge| edge["connects"]["ok"].as_u64()).sum();
        (ok, seconds)
    };
    connect(5);
    until("the first five", || (ok("window=start").0 == 5).then_some(()));
    assert_eq!((ok("window=10s").0, ok("window=1m").0, ok("window=5m").0), (5, 5, 5));
    assert!(ok("window=5m").1 < 300.0, "it has not run for so long");
    // Ten seconds later they are no longer in the shortest window, and in all others.
    until("an empty window", || (ok("window=10s").0 == 0).then_some(()));
    connect(3);
    until("three more", || (ok("window=start").0 == 8).then_some(()));
    let (last, seconds) = ok("window=10s");
    assert_eq!(last, 3);
    assert!((10.0..=12.5).contains(&seconds), "ten seconds are {seconds}");
    assert_eq!((ok("window=1m").0, ok("window=5m").0), (8, 8));
    // Health is judged over the same time.
    let server = &pair.server.service;
    for (window, expected) in [("10s", 3), ("5m", 8), ("start", 8)] {
        let answer = agent.json(&format!("/api/v1/services?service={server}&window={window}"));
        assert_eq!(answer["services"][0]["health"]["connects_ok"], expected, "{window}");
    }
    agent.stop();
}

#[test]
fn each_address_of_a_service_says_whether_it_answers_or_refuses() {
    needs_kernel!();
    let pair = Pair::new();
    let good = pair.server.v4;
    // There before the agent, which looks for addresses every half minute.
    let bad = second_address(&pair.server);
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    pair.server.nft_input(&format!("ip daddr {bad} tcp dport {port} reject with tcp reset"));
    let client = &pair.client.service;
    for _ in 0..4 {
        drop(pair.client.connect((good, port)).expect("connecting"));
        drop(net::accept(&listener));
    }
    for _ in 0..3 {
        let refused = pair.client.connect((bad, port)).expect_err("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let by_address = |address: Ipv4Addr| {
        let place = SocketAddr::from((address, port)).to_string();
        let (edges, _) = edges(&agent, client, port, "by=address&window=1m");
        edges.into_iter().find(|edge| edge["address"] == *place)
    };
    let refusing =
        until("three refused", || by_address(bad).filter(|edge| edge["connects"]["refused"] == 3));
    assert_eq!(refusing["connects"]["ok"], 0);
    assert_eq!(refusing["why"][0]["cause"], "connect_refused");
    let answering = by_address(good).expect("an edge");
    assert_eq!(answering["connects"], serde_json::json!({ "ok": 4 }));
    assert_eq!(answering["why"], serde_json::json!([]));
    // Both are one service, and together what the edges of that name have.
    let (named, _) = edges(&agent, client, port, "window=1m");
    let sum = |of: &str| named.iter().filter_map(|edge| edge["connects"][of].as_u64()).sum::<u64>();
    assert_eq!((sum("ok"), sum("refused")), (4, 3));

    // Balance has the same of each backend.
    let balance = agent.json(&format!("/api/v1/balance?service={}&window=1m", pair.server.service));
    let groups = balance["groups"].as_array().expect("a list").iter();
    let backend = |address: Ipv4Addr| {
        let place = SocketAddr::from((address, port)).to_string();
        let mut backends = groups.clone().flat_map(|group| group["backends"].as_array().unwrap());
        backends.find(|backend| backend["backend"] == *place).cloned().unwrap_or_default()
    };
    assert_eq!((&backend(good)["connections"], &backend(good)["failed"]), (&4.into(), &0.into()));
    assert_eq!((&backend(bad)["connections"], &backend(bad)["failed"]), (&0.into(), &3.into()));

    let said = run(&agent, &["edges", "--by", "address"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = |address: Ipv4Addr| {
        let place = format!(" {address}:{port} ");
        said.lines().find(|line| line.contains(&place)).unwrap_or_else(|| panic!("{said}"))
    };
    assert!(line(bad).ends_with("  3 refused"), "{said}");
    assert!(line(good).ends_with("  -"), "{said}");
    agent.stop();
}

#[test]
fn exit_codes_are_for_scripts() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (client, server) = (&pair.client.service, &pair.server.service);
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    drop(pair.client.connect((pair.server.v4, port)).expect("connecting"));
    drop(net::accept(&listener));
    agent.eventually(1, |now| now.edge(client, server, port, "client").connects("ok"));
    let check = |arguments: &[&str], expected: i32| {
        let output = run(&agent, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {said}");
    };
    check(&["services", "health", server, "--exit-code"], 0);
    pair.server.nft_input(&format!("tcp dport {port} reject with tcp reset"));
    assert!(pair.client.connect((pair.server.v4, port)).is_err(), "refused");
    agent.eventually(1, |now| now.edge(client, server, port, "client").connects("refused"));
    // Findings change the exit code only if that is wanted.
    check(&["services", "health", server], 0);
    check(&["services", "health", server, "--exit-code"], 1);
    check(&["services", "--exit-code", "-o", "json"], 1);
    check(&["edges"], 0);
    check(&["edges", "--exit-code"], 1);
    check(&["services", "health", "no-such-service"], 1);
    check(&["edges", "--window", "6m"], 2);
    check(&["edges", "--by", "address", "--window", "start"], 2);
    check(&["edges", "--output", "yaml"], 2);
    agent.stop();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for arguments in [&["edges"][..], &["services"], &["status", "-o", "json"], &["map"]] {
        assert_eq!(run_at(&nobody, arguments).status.code(), Some(3), "{arguments:?}");
    }
}
