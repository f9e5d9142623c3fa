//! Everything at once: a compose project, pods, units and bare processes, under one agent.

use super::api::Api;
use super::docker::{self, Docker};
use super::pods::{self, Node};
use super::units::{self, Machine};
use super::{edge, expect, lacking};
use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

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

    let mut expected = docker::of_project();
    expected.extend(pods::expected("kubernetes", "conntrack", "listener"));
    expected.extend(units::expected());
    let (client, server) =
        (format!("/{}", bare.client.service), format!("/{}", bare.server.service));
    let port = u64::from(port);
    expected.push(edge(&client, &server, port, "client", ("process", "listener")));
    expected.push(edge(&client, &server, port, "server", ("local_client", "process")));
    expect(&agent, &expected, |name| {
        docker::of_shop(name)
            || pods::of_pods(name)
            || units::of_units(name)
            || name == client
            || name == server
    });
    assert_eq!(agent.json("/api/v1/status")["unresolved_owners"], 0);
    agent.stop();
}
