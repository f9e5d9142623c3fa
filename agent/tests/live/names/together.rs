//! Everything at once: a compose project, pods, units and bare processes, under one agent.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::api::Api;
use super::docker::{self, Docker};
use super::pods::{self, Node};
use super::units::{self, Machine};
use super::{edge, expect, lacking, net as our_net, until};
use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;
use crate::segments::portolan;

#[test]
fn whatever_runs_a_service_every_edge_has_two_names() {
    needs_kernel!();
    let missing = lacking(docker::NEEDS).or_else(|| lacking(pods::NEEDS)).or_else(units::missing);
    if let Some(program) = missing {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let docker = Docker::start();
    let node = Node::start();
    let api = Api::start();
    let bare = Pair::new();
    let agent = Agent::with(&[
        ("names.conntrack", "true"),
        ("names.cri", &node.engine.socket.to_string_lossy()),
        ("names.docker", &docker.engine.socket.to_string_lossy()),
        ("names.kubernetes", &api.url()),
        ("names.node", pods::NODE),
        ("names.units", "true"),
    ]);

    let late = pods::populate(&node, &api);
    api.put(pods::PODS, late);
    let project = docker::project(&docker);
    docker.compose(&project, &["up", "-d"]);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let _machine = Machine::boot(folder.path());
    let listener = bare.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let _client = bare.client.connect((bare.server.v4, port)).expect("a connection");
    let _server = net::accept(&listener);

    let mut expected = docker::of_project(&docker);
    expected.extend(pods::expected("kubernetes", "conntrack", "listener"));
    expected.extend(units::expected());
    let client = bare.client.full_name(&bare.client.service);
    let server = bare.server.full_name(&bare.server.service);
    let port = u64::from(port);
    expected.push(edge(&client, &server, port, "client", ("process", "listener")));
    expected.push(edge(&client, &server, port, "server", ("process", "process")));
    expect(&agent, &expected, |name| {
        docker::of_shop(name)
            || pods::of_pods(name)
            || units::of_units(name)
            || name == client
            || name == server
    });
    assert_eq!(agent.json("/api/v1/status")["unidentified_processes"], 0);
    let proxy = docker.engine.full_name("docker-proxy");
    let ours = ["shop/db", "prod/web", "portolan-web", &bare.server.service];
    let expected = graph(&[
        (&proxy, "shop/web", 80),
        ("shop/crawler", "shop/web", 8080),
        ("shop/web", "shop/db", 5432),
        ("prod/probe", "prod/web", 8080),
        ("prod/shop", "prod/web", 80),
        ("portolan-shop", "portolan-web", 8080),
        (&client, &server, port.try_into().expect("a port")),
    ]);
    until("the map is the graph", || drawn(&agent, &ours) == expected);
    // Everything of the whole host: each end in one of our networks has a name.
    let all = drawn(&agent, &[]);
    let nodes = all["nodes"].as_array().expect("a list").iter();
    let nameless: Vec<_> = nodes
        .filter(|name| name.as_str().is_some_and(|name| name.contains(&format!("{}.", our_net()))))
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
    agent.stop();
}

/// The graph of these edges, in the form of [`drawn`].
fn graph(edges: &[(&str, &str, u16)]) -> Value {
    let nodes: BTreeSet<&str> =
        edges.iter().flat_map(|(client, server, _)| [*client, *server]).collect();
    let mut edges: Vec<Value> = edges
        .iter()
        .map(|(client, server, port)| json!([client, server, port, ["client"]]))
        .collect();
    edges.sort_by_key(ToString::to_string);
    json!({ "nodes": nodes, "edges": edges, "unattributed_connections": 0 })
}

/// The edges of `portolan map --output json` around these services: client, server, port and side.
/// Each connection is drawn once.
fn drawn(agent: &Agent, services: &[&str]) -> Value {
    let said = portolan(agent, &[&["map", "--output", "json"], services].concat());
    let map: Value = serde_json::from_str(&said).expect("JSON");
    let name = |namespace: &Value, name: &Value| match (namespace.as_str(), name.as_str()) {
        (Some(""), Some(name)) => name.to_owned(),
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => panic!("a name is missing: {map}"),
    };
    let nodes = map["nodes"].as_array().expect("a list").iter();
    let nodes: BTreeSet<String> =
        nodes.map(|node| name(&node["namespace"], &node["name"])).collect();
    let edges = map["edges"].as_array().expect("a list").iter();
    let mut edges: Vec<Value> = edges
        .map(|edge| {
            let client = name(&edge["client_namespace"], &edge["client"]);
            let server = name(&edge["server_namespace"], &edge["server"]);
            json!([client, server, edge["port"], edge["seen_by"]])
        })
        .collect();
    edges.sort_by_key(ToString::to_string);
    json!({ "nodes": nodes, "edges": edges, "unattributed_connections": map["unattributed_connections"] })
}
