//! Policies from what was observed: loaded, they let that pass and drop the rest, and the agent's
//! figures agree with the kernel's.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::namespace::Pair;
use crate::net;

/// A connect that was dropped has no answer after this.
const PATIENCE: Duration = Duration::from_millis(400);

/// What a command about this agent prints.
fn portolan(agent: &Agent, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    command.args(arguments).stdin(Stdio::null());
    command.env("PORTOLAN_URL", format!("http://{}", agent.address));
    let output = command.output().expect("the agent's own binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Connects from the client's side.
fn connect(pair: &Pair, to: SocketAddr) -> std::io::Result<TcpStream> {
    pair.client.act(|| TcpStream::connect_timeout(&to, PATIENCE))
}

/// Packets that the rule with this port has counted: SYNs, because what is established passes before.
fn counted(pair: &Pair, port: u16) -> u64 {
    let list =
        pair.server.command("nft").args(["list", "table", "inet", "portolan-policy"]).output();
    let text = String::from_utf8(list.expect("starting nft").stdout).expect("text");
    let port = format!("dport {port} counter packets ");
    let found = text.lines().find_map(|line| line.split_once(&port));
    let (_, rest) = found.unwrap_or_else(|| panic!("no rule for {port}: {text}"));
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_generated_ruleset_lets_pass_what_was_observed_and_drops_the_rest() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (allowed, other) = (pair.server.listen("0.0.0.0:0"), pair.server.listen("0.0.0.0:0"));
    let (port, other_port) = (net::port(&allowed), net::port(&other));
    let at = |port| SocketAddr::from((pair.server.v4, port));
    let (client, server) = (&pair.client.service, &pair.server.service);
    let connections = |port: u16, result: &'static str| {
        move |now: &crate::scrape::Scrape| now.edge(client, server, port, "client").connects(result)
    };
    for _ in 0..12 {
        drop((connect(&pair, at(port)).expect("connected"), net::accept(&allowed)));
    }
    agent.eventually(12, connections(port, "ok"));
    let generate = ["policy", "generate", "--for", "nftables", "--service", server];
    let policy = portolan(&agent, &generate);
    let (from, to) = (pair.client.v4, pair.server.v4);
    let rule = format!("ip saddr {{ {from} }} ip daddr {{ {to} }} tcp dport {port} counter accept");
    assert!(policy.contains(&rule), "{policy}");
    assert!(policy.contains(&format!("{server}:{port}: 12 connections")), "{policy}");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("policy.nft");
    fs::write(&file, &policy).expect("written");

    pair.server.nft(&policy);
    for _ in 0..5 {
        drop((connect(&pair, at(port)).expect("it is allowed"), net::accept(&allowed)));
    }
    let dropped = connect(&pair, at(other_port)).expect_err("it was never observed");
    assert_eq!(dropped.kind(), std::io::ErrorKind::TimedOut, "{dropped}");
    // What the kernel let pass is what the agent counted since.
    agent.eventually(12 + counted(&pair, port), connections(port, "ok"));
    assert_eq!(counted(&pair, port), 5);
    agent.eventually(1, connections(other_port, "aborted"));
    // What failed is no reason to allow it.
    let again = portolan(&agent, &generate);
    assert!(
        again.contains(&format!(
            "NOT ALLOWED {client} -> {server}:{other_port}: 0 connections and 1 failed"
        )),
        "{again}"
    );

    // The policy would cut what comes when it is gone, and says so before it does.
    let test = ["policy", "test", path(&file), "--service", server];
    let said = portolan(&agent, &test);
    assert!(said.starts_with("0 connections would be cut, 17 allowed"), "{said}");
    let table = ["delete", "table", "inet", "portolan-policy"];
    assert!(pair.server.command("nft").args(table).status().expect("nft").success());
    drop((connect(&pair, at(other_port)).expect("no rule any more"), net::accept(&other)));
    agent.eventually(1, connections(other_port, "ok"));
    let said = portolan(&agent, &test);
    assert!(said.contains("1 connection would be cut, 17 allowed"), "{said}");
    agent.stop();
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a plain path")
}
