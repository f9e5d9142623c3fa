//! Names from real runtimes: Docker with a compose project, containerd's pods with a Kubernetes
//! API, and the resulting edges.
//!
//! Each runtime has a network namespace of its own, so the host is not changed. Results are read as
//! users do: `portolan edges --output json`.

mod activated;
mod api;
mod cri;
mod daemonset;
mod docker;
mod engine;
mod exec;
mod image;
mod manifests;
mod neighbours;
mod podman;
mod pods;
mod published;
mod scopes;
mod successor;
mod together;
mod tracked;
mod translated;
mod units;

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{self, Agent};

/// Timeout for a runtime to start, and for an edge to appear.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(200);

/// An expected edge: both ends as `namespace/name`, port, role, and the sources of the two names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    client: String,
    server: String,
    port: u64,
    role: String,
    sources: (String, String),
}

impl Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, server, port, role, sources } = self;
        write!(f, "{client} -> {server}:{port} {role} ({} -> {})", sources.0, sources.1)
    }
}

fn edge(client: &str, server: &str, port: u64, role: &str, sources: (&str, &str)) -> Edge {
    Edge {
        client: client.to_owned(),
        server: server.to_owned(),
        port,
        role: role.to_owned(),
        sources: (sources.0.to_owned(), sources.1.to_owned()),
    }
}

/// `portolan edges --output json`, of all the time.
fn edges(agent: &Agent) -> Vec<Value> {
    let mut command = Command::new(agent::binary());
    agent::forget_our_variables(&mut command);
    let url = format!("http://{}", agent.address);
    command
        .args(["edges", "--window", "start", "--output", "json", "--url", &url])
        .stderr(Stdio::inherit());
    let output = command.output().expect("running portolan edges");
    assert!(output.status.success(), "portolan edges: {}", output.status);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("the output is JSON");
    answer["edges"].as_array().expect("a list of edges").clone()
}

fn text(edge: &Value, field: &str) -> String {
    edge[field].as_str().unwrap_or_default().to_owned()
}

/// `namespace/name` of one end.
fn end(edge: &Value, side: &str) -> String {
    format!("{}/{}", text(edge, &format!("{side}_namespace")), text(edge, side))
}

/// The edges with connections that have an end in `names`, or in the additional names that
/// `is_ours` accepts.
fn ours(edges: &[Value], is_ours: impl Fn(&str) -> bool) -> BTreeSet<Edge> {
    edges
        .iter()
        .filter(|edge| edge["role"] != "listener" && edge["opened"].as_u64() > Some(0))
        .filter(|edge| is_ours(&end(edge, "client")) || is_ours(&end(edge, "server")))
        .map(|edge| Edge {
            client: end(edge, "client"),
            server: end(edge, "server"),
            port: edge["port"].as_u64().unwrap_or_default(),
            role: text(edge, "role"),
            sources: (text(edge, "client_source"), text(edge, "server_source")),
        })
        .collect()
}

/// Polls until exactly these edges are there.
#[track_caller]
fn expect(agent: &Agent, expected: &[Edge], is_ours: impl Fn(&str) -> bool) -> Vec<Value> {
    let expected: BTreeSet<Edge> = expected.iter().cloned().collect();
    let began = Instant::now();
    loop {
        let all = edges(agent);
        let found = ours(&all, &is_ours);
        if found == expected {
            return all;
        }
        let (missing, wrong): (Vec<_>, Vec<_>) =
            (expected.difference(&found).collect(), found.difference(&expected).collect());
        assert!(
            began.elapsed() < PATIENCE,
            "missing: {missing:#?}\nnot expected: {wrong:#?}\n{}",
            agent.json("/api/v1/status")["name_sources"]
        );
        thread::sleep(PAUSE);
    }
}

/// The first half of the addresses of this run's containers: another run may be active.
fn net() -> String {
    format!("10.{}", 128 + std::process::id() % 100)
}

/// Waits until something holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(PAUSE);
    }
}

/// Runs a program and returns its output; panics with it if it fails.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The first of these programs that is not installed; each has its name in `PATH`, or its whole path.
fn lacking<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&&str| !std::env::split_paths(&paths).any(|path| path.join(program).exists());
    programs.iter().find(is_there).copied()
}
