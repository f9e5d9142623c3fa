//! Services: names registered by hand, and health by traffic.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{self, Agent};
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

fn portolan(agent: &Agent, arguments: &str) -> String {
    let mut command = Command::new(agent::binary());
    agent::forget_our_variables(&mut command);
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.env("PORTOLAN_SOCKET", agent.run_directory().join("control.sock"));
    command.env("PORTOLAN_URL", format!("http://{}", agent.address));
    let output = command.output().expect("the agent's own binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A service as the API shows it; null if it does not.
pub fn service(agent: &Agent, name: &str) -> Value {
    let found = agent.json(&format!("/api/v1/services?service={name}"));
    found["services"][0].clone()
}

/// Namespaces, and an agent that has listed the server's listener.
fn with_a_listener() -> (Pair, Agent, TcpListener) {
    let net = Pair::new();
    let agent = Agent::start();
    let listener = net.server.listen("0.0.0.0:0");
    let service = [("service", net.server.service.as_str())];
    agent.eventually(true, |now| now.has("portolan_port_listeners", &service));
    (net, agent, listener)
}

#[test]
fn a_name_given_by_hand_is_the_name_of_the_other_end() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let client = &net.client.service;
    let (listed, other) = (18_951, 18_952);
    let address = net.server.v4;
    let said = portolan(
        &agent,
        &format!("services register far --address {address}:{listed} --namespace away"),
    );
    assert_eq!(said, format!("away/far is registered at {address}:{listed}\n"));
    for port in [listed, other] {
        net.client.connect((address, port)).expect_err("there is no listener");
    }
    let failed = |server: &str, port: u16, now: &Scrape| {
        let labels = [("client", client.as_str()), ("server", server), ("port", &port.to_string())];
        now.sum("portolan_tcp_connects_total", &labels)
            - now.sum(
                "portolan_tcp_connects_total",
                &[labels[0], labels[1], labels[2], ("result", "ok")],
            )
    };
    agent.eventually((1, 1), |now| {
        (failed("far", listed, now), failed(&address.to_string(), other, now))
    });
    let info = [("service", "far"), ("service_namespace", "away"), ("source", "registered")];
    assert_eq!(agent.scrape().sum("portolan_service_info", &info), 1);
    let far = service(&agent, "away/far");
    assert_eq!(far["registered"][0], format!("{address}:{listed}"));
    assert_eq!(far["health"]["state"], "failing");
    assert_eq!(far["health"]["connects_failed"], 1);
    // The reset that refused it is no second failure.
    assert_eq!(far["health"]["resets"], 0);
    let health = portolan(&agent, "services health away/far");
    assert!(health.starts_with("away/far is failing over the last"), "{health}");
    assert!(!health.contains("reset"), "{health}");
    let edges = portolan(&agent, "edges --role client");
    let row = edges.lines().find(|line| line.contains("away/far")).expect("its row");
    assert!(row.ends_with(" 0  1 refused"), "no RESETS, and WHY is the last column: {edges}");
    portolan(&agent, "services unregister away/far");
    // Its counts belong to the address again.
    agent.eventually(1, |now| failed(&address.to_string(), listed, now));
    assert_eq!(service(&agent, "away/far"), Value::Null);
    agent.stop();
}

#[test]
fn health_is_what_the_traffic_of_the_last_minutes_shows() {
    needs_kernel!();
    let (net, agent, listener) = with_a_listener();
    let port = net::port(&listener);
    let server = &net.server.service;
    let state = || service(&agent, server)["health"]["state"].clone();
    assert_eq!(state(), "idle");
    for _ in 0..5 {
        let mut client = net.client.connect((net.server.v4, port)).unwrap();
        let mut accepted = net::accept(&listener);
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| net::answer(&mut accepted, 10, 10, Duration::ZERO));
            for _ in 0..4 {
                net::ask(&mut client, 10, 10).unwrap();
            }
            drop(client);
            answering.join().unwrap().unwrap();
        });
    }
    agent.eventually(20, |now| {
        now.edge(&net.client.service, server, port, "server").requests().count
    });
    let found = service(&agent, server);
    let health = &found["health"];
    assert_eq!(
        (&health["state"], &health["connects_ok"], &health["requests"]),
        (&"ok".into(), &5.into(), &20.into()),
        "{found}"
    );
    assert_eq!(found["listens"][0], format!("{port}/tcp"));
    assert!(health["p99_seconds"].as_f64().is_some_and(|seconds| seconds < 5.0), "{found}");
    let client = net.client.connect((net.server.v4, port)).unwrap();
    net::close_with_reset(net::accept(&listener));
    drop(client);
    agent.eventually(true, |_| state() == "degraded");
    agent.stop();
}

/// One round of `services monitor` in a network namespace: its exit code, and its checks by address.
fn monitor(agent: &Agent, from: &Namespace, service: &str) -> (Option<i32>, Vec<Value>) {
    let program = agent::binary();
    let mut command = from.command(program.to_str().expect("a plain path"));
    agent::forget_our_variables(&mut command);
    command.args(["services", "monitor", "--once", "--exit-code", "-o", "json"]);
    command.env("PORTOLAN_SOCKET", agent.run_directory().join("control.sock"));
    let output = command.output().expect("the agent's own binary runs");
    let round: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    let checks = round["checks"].as_array().expect("checks").iter();
    let checks = checks.filter(|one| one["service"] == service).cloned().collect();
    (output.status.code(), checks)
}

#[test]
fn what_passes_its_check_is_renewed_and_what_does_not_expires_until_it_passes_again() {
    needs_kernel!();
    let net = Pair::new();
    let agent = Agent::start();
    let listener = net.server.listen((net.server.v4, 0));
    let closed = net.server.listen((net.server.v4, 0));
    let [up, down] = [&listener, &closed].map(|one| one.local_addr().expect("an address"));
    drop(closed);
    let name = "checked";
    portolan(
        &agent,
        &format!("services register {name} --address {up},{down} --ttl 5s --check tcp"),
    );
    let endpoints = || {
        let found = agent.json(&format!("/api/v1/endpoints?service={name}"))["endpoints"].clone();
        let found = found.as_array().expect("endpoints").iter();
        let mut found: Vec<_> = found
            .map(|one| {
                assert_eq!(one["found_by"], "registration", "{one}");
                format!("{}:{}", one["address"].as_str().expect("text"), one["port"])
            })
            .collect();
        found.sort();
        found
    };
    let mut both = vec![up.to_string(), down.to_string()];
    both.sort();
    assert_eq!(endpoints(), both);
    let mut rounds = 0;
    // It reaches them from the client's namespace; from here nothing leads there.
    let mut round = || {
        let (code, checks) = monitor(&agent, &net.client, name);
        rounds += 1;
        let of = |address: SocketAddr| {
            let found = checks.iter().find(|one| one["address"] == address.to_string().as_str());
            found.map(|one| (one["result"].clone(), one["is_renewed"].clone())).expect("its check")
        };
        (code, of(up), of(down))
    };
    let (ok, refused) = ((Value::from("ok"), true.into()), (Value::from("refused"), false.into()));
    let began = Instant::now();
    while endpoints() != [up.to_string()] {
        assert!(
            began.elapsed() < crate::facts::patience(Duration::from_secs(10)),
            "{:?}",
            endpoints()
        );
        assert_eq!(round(), (Some(1), ok.clone(), refused.clone()));
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "it had five seconds");
    let listed = portolan(&agent, "services");
    assert!(
        listed.contains(&format!("{down} (expired)")) || listed.contains("failing"),
        "{listed}"
    );
    let again = net.server.listen(down);
    let (_, first, second) = round();
    assert_eq!((first, second), (ok.clone(), ok));
    agent.eventually(true, |_| endpoints() == both);
    drop(again);
    // Each of them was connected to by the command, once in each round, and by nothing else.
    listener.set_nonblocking(true).expect("a socket of ours");
    assert_eq!(std::iter::from_fn(|| listener.accept().ok()).count(), rounds);
    agent.stop();
}

/// More than a list is refreshed to within a minute.
const MANY_LINES: usize = 2000;

#[test]
fn watch_refreshes_the_list_until_its_reader_ends() {
    needs_kernel!();
    let (net, agent, listener) = with_a_listener();
    let port = net::port(&listener);
    let server = &net.server.service;
    let mut command = Command::new(agent::binary());
    agent::forget_our_variables(&mut command);
    command.args(["services", "watch", "--every", "1"]).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env("PORTOLAN_URL", format!("http://{}", agent.address));
    let mut child = command.spawn().expect("the agent's own binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let mut line = |wanted: &dyn Fn(&str) -> bool| {
        let next = || lines.next().expect("it goes on").expect("it prints text");
        let mut list = std::iter::repeat_with(next).take(MANY_LINES);
        list.find(|line| wanted(line)).expect("a line of the list")
    };
    // With the network namespace before it.
    let of_server = |line: &str| {
        let name = line.split_whitespace().next();
        name.and_then(|name| name.rsplit('/').next()) == Some(server)
    };
    assert!(line(&of_server).contains("idle"), "there is no client yet");
    let client = net.client.connect((net.server.v4, port)).expect("a connection");
    let accepted = net::accept(&listener);
    // A later list has the events since.
    let ok = line(&|line| of_server(line) && !line.contains("idle"));
    assert!(ok.contains(&port.to_string()) && ok.contains(" ok "), "{ok}");
    drop((client, accepted, lines));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if began.elapsed() > crate::facts::patience(Duration::from_secs(10)) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it goes on although its reader has ended");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    agent.stop();
}
