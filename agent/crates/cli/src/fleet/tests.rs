//! Claims about several agents: real servers of the API, each with what its host saw.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, CONNECT_REFUSED};
use agent_common::response::STATUS_NAMES;
use clap::Parser;
use model::fixture;
use model::flows::{Flow, Seen};
use model::relations::ServiceName;
use model::service::{Kind, Service, Source};
use model::snapshot::{ListenerView, Role, Snapshot};
use serde_json::Value;

use super::*;
use crate::printed::{self, Printed};
use crate::target::tests::{Files, Served};
use crate::{Command, class};

/// Addresses of the two hosts.
const CLIENT: [u8; 4] = [10, 0, 0, 5];
const SERVER: [u8; 4] = [10, 0, 0, 7];

/// A command line of `portolan`.
#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// Two agents, of a host with clients and of one with a server.
struct Two {
    _files: [Files; 2],
    served: [Served; 2],
}

fn process(name: &str) -> Service {
    Service::new(name, Source::Process)
}

/// A service without a name.
fn at(address: [u8; 4]) -> Service {
    let name = std::net::IpAddr::from(address).to_string();
    Service { kind: Kind::Address, ..Service::new(&name, Source::Address) }
}

fn flow(client: &Service, server: &Service, role: Role) -> (Flow, Seen) {
    let name =
        |one: &Service| ServiceName { namespace: one.namespace.clone(), name: one.name.clone() };
    let flow = Flow {
        client: name(client),
        server: name(server),
        port: 80,
        role,
        counts: true,
        client_address: Some(CLIENT.into()),
        server_address: Some(SERVER.into()),
        virtual_service: None,
    };
    let kind = |one: &Service| (one.kind, one.source);
    let seen = Seen {
        connections: 10,
        failed: 0,
        first_seconds: 1_700_000_010,
        last_seconds: 1_700_000_095,
        client: kind(client),
        server: kind(server),
    };
    (flow, seen)
}

/// So many connections and requests, each of which took so long, microseconds.
fn counted(connections: u64, requests: u64, micros: u64) -> EdgeCounters {
    let mut counters = EdgeCounters { opened: connections, ..EdgeCounters::ZERO };
    counters.connects[usize::from(CONNECT_OK)] = connections;
    for _ in 0..requests {
        counters.request.observe(micros);
    }
    counters
}

/// What the clients' host saw: it has no name for the server.
fn clients(names: &[&str]) -> Snapshot {
    let (mut edges, mut flows) = (Vec::new(), Vec::new());
    for name in names {
        let mut counters = counted(10, 100, 900);
        counters.connects[usize::from(CONNECT_REFUSED)] = 40;
        edges.push(fixture::edge(process(name), at(SERVER), 80, Role::Client, &counters));
        flows.push(flow(&process(name), &at(SERVER), Role::Client));
    }
    fixture::host(edges, flows)
}

/// What the server's host saw: it has no name for the clients, and sees no connect that was refused.
fn server(connections: u64) -> Snapshot {
    let nginx = process("nginx");
    let mut counters = counted(connections, connections * 10, 400);
    let http_5xx = STATUS_NAMES.iter().position(|name| *name == ("http", "5xx"));
    counters.responses[http_5xx.expect("a status")] = 3;
    let edges = vec![
        fixture::edge(at(CLIENT), nginx.clone(), 80, Role::Server, &counters),
        fixture::edge(nginx.clone(), process("redis"), 6379, Role::Client, &counted(1, 7, 200)),
    ];
    let mut host = fixture::host(edges, vec![flow(&at(CLIENT), &nginx, Role::Server)]);
    host.listeners.push(ListenerView {
        service: nginx,
        port: 80,
        address: SERVER.into(),
        netns: 1,
        backlog: 0,
        max_backlog: 511,
        unverified_user: None,
    });
    host
}

// === impl Two ===

impl Two {
    fn new(clients: Snapshot, server: Snapshot) -> Self {
        let files = [Files::new(), Files::new()];
        let served = [files[0].serve_of("", clients), files[1].serve_of("", server)];
        Self { _files: files, served }
    }

    fn of(names: &[&str]) -> Self {
        Self::new(clients(names), server(10 * names.len() as u64))
    }

    fn run(&self, arguments: &str, more: &[&str]) -> (Printed, anyhow::Result<Outcome>) {
        let urls = self.served.iter().map(|one| one.url("http"));
        let urls: Vec<String> = urls.chain(more.iter().map(|url| (*url).to_owned())).collect();
        let urls = urls.iter().flat_map(|url| ["--url", url]);
        run(&arguments.split(' ').chain(urls).collect::<Vec<_>>())
    }

    fn json(&self, arguments: &str) -> Value {
        let (printed, done) = self.run(&format!("{arguments} -o json"), &[]);
        assert!(done.is_ok(), "{arguments}: {done:?}");
        serde_json::from_str(&printed.out).expect("JSON")
    }

    /// The table of a command.
    fn text(&self, arguments: &str) -> String {
        let (printed, done) = self.run(arguments, &[]);
        assert_eq!(done.expect(arguments), Outcome::Done, "{arguments}");
        printed.out
    }
}

fn run(arguments: &[&str]) -> (Printed, anyhow::Result<Outcome>) {
    let Line { command } =
        Line::try_parse_from([&["portolan"], arguments].concat()).expect("a valid command line");
    printed::during(|| command.run(|file| anyhow::bail!("{} is not read", file.display())))
}

/// Rows of a list, as `FIELD of FIELD` texts.
fn rows(answer: &Value, list: &str, fields: &[&str]) -> Vec<String> {
    let text = |row: &Value| {
        let of = |field: &&str| match &row[*field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        fields.iter().map(of).collect::<Vec<_>>().join(" ")
    };
    answer[list].as_array().expect(list).iter().map(text).collect()
}

#[test]
fn an_edge_between_two_hosts_is_one_row_with_both_names_and_the_clients_numbers() {
    let two = Two::of(&["web"]);
    let edges = two.json("edges --window start");
    let shown = rows(&edges, "edges", &["client", "server", "port", "role", "other_side"]);
    assert_eq!(
        shown,
        ["nginx redis 6379 client false", "web nginx 80 client false", "web nginx 80 server true",]
    );
    let edge = &edges["edges"][1];
    assert_eq!(edge["connects"], serde_json::json!({ "ok": 10, "refused": 40 }));
    assert_eq!(edge["request"]["count"], 100);
    // Only the server's host saw what was answered.
    assert_eq!(edge["responses"]["http"]["5xx"], 3);
    let why = rows(edge, "why", &["count", "text"]);
    assert_eq!(why, ["40 refused", "3 HTTP 5xx"]);
    assert_eq!(edge["server_kind"], "process");
    let hosts = rows(&edges, "hosts", &["host"]);
    assert_eq!(edge["hosts"], serde_json::json!([hosts[0]]));
    assert_eq!(edges["edges"][2]["hosts"], serde_json::json!([hosts[1]]));

    let text = two.text("edges --window start");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("nginx")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(text.contains("1 other side hidden: --role both\n2 hosts\n"), "{text}");
    assert!(!text.contains("10.0.0."), "{text}");
}

#[test]
fn clients_that_share_an_address_are_counted_by_their_own_host() {
    let two = Two::of(&["web", "cron"]);
    let edges = two.json("edges --window start");
    let counted = edges["edges"].as_array().expect("edges").iter();
    let counted: Vec<_> = counted
        .filter(|edge| edge["server"] == "nginx" && edge["other_side"] == false)
        .map(|edge| (edge["client"].as_str().expect("a name"), &edge["request"]["count"]))
        .collect();
    let hundred = Value::from(100);
    assert_eq!(counted, [("cron", &hundred), ("web", &hundred)]);
    let map = two.json("map --window start nginx");
    let drawn = rows(&map, "edges", &["client", "server", "requests"]);
    assert_eq!(drawn, ["cron nginx 100", "nginx redis 7", "web nginx 100"]);
}

#[test]
fn the_same_name_on_two_hosts_is_one_client_whose_counts_are_summed() {
    let two = Two::new(clients(&["web"]), clients(&["web"]));
    let edges = two.json("edges --window start");
    assert_eq!(edges["edges"].as_array().map(Vec::len), Some(1), "{edges}");
    assert_eq!(edges["edges"][0]["request"]["count"], 200);
    assert_eq!(edges["edges"][0]["connects"]["refused"], 80);
    assert_eq!(edges["edges"][0]["hosts"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_service_counts_on_its_own_host_and_its_clients_add_what_they_alone_see() {
    let two = Two::of(&["web"]);
    let services = two.json("services --window start");
    let fields = ["service", "kind", "listens"];
    let shown = rows(&services, "services", &fields);
    // Registered on both hosts.
    let billing = "billing declared []";
    assert_eq!(
        shown,
        [billing, "nginx process [\"80/tcp\"]", "redis process []", "web process []"]
    );
    let nginx = &services["services"][1]["health"];
    assert_eq!((&nginx["requests"], &nginx["connects_ok"]), (&100.into(), &10.into()), "{nginx}");
    assert_eq!((&nginx["connects_failed"], &nginx["errors"]), (&40.into(), &3.into()), "{nginx}");
    assert_eq!(nginx["state"], "failing", "most connects were refused: {nginx}");
    let (said, done) = two.run("services health nginx --window start --exit-code", &[]);
    assert_eq!(done.expect("an answer"), Outcome::Found);
    assert!(said.out.contains("20.0 % of 50 connects succeeded"), "{}", said.out);
}

#[test]
fn a_map_goes_on_where_the_other_host_does() {
    let two = Two::of(&["web"]);
    let map = two.json("map --window start web");
    let drawn = rows(&map, "edges", &["client", "server", "port", "requests", "failed"]);
    assert_eq!(drawn, ["nginx redis 6379 7 0", "web nginx 80 100 40"]);
    assert_eq!(map["edges"][1]["server_requests"], 100);
    let tree = two.text("map --window start web");
    assert!(tree.starts_with("web\n└─ nginx:80  1 req/s, p99"), "{tree}");
    let (_, unknown) = two.run("map --window start nginz", &[]);
    let said = unknown.expect_err("unknown").to_string();
    assert_eq!(said, "no service is named nginz; did you mean nginx?");
}

#[test]
fn ports_say_on_which_host_they_are() {
    let two = Two::of(&["web"]);
    let ports = two.json("ports");
    let hosts = rows(&ports, "hosts", &["host"]);
    let reserved = rows(&ports, "unused_reservations", &["host", "port"]);
    assert!(!reserved.is_empty(), "{ports}");
    for host in &hosts {
        assert!(reserved.iter().any(|row| row.starts_with(host)), "{reserved:?}");
    }
    let text = two.text("ports");
    assert!(text.starts_with("ON "), "{text}");
    for host in &hosts {
        assert!(text.lines().any(|line| line.starts_with(host.as_str())), "{text}");
    }
}

#[test]
fn a_fault_between_two_hosts_is_one_finding_and_one_about_a_host_has_its_name() {
    let two = Two::of(&["web"]);
    let (printed, done) = two.run("check --window start -o json", &[]);
    assert_eq!(done.expect("a report"), Outcome::Found);
    let report: Value = serde_json::from_str(&printed.out).expect("JSON");
    let findings = rows(&report, "findings", &["code", "subject"]);
    let refused: Vec<_> = findings.iter().filter(|one| one.starts_with("PC101")).collect();
    assert_eq!(refused, ["PC101 web → nginx:80"], "{findings:?}");
    let hosts = rows(&report, "hosts", &["host"]);
    let local = |host: &String| findings.iter().filter(|one| one.ends_with(&**host)).count();
    assert!(local(&hosts[0]) > 0 && local(&hosts[0]) == local(&hosts[1]), "{findings:?}");
    assert_eq!(report["incomplete"], Value::Null);
    let text = two.run("check --window start", &[]).0.out;
    assert!(text.starts_with("2 hosts; the last 100 s of real traffic\n"), "{text}");
}

#[test]
fn a_host_that_is_down_slow_or_older_is_named_and_the_others_are_shown() {
    let two = Two::of(&["web"]);
    let free = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("bound");
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let slow = silent.local_addr().expect("an address");
    let (down, slow) = (format!("http://{free}"), format!("http://{slow}"));
    let began = Instant::now();
    let (printed, done) =
        two.run("edges --window start --exit-code -o json --deadline 3", &[&down, &slow]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(done.expect("an answer"), Outcome::Incomplete);
    let answer: Value = serde_json::from_str(&printed.out).expect("JSON");
    assert_eq!(answer["edges"].as_array().map(Vec::len), Some(3));
    let hosts = answer["hosts"].as_array().expect("hosts");
    let errors: Vec<&str> = hosts.iter().filter_map(|host| host["error"].as_str()).collect();
    assert!(errors[0].starts_with("no agent answers at http://"), "{errors:?}");
    assert!(errors[1].contains("does not answer within 3 s"), "{errors:?}");
    // The servers of tests say that they are 0.0.0.
    let older = |host: &&Value| host["is_older"] == true && host["version"] == "0.0.0";
    assert_eq!(hosts.iter().filter(older).count(), 2);

    for command in ["edges --window start", "services", "map", "ports", "check"] {
        let (printed, done) = two.run(&format!("{command} --deadline 10"), &[&down]);
        assert_eq!(done.expect(command), Outcome::Incomplete, "{command}");
        assert!(printed.out.contains("no agent answers at http://"), "{command}: {}", printed.out);
        if command != "check" {
            assert!(printed.out.contains("\n2 of 3 hosts\n"), "{command}: {}", printed.out);
            assert!(printed.out.contains("runs version 0.0.0, this command "), "{}", printed.out);
        }
    }
    let (_, none) = run(&["edges", "--url", &down, "--url", "http://127.0.0.1:1"]);
    assert_eq!(class(&none.expect_err("nobody")), Some(Class::Unreached));
}

#[test]
fn an_agent_that_is_named_twice_counts_once() {
    let two = Two::of(&["web"]);
    let url = two.served[0].url("http");
    let (printed, done) = run(&[
        "edges",
        "--window",
        "start",
        "-o",
        "json",
        "--url",
        &url,
        "--url",
        &format!("{url}/"),
    ]);
    assert!(done.is_ok(), "{done:?}");
    let answer: Value = serde_json::from_str(&printed.out).expect("JSON");
    assert_eq!(answer["edges"][0]["request"]["count"], 100);
    assert_eq!(answer["hosts"], Value::Null, "one agent answers as it does alone");
}

#[test]
fn a_version_is_older_by_its_numbers() {
    let newer = format!("{}.1", env!("CARGO_PKG_VERSION"));
    for (version, expected) in
        [("0.0.9", true), (env!("CARGO_PKG_VERSION"), false), (&newer, false), ("10.0.0", false)]
    {
        assert_eq!(is_older(version), expected, "{version}");
    }
}

#[test]
fn a_url_has_a_host() {
    let check = |url, host: &str| assert_eq!(host_of(url), host);
    check("http://node7:10062", "node7");
    check("https://[2001:db8::1]:10062/portolan", "2001:db8::1");
    check("node7", "node7");
}
