//! Policies from what was observed: loaded, they let that pass and drop the rest, and the agent's
//! figures agree with the kernel's.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;
use crate::segments::portolan;

/// A connect that was dropped has no answer after this.
const SILENCE: Duration = Duration::from_millis(400);
/// The table that a policy is.
const TABLE: [&str; 3] = ["table", "inet", "portolan-policy"];

/// Connects from the client's side, once with each family.
fn connect(pair: &Pair, port: u16) -> [std::io::Result<TcpStream>; 2] {
    let to: [IpAddr; 2] = [pair.server.v4.into(), pair.server.v6.into()];
    to.map(|to| {
        let to = SocketAddr::new(to, port);
        pair.client.act(|| TcpStream::connect_timeout(&to, SILENCE))
    })
}

/// `nft list` or `nft delete` of the policy's table.
fn nft(pair: &Pair, what: &str) -> String {
    let mut command: Command = pair.server.command("nft");
    let output = command.arg(what).args(TABLE).output().expect("starting nft");
    let (said, why) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "nft {what}: {why}");
    String::from_utf8(said).expect("text")
}

/// Packets that the rules with this port have counted, IPv4 and IPv6: SYNs, because what is
/// established passes before.
fn counted(pair: &Pair, port: u16) -> [u64; 2] {
    let text = nft(pair, "list");
    let port = format!("dport {port} counter packets ");
    let rules = text.lines().filter_map(|line| line.split_once(&port));
    let packets = rules.map(|(_, rest)| rest.split(' ').next().and_then(|n| n.parse().ok()));
    let packets: Option<Vec<u64>> = packets.collect();
    packets.and_then(|packets| packets.try_into().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_generated_ruleset_lets_pass_what_was_observed_and_drops_the_rest() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (allowed, other) = (pair.server.listen("[::]:0"), pair.server.listen("[::]:0"));
    let (port, other_port) = (net::port(&allowed), net::port(&other));
    let connections = |port: u16, result: &'static str| {
        let (client, server) = (&pair.client.service, &pair.server.service);
        move |now: &Scrape| now.edge(client, server, port, "client").connects(result)
    };
    let use_it = |times: usize| {
        for _ in 0..times {
            for client in connect(&pair, port) {
                drop((client.expect("connected"), net::accept(&allowed)));
            }
        }
    };
    use_it(6);
    agent.eventually(12, connections(port, "ok"));
    let (client, server) =
        (pair.client.full_name(&pair.client.service), pair.server.full_name(&pair.server.service));
    let generate = ["policy", "generate", "--for", "nftables", "--service", &server];
    let policy = portolan(&agent, &generate);
    for (family, from, to) in [
        ("ip", pair.client.v4.to_string(), pair.server.v4.to_string()),
        ("ip6", pair.client.v6.to_string(), pair.server.v6.to_string()),
    ] {
        let rule = format!(
            "{family} saddr {{ {from} }} {family} daddr {{ {to} }} tcp dport {port} counter accept"
        );
        assert!(policy.contains(&rule), "{rule}\n{policy}");
    }
    let evidence = format!("# {client} -> {server}:{port}: 12 connections, ");
    assert!(policy.contains(&evidence), "{evidence}\n{policy}");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("policy.nft");
    fs::write(&file, &policy).expect("written");
    let file = file.to_str().expect("a plain path");

    pair.server.nft(&policy);
    use_it(5);
    for dropped in connect(&pair, other_port) {
        let why = dropped.expect_err("it was never observed");
        assert_eq!(why.kind(), std::io::ErrorKind::TimedOut, "{why}");
    }
    // What the kernel let pass is what the agent has counted since.
    agent.eventually(12 + 10, connections(port, "ok"));
    assert_eq!(counted(&pair, port), [5, 5]);
    agent.eventually(2, connections(other_port, "aborted"));
    // What failed is no reason to allow it.
    let again = portolan(&agent, &generate);
    let denied =
        format!("# NOT ALLOWED {client} -> {server}:{other_port}: 0 connections and 2 failed, ");
    assert!(again.contains(&denied), "{denied}\n{again}");

    // A test of the policy says what it cuts, before it is loaded and after.
    let test = ["policy", "test", file, "--service", &server];
    let said = portolan(&agent, &test);
    assert!(said.starts_with("0 connections would be cut, 22 allowed, 0 undecided"), "{said}");
    nft(&pair, "delete");
    for client in connect(&pair, other_port) {
        drop((client.expect("no rule any more"), net::accept(&other)));
    }
    agent.eventually(2, connections(other_port, "ok"));
    let said = portolan(&agent, &test);
    assert!(said.contains("2 connections would be cut, 22 allowed, 0 undecided"), "{said}");
    agent.stop();
}
