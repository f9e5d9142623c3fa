//! `portolan check` on real faults: each has its code, and the exit code says so.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::facts::patience;
use crate::namespace::{Namespace, Pair};
use crate::net;

/// How long a fault may take to show: a failed bind waits for its holder.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connects of a fault.
const ATTEMPTS: usize = 20;
/// A program whose failing bind is to be left out.
const KNOWN: &str = "check-known";
/// So full is connection tracking nearly full.
const NEARLY_FULL: f64 = 0.82;

/// A report and the exit code.
struct Report {
    code: Option<i32>,
    json: Value,
}

/// Runs the command, which has to write a report.
fn check(arguments: &[&str]) -> Report {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    command.args(["check", "--output", "json", "--window", "1m"]).args(arguments);
    let output = command.output().expect("starting portolan");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("no report of {command:?}: {}", String::from_utf8_lossy(&output.stderr))
    });
    Report { code: output.status.code(), json }
}

impl Report {
    /// Codes of warnings and errors whose title has this in it, and that follow from nothing else.
    /// Others on this host may have faults of their own.
    fn roots(&self, about: &str) -> Vec<String> {
        let all = self.json["findings"].as_array().expect("findings").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.filter(|one| one["severity"] != "info" && one["caused_by"].is_null())
            .filter(|one| text(&one["title"]).contains(about))
            .map(|one| text(&one["code"]))
            .collect()
    }
}

/// Checks until these are the codes.
#[track_caller]
fn eventually(arguments: &[&str], about: &str, expected: &[&str]) -> Report {
    let began = Instant::now();
    loop {
        let report = check(arguments);
        if report.roots(about) == expected {
            return report;
        }
        let findings = &report.json["findings"];
        assert!(began.elapsed() < patience(PATIENCE), "{about}, not {expected:?}: {findings:#}");
    }
}

/// A configuration in which the ends of a pair may not connect to each other, and a failing bind is
/// known.
fn configuration(pair: &Pair) -> String {
    format!(
        "[check]\nskip = [\"po301 = *{KNOWN}*\"]\n[segments]\nallow = [\"back -> front\"]\n[segments.front]\nnetworks = [\"{}/32\"]\n[segments.back]\nnetworks = [\"{}/32\"]\n",
        pair.client.v4, pair.server.v4
    )
}

#[test]
fn faults_of_connections_ports_and_segments_have_their_codes_and_no_other_error() {
    needs_kernel!();
    let (pair, forbidden) = (Pair::new(), Pair::new());
    // A server that stops is no fault: nobody has ever listened here while an agent looked.
    let closed = net::port(&pair.server.listen("0.0.0.0:0"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("portolan.toml");
    fs::write(&path, configuration(&forbidden)).expect("written");
    let agent = Agent::with(&[("config", path.to_str().expect("a plain path"))]);
    let url = format!("http://{}", agent.address);
    let of = |service: &str| {
        ["--url", &url, "--only", "connectivity,performance,ports,security", "--service", service]
            .map(str::to_owned)
    };
    let (client, server) = (&pair.client.service, &pair.server.service);

    // All is well.
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let mut held = Vec::new();
    for _ in 0..3 {
        let stream = pair.client.connect((pair.server.v4, port)).expect("a listener of ours");
        held.push((stream, net::accept(&listener)));
    }
    agent.eventually(3, |now| now.edge(client, server, port, "client").connects("ok"));
    let arguments = of(client);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = check(&arguments);
    assert_eq!((report.roots(client), report.code), (vec![], Some(0)), "{:#}", report.json);
    let passed = report.json["summary"]["passed"].as_u64();
    assert!(passed.is_some_and(|passed| passed > 3), "{:#}", report.json);

    // Nothing listens.
    for _ in 0..ATTEMPTS {
        assert!(pair.client.connect((pair.server.v4, closed)).is_err());
    }
    let report = eventually(&arguments, client, &["PC101"]);
    assert_eq!(report.code, Some(1));
    let skipped = check(&[&arguments[..], &["--skip", "PC101"]].concat());
    assert_eq!((skipped.roots(client), skipped.code), (vec![], Some(0)));

    // A second program wants a port, and so does one of which it is known.
    let taken = forbidden.server.listen("0.0.0.0:0");
    let port = net::port(&taken);
    let late = "check-late";
    for program in [KNOWN, late] {
        let again = || std::net::TcpListener::bind(("0.0.0.0", port));
        assert!(forbidden.server.act_as(program, again).is_err(), "the port is in use");
    }
    let report = eventually(&["--url", &url, "--ports-only"], late, &["PO301"]);
    assert_eq!((report.roots(KNOWN), report.code), (vec![], Some(1)), "{:#}", report.json);
    let left_out = report.json["skipped"].as_array().expect("a list").iter();
    let left_out: Vec<&Value> = left_out.map(|one| &one["check"]).collect();
    let expected = Value::from(format!("1 finding, PO301=*{KNOWN}*"));
    assert!(left_out.contains(&&expected), "{left_out:?}");

    // The segments do not allow it.
    let from = &forbidden.client.service;
    let stream = forbidden.client.connect((forbidden.server.v4, port)).expect("a listener of ours");
    held.push((stream, net::accept(&taken)));
    let arguments = of(from);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = eventually(&arguments, from, &["PS401"]);
    assert_eq!(report.code, Some(1));
    agent.stop();
}

/// Tracks connections until the table is nearly full.
fn fill_conntrack(namespace: &Namespace) {
    namespace.nft("table ip track { chain out { type filter hook output priority 0; ct state new counter; }; }");
    // Nobody has this address; it is resolved, so every packet leaves.
    let [a, b, c, _] = namespace.v4.octets();
    let nobody = Ipv4Addr::new(a, b, c, 200);
    let arguments = format!("neigh add {nobody} lladdr 02:00:00:00:00:01 dev veth0");
    let done = namespace.command("ip").args(arguments.split(' ')).status().expect("starting ip");
    assert!(done.success(), "ip {arguments}");
    let number = |name: &str| -> f64 {
        let path = format!("/proc/sys/net/netfilter/{name}");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.trim().parse().expect("a number")
    };
    namespace.within(|| {
        let wanted = NEARLY_FULL * number("nf_conntrack_max");
        for _ in 0..16 {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            for port in 1..=u16::MAX {
                // A full queue drops a packet after it was tracked.
                let _ = socket.send_to(&[0], SocketAddr::from((nobody, port)));
                if port % 8192 == 0 && number("nf_conntrack_count") >= wanted {
                    return;
                }
            }
        }
        panic!("only {} connections are tracked", number("nf_conntrack_count"));
    });
}

#[test]
fn full_tables_and_addresses_used_twice_are_found_without_an_agent() {
    needs_kernel!();
    let pair = Pair::new();
    let network = ["--network-only", "--socket", "/nonexistent/control.sock"];
    let name = &pair.client.name;
    // What only an agent knows needs one.
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let output = command.args(["check", "--only", "ports"]).args(&network[1..]).output();
    let output = output.expect("starting portolan");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0));
    // Without an agent the report is incomplete.
    let report = check(&network);
    assert_eq!((report.roots(name), report.code), (vec![], Some(3)), "{:#}", report.json);
    assert!(report.json["incomplete"].is_string());
    let arguments = format!("addr add {}/24 dev veth0", pair.server.v4);
    let done = pair.client.command("ip").args(arguments.split(' ')).status().expect("starting ip");
    assert!(done.success(), "ip {arguments}");
    fill_conntrack(&pair.client);
    let report = check(&network);
    let mut roots = report.roots(name);
    roots.sort();
    assert_eq!((roots, report.code), (vec!["PN601".into(), "PN606".into()], Some(3)));
}
