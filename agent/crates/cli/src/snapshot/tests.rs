//! Claims about snapshots of the real server: what commands show from a file is what they show from the
//! agent.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use api_types::{Access, OPERATIONS};
use clap::Parser;
use flate2::read::GzDecoder;
use model::clash::Reason;
use model::conflicts::{Conflict, Party};
use model::port::{PortState, PortView, Protocol};
use model::service::{Service, Source};

use super::*;
use crate::printed::{self, Printed};
use crate::target::tests::{Files, Served};
use crate::{Command, Outcome, class};

/// A command line of `portolan`.
#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// An agent, and a snapshot of it.
struct Both {
    files: Files,
    served: Served,
    file: PathBuf,
}

/// What a command line prints, and how it ends.
fn run(arguments: &[&str]) -> (String, anyhow::Result<Outcome>) {
    let (printed, done) = with_notes(arguments);
    (printed.out, done)
}

fn with_notes(arguments: &[&str]) -> (Printed, anyhow::Result<Outcome>) {
    let line = [&["portolan"], arguments].concat();
    let Line { command } = Line::try_parse_from(line).expect("a valid command line");
    printed::during(|| command.run(|file| bail!("{} is not read", file.display())))
}

/// Why a command line fails, and its class.
fn refused(arguments: &[&str]) -> (String, Option<Class>) {
    let (printed, done) = run(arguments);
    let error = done.expect_err("refused");
    assert_eq!(printed, "", "{arguments:?}");
    (format!("{error:#}"), class(&error))
}

/// The JSON of a file.
fn unpacked(file: &Path) -> String {
    let mut text = String::new();
    let file = fs::File::open(file).expect("opened");
    GzDecoder::new(file).read_to_string(&mut text).expect("JSON in gzip");
    text
}

/// The fixture, with failed binds and the ports that they were for.
fn shown() -> model::snapshot::Snapshot {
    let mut shown = model::fixture::snapshot();
    let host = shown.reservations.host_netns.expect("known");
    let party = |name: &str| Party {
        service: Service::new(name, Source::Process),
        pid: 104,
        command: name.to_owned(),
    };
    let any = std::net::Ipv4Addr::UNSPECIFIED.into();
    let conflict = |port, seconds_ago: f64| Conflict {
        first_seconds: shown.taken_seconds - 60.0,
        last_seconds: shown.taken_seconds - seconds_ago,
        count: 16,
        claimant: party("legacy"),
        port,
        protocol: Protocol::Tcp,
        address: any,
        netns: host,
        by_listen: false,
        errno: "EADDRINUSE".to_owned(),
        inferred: true,
        reason: Reason::SameAddress,
        holder: None,
        next_free: Some(port + 1),
        unverified_user: None,
    };
    let in_use = |port| PortView {
        port,
        protocol: Protocol::Tcp,
        address: any,
        v6_only: false,
        netns: host,
        state: PortState::Listening,
        holder: party("postgres"),
        uid: 0,
        since_seconds: Some(shown.taken_seconds - 90.0),
        sockets: 1,
        backlog: 0,
        max_backlog: 1,
        unverified_user: None,
    };
    let (conflicts, ports) =
        ([conflict(5432, 5.0), conflict(9000, 50.0)], [5432, 9000].map(in_use));
    shown.conflicts = conflicts.map(Arc::new).to_vec();
    shown.ports = ports.to_vec();
    shown
}

// === impl Both ===

impl Both {
    fn new() -> Self {
        let files = Files::new();
        let served = files.serve_of("", shown());
        let both = Self { file: files.path("shop.json.gz"), files, served };
        let (said, done) = run(&["snapshot", "--url", &both.url(), both.from()]);
        assert!(done.is_ok(), "{done:?}");
        assert!(said.starts_with(&format!("written to {} (", both.from())), "{said}");
        both
    }

    fn url(&self) -> String {
        self.served.url("http")
    }

    fn from(&self) -> &str {
        self.file.to_str().expect("text")
    }
}

/// Command lines that show what an agent has, and nothing of the clock and of this host.
const READING: &[&str] = &[
    "edges",
    "edges -o json",
    "edges --window start --role both --all",
    "edges --role client -o json",
    "edges --role server -o json",
    "edges --by address --window 5m -o json",
    "edges --sort p99 --exit-code",
    "events",
    "events -o json",
    "events --kind connect,reset -o json",
    "events --cause service_restarted",
    "events --service prod/shop -o json",
    "events --service postgres --limit 1 -o json",
    "events --client shop --server postgres --port 5432 -o json",
    "events --port 1 -o json",
    "services",
    "services --window 10s -o json",
    "services list --exit-code",
    "services health",
    "services health postgres --window start -o json",
    "services discover",
    "services discover --loopback -o json",
    "services discover --window 24h --port 5432 -o json",
    "services export --format prometheus",
    "services export --format envoy --service billing",
    "services export --format hosts --window 1h",
    "ports",
    "ports -o json",
    "ports who 5432",
    "ports who 5432 -o json",
    "ports who 9999",
    "ports conflicts",
    "ports conflicts --port 5432 -o json",
    "ports conflicts --port 1 --exit-code",
    "ports reservations -o json",
    "map",
    "map --format dot --window start",
    "map --format json --window 10s",
    "balance",
    "balance postgres -o json",
    "balance nobody",
    "balance status",
    "balance status --window 1m -o json",
    "balance generate --service postgres --for nginx --listen 127.0.0.1:8080",
    "timeouts",
    "timeouts --window 5m -o json",
    "timeouts postgres",
    "timeouts prod/shop billing -o json",
    "operations",
    "operations postgres --window 5m -o json",
    "segments",
    "segments violations -o json",
    "segments suggest",
    "policy generate --for nftables",
    "policy flows",
    "status",
    "status -o json --exit-code",
    "check --only connectivity,performance,ports,coverage -o json",
    "check --only connectivity,performance,ports,coverage --window start --fail-on warning",
    "diagnose --ports",
];

#[test]
fn every_command_that_reads_shows_from_a_file_what_it_shows_from_the_agent() {
    let both = Both::new();
    let mut shown = 0;
    for line in READING {
        let [agent, file] = [["--url", &both.url()], ["--from", both.from()]].map(|source| {
            let arguments: Vec<&str> = line.split(' ').chain(source).collect();
            let (printed, done) = run(&arguments);
            (printed, done.map_err(|error| format!("{error:#}")))
        });
        assert_eq!(agent, file, "{line}");
        shown += usize::from(agent.1.is_ok() && agent.0.lines().count() > 0);
    }
    // Of the fixture nothing is to be generated for some, which they say.
    assert!(shown > READING.len() - 4, "{shown} of {}", READING.len());
}

#[test]
fn what_the_server_filters_is_filtered_in_the_same_way() {
    let both = Both::new();
    let (agent, snapshot) = (both.served.http(), Snapshot::open(&both.file).expect("ours"));
    let is_same = |path: &str| {
        let (agent, file) = (agent.text(path).expect(path), snapshot.text(path).expect(path));
        assert_eq!(agent, file, "{path}");
        agent
    };
    // The parts, of which each filter has to leave out something, and not all.
    for (route, filters) in [
        ("edges?window=60", &["role=client", "service=postgres", "port=5432", "port=1"][..]),
        ("edges?window=60&by=address", &["role=client"]),
        ("balance?window=300", &["service=nobody", "service=postgres", "service=a,postgres"]),
        ("timeouts?window=start", &["service=nobody", "service=prod/shop", "service=postgres"]),
        (
            "events?limit=10000",
            &["kind=service", "cause=connect_refused", "server=prod/shop", "client=shop", "port=1"],
        ),
        ("conflicts?since=2023-11-14T22:00:00Z", &["port=5432", "port=1"]),
        ("conflicts?port=9000", &["since=2023-11-14T22:14:30Z"]),
        ("endpoints?window=1h", &["loopback=true", "port=443", "service=billing"]),
        ("history?window=60", &["limit=1", "service=postgres", "client=nobody", "port=5432"]),
        ("history?window=300", &["server=postgres&limit=1"]),
        ("ports?port=5432", &[]),
        ("ports?port=3001", &[]),
        ("ports?port=9000", &[]),
    ] {
        let whole = is_same(&format!("/api/v1/{route}"));
        let mut answers = BTreeSet::from([whole]);
        for filter in filters {
            answers.insert(is_same(&format!("/api/v1/{route}&{filter}")));
        }
        assert!(filters.is_empty() || answers.len() > 1, "{route}");
    }
    // Without their parameters, requests have the usual ones.
    for route in [
        "edges",
        "edges?by=address",
        "services",
        "map",
        "balance",
        "timeouts",
        "events",
        "endpoints",
        "endpoints?service=billing,prod/shop",
        "conflicts",
        "ports",
        "history?window=60&limit=1000",
    ] {
        is_same(&format!("/api/v1/{route}"));
    }
}

#[test]
fn every_route_is_in_a_snapshot_or_known_to_be_left_out() {
    // The same as /api/v1/endpoints for others, and the description of the API.
    const LEFT_OUT: [&str; 4] = [
        "/api/v1/sd/prometheus",
        "/api/v1/sd/envoy",
        "/v3/discovery:endpoints",
        "/api/v1/openapi.json",
    ];
    let route = |request: &String| request.split('?').next().unwrap_or_default().to_owned();
    let stored: BTreeSet<String> = question::requests(&[]).iter().map(route).collect();
    let readable = OPERATIONS.iter().filter(|one| {
        one.method == "GET" && one.access == Access::Network && one.path.contains('/')
    });
    let readable: BTreeSet<&str> = readable.map(|one| one.path).collect();
    assert!(readable.len() > 15, "{readable:?}");
    for path in &readable {
        let is_stored = stored.contains(*path);
        let is_text = !path.starts_with("/api/") && !path.starts_with("/v3/");
        assert!(is_stored || is_text || LEFT_OUT.contains(path), "{path}");
        assert!(!(is_stored && LEFT_OUT.contains(path)), "{path}");
    }
    for path in stored {
        assert!(readable.contains(path.as_str()), "{path} is not a route");
    }
}

#[test]
fn every_request_of_a_snapshot_is_answered_by_its_own_response() {
    for request in question::requests(&[WindowChoice::Last(120)]) {
        let stored = question::Question::of(&request).expect("a request").stored;
        // Of endpoints there is one response, with and without the loopback.
        assert_eq!(stored, request);
    }
}

#[test]
fn since_counts_back_from_when_the_snapshot_was_taken() {
    let both = Both::new();
    let lines = |since| {
        let (text, done) = run(&["events", "--from", both.from(), "--since", since]);
        assert!(done.is_ok(), "{done:?}");
        text.lines().count()
    };
    // Of the fixture's two events one happened 40 seconds before it was taken, one 19.
    assert_eq!((lines("1m"), lines("30s")), (2, 1));
    for (since, ago) in [("30s", &["5"][..]), ("1m", &["5", "50"])] {
        let (said, _) = run(&["ports", "conflicts", "--from", both.from(), "--since", since]);
        let found: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(found, ago, "{said}");
    }
}

#[test]
fn what_needs_a_running_agent_is_refused_with_the_reason() {
    let both = Both::new();
    for (line, what) in [
        ("events --follow", "--follow"),
        ("check --watch 5", "--watch"),
        ("services watch", "services watch"),
        ("services monitor", "services monitor"),
        ("services register billing --address 203.0.113.7:443", "a change"),
        ("services unregister billing", "a change"),
        ("ports watch", "ports watch"),
        ("ports reserve 5432 --for postgres", "a change"),
        ("ports release 5432", "a change"),
        ("ports free", "a change"),
        ("state import nothing.json", "state import"),
        ("balance deploy --service postgres --for nginx --to /nowhere/x.conf", "balance deploy"),
        ("balance rollback --for nginx --to /nowhere/x.conf", "balance rollback"),
        ("balance test --service postgres --for nginx --listen 127.0.0.1:1", "balance test"),
        ("snapshot", "snapshot"),
    ] {
        let arguments: Vec<&str> = line.split(' ').chain(["--from", both.from()]).collect();
        let expected =
            format!("{what} needs a running agent, and a snapshot is none: leave out --from");
        assert_eq!(refused(&arguments), (expected, Some(Class::Usage)), "{line}");
    }
    for line in ["edges --url http://a", "edges --socket /b"] {
        let line =
            [&["portolan"], &*line.split(' ').collect::<Vec<_>>(), &["--from", "c"]].concat();
        assert!(Line::try_parse_from(line).is_err());
    }
}

#[test]
fn what_is_not_in_a_file_is_said_with_what_is() {
    let both = Both::new();
    let check = |line: &str, expected: &str| {
        let arguments: Vec<&str> = line.split(' ').chain(["--from", both.from()]).collect();
        assert_eq!(refused(&arguments), (expected.to_owned(), Some(Class::Refused)), "{line}");
    };
    check(
        "edges --window 2m",
        "the window 2m is not in the snapshot: it has 10s, 1m, 5m, start; take another with `portolan snapshot --window 2m`",
    );
    check("services discover --window 7d", "the window 7d is not in the snapshot: it has 1h, 1d");
    // Exit code 2, as for other files that were named.
    let (said, class) = refused(&["edges", "--from", "/nowhere/shop.json.gz"]);
    assert_eq!(said, "--from /nowhere/shop.json.gz: No such file or directory (os error 2)");
    assert_eq!(class, Some(Class::Usage));
    let (said, _) = refused(&["check", "--from", "/"]);
    assert_eq!(said, "--from /: Is a directory (os error 21)");
}

#[test]
fn the_map_around_a_service_is_drawn_from_the_edges_of_the_file() {
    let both = Both::new();
    let drawn = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').chain(["--from", both.from()]).collect();
        let (text, done) = run(&arguments);
        assert!(done.is_ok(), "{line}: {done:?}");
        text
    };
    // Of monitoring and of the system, too, as an agent draws what is named.
    let text = drawn("map shop --window start");
    assert!(text.starts_with("internet\n└─ prod/shop:8080  0.01 req/s, p99 99.5 µs\n"), "{text}");
    assert!(text.contains("   └─ postgres:5432  0.07 req/s, p99 > 10 s"), "{text}");
    assert!(text.contains("3 failed"), "{text}");
    let json = drawn("map postgres --window 1m -o json");
    let map: api_types::Map = serde_json::from_str(&json).expect("a map");
    let ends: Vec<_> = map.edges.iter().map(|edge| (&*edge.client, &*edge.server)).collect();
    assert_eq!(ends, [("internet", "shop"), ("shop", "postgres")]);
    let arguments = ["map", "postgrse", "--window", "1m", "--from", both.from()];
    let error = run(&arguments).1.expect_err("unknown").to_string();
    assert_eq!(error, "no service is named postgrse; did you mean postgres?");
}

#[test]
fn a_window_that_was_asked_for_is_in_the_file() {
    let both = Both::new();
    let file = both.files.path("more.json");
    let from = file.to_str().expect("text");
    let (_, done) = run(&["snapshot", "--url", &both.url(), from, "--window", "2m,90s"]);
    assert!(done.is_ok(), "{done:?}");
    for line in ["edges --window 2m", "map --window 90s", "edges --by address --window 90s"] {
        let arguments = |source| line.split(' ').chain(source).collect::<Vec<_>>();
        let url = both.url();
        let (agent, _) = run(&arguments(["--url", &url]));
        let (file, done) = run(&arguments(["--from", from]));
        assert!(done.is_ok(), "{done:?}");
        assert_eq!(agent, file, "{line}");
    }
}

#[test]
fn a_file_is_its_owners_and_is_not_overwritten() {
    let both = Both::new();
    let before = fs::read(&both.file).expect("read");
    let mode = fs::metadata(&both.file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (said, class) = refused(&["snapshot", "--url", &both.url(), both.from()]);
    assert_eq!(
        said,
        format!("{} is there already: name another file, or add --force", both.from())
    );
    assert_eq!(class, Some(Class::Usage));
    assert_eq!(fs::read(&both.file).expect("read"), before);
    fs::write(&both.file, "another").expect("written");
    let (_, done) = run(&["snapshot", "--url", &both.url(), both.from(), "--force"]);
    assert!(done.is_ok(), "{done:?}");
    assert!(Snapshot::open(&both.file).is_ok());
    // Not even then is a device, a directory or a link replaced.
    let (said, _) = refused(&["snapshot", "--url", &both.url(), "/dev/null", "--force"]);
    assert_eq!(said, "/dev/null is not a regular file: name another");
    let names = fs::read_dir(both.file.parent().expect("a folder")).expect("listed");
    let names: Vec<_> = names.map(|one| one.expect("listed").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".tmp")), "{names:?}");
}

#[test]
fn a_snapshot_has_the_agents_answers_and_no_credentials() {
    let files = Files::new();
    let hash = bcrypt::hash("sesame", 4).expect("hashed");
    let served = files.serve(&format!("basic_auth_users:\n  ann: {hash}\n"));
    let password = files.write("password", "sesame\n");
    let file = files.path("shop.json.gz");
    let (_, done) = run(&[
        "snapshot",
        "--url",
        &served.url("http"),
        "--user",
        "ann",
        "--password-file",
        password.to_str().expect("text"),
        file.to_str().expect("text"),
    ]);
    assert!(done.is_ok(), "{done:?}");
    let text = unpacked(&file);
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(all["format"], "portolan-snapshot/1");
    assert_eq!(all["version"], "0.0.0");
    assert_eq!(all["kernel"], "6.18.0");
    assert!(all["responses"]["/api/v1/status"]["hooks"].is_array());
    let hash_without_cost = hash.rsplit('$').next().expect("the salt and the hash");
    let encoded = "YW5uOnNlc2FtZQ==";
    for secret in ["sesame", hash_without_cost, encoded, "ann", "uthorization", "basic_auth"] {
        let near = text.find(secret).map(|at| &text[at.saturating_sub(40)..at + 40]);
        assert_eq!(near, None, "{secret}");
    }
}

#[test]
fn a_diagnosis_from_a_file_connects_to_nothing() {
    let both = Both::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.set_nonblocking(true).expect("set");
    let server = listener.local_addr().expect("an address").to_string();
    for server in [server.as_str(), "postgres"] {
        let (said, done) = run(&["diagnose", server, "--from", both.from()]);
        assert!(done.is_ok(), "{done:?}");
        assert!(said.contains("not possible from a snapshot"), "{said}");
    }
    assert_eq!(listener.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_check_from_a_file_skips_what_is_of_this_host() {
    let both = Both::new();
    let (said, done) = run(&["check", "--from", both.from(), "--probe", "--all"]);
    assert!(done.is_ok(), "{done:?}");
    for what in ["network namespaces", "DNS servers", "--probe"] {
        assert!(said.contains(&format!("skipped: {what}: not possible from a snapshot")), "{said}");
    }
}

#[test]
fn a_name_of_a_file_says_host_and_time() {
    let both = Both::new();
    let mut snapshot = Snapshot::open(&both.file).expect("ours");
    for (host, expected) in [
        ("shop-1.example", "portolan-shop-1.example-"),
        ("https://node7:10062/portolan", "portolan-node7-10062-portolan-"),
        ("../../etc/x", "portolan-..-..-etc-x-"),
        ("http://[2001:db8::1]:80", "portolan-2001-db8--1--80-"),
    ] {
        host.clone_into(&mut snapshot.host);
        let name = snapshot.usual_name();
        let time = name.strip_prefix(expected).unwrap_or_else(|| panic!("{name}"));
        assert!(time.ends_with("Z.json.gz") && time.starts_with("20231114T"), "{name}");
    }
}
