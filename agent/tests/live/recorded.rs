//! `--prometheus`: what a real Prometheus has recorded of a real agent, shown by the commands, and
//! compared with what the agent says itself.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::exactness::missing;
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;
use crate::prometheus::Prometheus;

/// Requests, and refused connects.
const REQUESTS: u64 = 40;
const REFUSED: u64 = 12;
/// How long a count may take to show, in the agent and after a scrape.
const SOON: Duration = Duration::from_secs(15);
/// Samples before anything happens: more than one, and a second between them.
const QUIET: Duration = Duration::from_secs(4);

/// What numbers of an edge are compared.
const FIELDS: &[&str] = &[
    "connects",
    "opened",
    "closed",
    "active",
    "request",
    "connect",
    "unanswered",
    "sent_bytes",
    "received_bytes",
    "retransmits",
    "resets_received",
    "resets_sent",
    "why",
    "other_side",
];

/// Exit code, standard output and standard error of `portolan`.
fn portolan(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let output = command.args(arguments).output().expect("starting portolan");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The JSON that a command prints.
fn json(arguments: &[&str]) -> Value {
    let (code, text, error) = portolan(&[arguments, &["-o", "json"]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    serde_json::from_str(&text).expect("JSON")
}

/// The entry of a list that has these values.
fn find<'a>(answer: &'a Value, list: &str, wanted: &[(&str, Value)]) -> &'a Value {
    let is = |one: &&Value| wanted.iter().all(|(field, value)| one[*field] == *value);
    answer[list].as_array().expect("a list").iter().find(is).unwrap_or(&Value::Null)
}

fn edge<'a>(edges: &'a Value, client: &str, port: u16, role: &str) -> &'a Value {
    find(edges, "edges", &[("client", client.into()), ("port", port.into()), ("role", role.into())])
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[test]
fn what_prometheus_has_recorded_has_the_agents_figures() {
    needs_kernel!();
    if let Some(why) = missing(&["prometheus"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let prometheus = Prometheus::start(agent.address);
    let (agent_url, url) =
        (format!("http://{}", agent.address), format!("http://{}", prometheus.address));
    let samples = "count_over_time(portolan_drains_total[1m])";
    let began = Instant::now();
    while prometheus.query(samples).first().is_none_or(|n| *n < QUIET.as_secs_f64()) {
        assert!(began.elapsed() < patience(SOON), "Prometheus does not scrape");
        std::thread::sleep(Duration::from_millis(200));
    }
    let before = now();

    let (client, server) = (pair.client.service.as_str(), pair.server.service.as_str());
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let mut near = pair.client.connect((pair.server.v4, port)).expect("a listener of ours");
    let mut far = net::accept(&listener);
    let answering =
        std::thread::spawn(move || net::answer(&mut far, 7, 8, Duration::from_millis(3)));
    for _ in 0..REQUESTS {
        net::ask(&mut near, 7, 8).expect("a response");
    }
    let closed = net::port(&pair.server.listen((pair.server.v4, 0)));
    for _ in 0..REFUSED {
        pair.client.connect((pair.server.v4, closed)).expect_err("nothing listens there");
    }
    // Until both have counted all of it.
    let labels = format!("port=\"{port}\",role=\"client\"");
    let count = format!("portolan_request_duration_seconds_count{{{labels}}} == {REQUESTS}");
    let refused = format!(
        "portolan_tcp_connects_total{{port=\"{closed}\",role=\"client\",result=\"refused\"}} == {REFUSED}"
    );
    prometheus.positive(&count);
    prometheus.positive(&refused);

    let edges = json(&["edges", "--window", "1m", "--prometheus", &url]);
    let said = json(&["edges", "--window", "1m", "--url", &agent_url]);
    for (client, port, role) in
        [(client, port, "client"), (client, port, "server"), (client, closed, "client")]
    {
        let (recorded, own) = (edge(&edges, client, port, role), edge(&said, client, port, role));
        assert!(!own.is_null(), "{said:#}");
        assert!(!recorded.is_null(), "{edges:#}");
        for field in FIELDS {
            assert_eq!(recorded[*field], own[*field], "{role} of {port}: {field}\n{recorded:#}");
        }
        assert_eq!(recorded["client_source"], own["client_source"]);
        assert!(recorded["request"]["p99_seconds"] == own["request"]["p99_seconds"]);
    }
    assert_eq!(edge(&edges, client, port, "client")["request"]["count"], REQUESTS);
    assert_eq!(edge(&edges, client, closed, "client")["connects"]["refused"], REFUSED);
    let host = &edges["hosts"][0];
    assert_eq!(host["host"], agent.address.to_string());
    assert_eq!(
        (&host["version"], &host["error"]),
        (&env!("CARGO_PKG_VERSION").into(), &Value::Null)
    );

    let services = json(&["services", "--window", "1m", "--prometheus", &url]);
    let said = json(&["services", "--window", "1m", "--url", &agent_url]);
    for name in [client, server] {
        let wanted = [("service", Value::from(name))];
        let (recorded, own) =
            (find(&services, "services", &wanted), find(&said, "services", &wanted));
        assert!(!own.is_null(), "{said:#}");
        assert_eq!(recorded["health"], own["health"], "{name}");
        assert_eq!(recorded["serves"], own["serves"], "{name}");
        assert_eq!(recorded["listens"], own["listens"], "{name}");
    }
    let map = json(&["map", client, "--window", "1m", "--prometheus", &url]);
    let wanted = [("client", client.into()), ("port", port.into())];
    assert_eq!(find(&map, "edges", &wanted)["requests"], REQUESTS, "{map:#}");
    let (_, table, _) = portolan(&["edges", "--window", "1m", "--prometheus", &url]);
    assert!(table.contains(&format!("{REFUSED} refused")), "{table}");
    assert!(table.contains(&format!("1 host\nrecorded by {url}: ")), "{table}");

    // The moment before: the agent was scraped, and the edge was not there.
    let at = api_time(before);
    let then = json(&["edges", "--window", "1m", "--prometheus", &url, "--at", &at]);
    assert!(edge(&then, client, port, "client").is_null(), "{then:#}");
    let ago = (now() - before).ceil() as u64;
    let ago = format!("{ago}s");
    let (code, table, error) = portolan(&[
        "edges",
        "--window",
        "1m",
        "--prometheus",
        &url,
        "--compare",
        &ago,
        "--exit-code",
    ]);
    assert_eq!(code, Some(1), "{error}{table}");
    let row = |first: &str, port: u16| {
        table.lines().any(|line| line.starts_with(first) && line.contains(&port.to_string()))
    };
    assert!(row("failing", closed) && row("new", port), "{table}");

    let errors = [
        (
            vec!["edges", "--prometheus", &url, "--at", "2020-01-01T00:00:00Z"],
            "it has no metrics of Portolan at 2020-01-01T00:00:00Z, but of 1 agents now: take a later --at",
        ),
        (vec!["edges", "--prometheus", &agent_url], "is not the API of Prometheus"),
        (
            vec!["edges", "--prometheus", "http://127.0.0.1:1"],
            "nothing answers at http://127.0.0.1:1",
        ),
    ];
    for (arguments, expected) in errors {
        let (code, _, error) = portolan(&arguments);
        assert!(code == Some(3) && error.contains(expected), "{arguments:?}: {error}");
    }
    drop(near);
    answering.join().expect("no panic").expect("no error");
    agent.stop();
}

/// A moment as `--at` takes it.
fn api_time(seconds: f64) -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{}", seconds.floor()), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .expect("starting date");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
