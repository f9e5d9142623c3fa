//! The table of ports: true through everything that can happen to a socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use api_types::Timestamp;
use serde_json::Value;

use super::claim::Claim;
use crate::agent::Agent;
use crate::facts::patience;
use crate::holder::Holder;
use crate::namespace::{Namespace, Pair};

const ALL4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Timeout for a row to appear or disappear.
const PATIENCE: Duration = Duration::from_secs(5);

/// The rows of a port in a namespace.
fn rows(agent: &Agent, namespace: u32, port: u16) -> Vec<Value> {
    let answer = agent.json(&format!("/api/v1/ports?port={port}"));
    let rows = answer["ports"].as_array().unwrap().iter();
    rows.filter(|row| row["netns"] == namespace).cloned().collect()
}

/// Waits until the rows of a port are as many.
#[track_caller]
fn eventually(agent: &Agent, namespace: u32, port: u16, number: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let rows = rows(agent, namespace, port);
        if rows.len() == number {
            return rows;
        }
        assert!(began.elapsed() < patience(PATIENCE), "not {number} rows: {rows:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(ALL4, port)
}

#[test]
fn a_row_comes_with_the_socket_and_goes_with_it() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let here = pair.server.inode();
    let sockets = pair.server.act_as("the-server", || {
        (
            Claim::tcp(at(7001)).listen().unwrap(),
            Claim::tcp(at(7002)).bind().unwrap(),
            Claim::udp(at(7003)).bind().unwrap(),
        )
    });
    let check = |port, protocol: &str, state: &str| {
        let row = &rows(&agent, here, port)[0];
        assert_eq!((&row["protocol"], &row["state"]), (&protocol.into(), &state.into()), "{row:#}");
        assert_eq!(row["holder"]["service"]["name"], "the-server", "{row:#}");
        assert_eq!(row["holder"]["pid"], std::process::id(), "{row:#}");
        assert_eq!(row["address"], "0.0.0.0", "{row:#}");
        let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
        let since = time(&row["since"]);
        let now = time(&agent.json("/api/v1/ports")["timestamp"]);
        assert!((0.0..10.0).contains(&now.seconds_since(since)), "{since} {now}");
    };
    check(7001, "tcp", "listening");
    check(7002, "tcp", "bound");
    check(7003, "udp", "bound");
    let labels = [("service", "the-server"), ("protocol", "udp"), ("port", "7003")];
    assert_eq!(agent.scrape().sum("portolan_port_listeners", &labels), 1);
    assert_eq!(rows(&agent, here, 7001)[0]["max_backlog"], 16);
    drop(sockets);
    for port in [7001, 7002, 7003] {
        assert_eq!(rows(&agent, here, port).len(), 0, "{port}");
    }
    agent.stop();
}

#[test]
fn a_group_is_one_row_and_users_of_one_port_on_two_addresses_are_two() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let (here, v4) = (pair.server.inode(), IpAddr::from(pair.server.v4));
    let group = || Claim::tcp(at(7001)).reuse_port().listen().unwrap();
    let _group = pair.server.act_as("the-group", || [group(), group(), group()]);
    let two = |ip| Claim::tcp(SocketAddr::new(ip, 7002)).listen().unwrap();
    let _two = pair.server.act_as("the-two", || [two(v4), two(Ipv4Addr::LOCALHOST.into())]);
    assert_eq!(eventually(&agent, here, 7001, 1)[0]["sockets"], 3);
    assert_eq!(eventually(&agent, here, 7002, 2).len(), 2);
    agent.stop();
}

#[test]
fn a_socket_handed_to_another_process_stays_until_the_last_one_ends() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let here = pair.server.inode();
    let sockets: Vec<OwnedFd> = pair.server.act_as("the-parent", || {
        vec![
            Claim::tcp(at(7001)).listen().unwrap().into(),
            Claim::udp(at(7002)).bind().unwrap().into(),
        ]
    });
    // Inherited through fork and exec, and closed here.
    let child = Holder::new("the-child", sockets);
    for port in [7001, 7002] {
        eventually(&agent, here, port, 1);
    }
    // The death of the last one ends it.
    drop(child);
    for port in [7001, 7002] {
        eventually(&agent, here, port, 0);
    }
    agent.stop();
}

#[test]
fn the_end_of_a_namespace_ends_its_rows() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let here = pair.server.inode();
    let socket = pair.server.act_as("the-server", || Claim::udp(at(7001)).bind().unwrap());
    eventually(&agent, here, 7001, 1);
    drop(pair);
    // The socket keeps the namespace alive.
    eventually(&agent, here, 7001, 1);
    drop(socket);
    eventually(&agent, here, 7001, 0);
    agent.stop();
}

/// A pre-existing socket is in the table, and leaves it when it closes.
#[test]
fn bootstrap_udp_finds_who_received_datagrams_before_the_agent() {
    needs_kernel!();
    let pair = Pair::new();
    let made = |namespace: &Namespace| -> Vec<OwnedFd> {
        namespace.within(|| {
            vec![
                Claim::udp(at(7001)).bind().unwrap().into(),
                Claim::tcp(at(7002)).listen().unwrap().into(),
            ]
        })
    };
    let old = Holder::new("the-old-one", made(&pair.server));
    let agent = Agent::start();
    let here = pair.server.inode();
    for (port, state) in [(7001, "bound"), (7002, "listening")] {
        let row = &eventually(&agent, here, port, 1)[0];
        assert_eq!(row["holder"]["service"]["name"], "the-old-one", "{row:#}");
        assert_eq!(row["state"], state, "{row:#}");
        assert!(row["since"].is_null(), "{row:#}");
        assert_ne!(row["holder"]["pid"], 0, "{row:#}");
    }
    drop(old);
    for port in [7001, 7002] {
        eventually(&agent, here, port, 0);
    }
    agent.stop();
}

/// The output of the commands.
#[test]
fn the_command_line_shows_the_holder_of_a_port_and_failed_binds() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let held = pair.server.act_as("the-server", || Claim::tcp(at(7001)).listen().unwrap());
    pair.server.act_as("the-claimant", || Claim::tcp(at(7001)).bind().unwrap_err());
    super::claim::conflict_of(&agent, "the-claimant", 7001);
    let url = format!("http://{}", agent.address);
    let shown = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::agent::binary());
        crate::agent::forget_our_variables(&mut command);
        let output = command.arg("ports").args(arguments).args(["--url", &url]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = shown(&[]);
    let row = table.lines().find(|line| line.contains("the-server")).expect(&table);
    assert!(row.trim_start().starts_with("7001  tcp") && row.contains("listening"), "{table}");
    assert_eq!(row.matches(" ago").count(), 2, "since when, and the last conflict: {row}");
    assert!(row.ends_with(&pair.server.inode().to_string()), "not the host's namespace: {row}");
    let who = shown(&["who", "7001"]);
    let pid = std::process::id();
    let here = pair.server.scope();
    let expected = format!(
        "the-claimant of {here} (pid {pid}) failed to bind 0.0.0.0:7001: the-server of {here} (pid {pid}) has held it for"
    );
    assert!(who.contains(&expected), "{who}");
    assert!(who.contains("Fix: stop one, or use 7002 (free) [EADDRINUSE"), "{who}");
    assert!(shown(&["conflicts", "--since", "1h"]).contains(&expected));
    assert!(shown(&["who", "7999"]).starts_with("No process holds port 7999"));
    let json: Value = serde_json::from_str(&shown(&["who", "7001", "--output", "json"])).unwrap();
    assert_eq!(json["ports"][0]["port"], 7001);
    assert_eq!(json["conflicts"][0]["claimant"]["service"]["name"], "the-claimant");
    drop(held);
    agent.stop();
}
