//! `portolan snapshot`: what an agent saw, read from a file when it is gone.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables, free_port};
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;

/// Requests, and refused connects.
const REQUESTS: usize = 3;
const REFUSED: usize = 12;
/// How long a count may take to show.
const SOON: Duration = Duration::from_secs(10);

/// What must not be in a file: a header of the agent's configuration, and the arguments of a program.
const HEADER: &str = "header-hunter2";
const ARGUMENT: &str = "argument-hunter2";

/// Exit code, standard output and standard error of `portolan`.
fn portolan(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let output = command.args(arguments).output().expect("starting portolan");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The JSON that a command prints from a file.
fn json(file: &Path, arguments: &[&str]) -> Value {
    let from = ["-o", "json", "--from", file.to_str().expect("text")];
    let (code, text, error) = portolan(&[arguments, &from].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    assert!(error.starts_with("portolan: snapshot of "), "{error}");
    serde_json::from_str(&text).expect("JSON")
}

fn edge<'a>(edges: &'a Value, client: &str, port: u16) -> &'a Value {
    let is = |one: &&Value| one["client"] == client && one["port"] == port;
    edges["edges"].as_array().expect("a list").iter().find(is).unwrap_or(&Value::Null)
}

#[test]
fn what_an_agent_saw_is_read_from_a_file_when_it_is_gone() {
    needs_kernel!();
    let pair = Pair::new();
    // Nobody listens at the endpoint: only the header matters.
    let (endpoint, header) =
        (format!("http://127.0.0.1:{}", free_port()), format!("authorization={HEADER}"));
    let agent = Agent::with(&[("otlp.endpoint", &endpoint), ("otlp.headers", &header)]);
    let (client, server) = (pair.client.service.as_str(), pair.server.service.as_str());
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let mut near = pair.client.connect((pair.server.v4, port)).expect("a listener of ours");
    let mut far = net::accept(&listener);
    let answering = std::thread::spawn(move || net::answer(&mut far, 7, 8, Duration::ZERO));
    for _ in 0..REQUESTS {
        net::ask(&mut near, 7, 8).expect("a response");
    }
    let closed = net::port(&pair.server.listen((pair.server.v4, 0)));
    for _ in 0..REFUSED {
        pair.client.connect((pair.server.v4, closed)).expect_err("nothing listens there");
    }
    // A program with a password among its arguments.
    let script = format!("exec 3<>/dev/tcp/{}/{port}", pair.server.v4);
    let mut bash = pair.client.command("bash");
    let status = bash.args(["-c", &script, "bash", ARGUMENT]).status().expect("starting bash");
    assert!(status.success());

    // What the agent says when all of that is counted.
    let began = Instant::now();
    let said = loop {
        let said = agent.json("/api/v1/edges?window=60&role=client");
        let requests = &edge(&said, client, port)["request"]["count"];
        let refused = &edge(&said, client, closed)["connects"]["refused"];
        if *requests == REQUESTS && *refused == REFUSED && !edge(&said, "bash", port).is_null() {
            break said;
        }
        assert!(began.elapsed() < patience(SOON), "{said:#}");
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("incident.json.gz");
    let socket = agent.run_directory().join("control.sock");
    let (name, socket) = (file.to_str().expect("text"), socket.to_str().expect("text"));
    let (code, text, error) = portolan(&["snapshot", name, "--socket", socket]);
    assert_eq!(code, Some(0), "{error}");
    assert!(text.starts_with(&format!("written to {name} (")), "{text}");
    agent.stop();
    drop(near);
    answering.join().expect("no panic").expect("no error");

    let edges = json(&file, &["edges", "--window", "1m", "--role", "client"]);
    for (client, port) in [(client, port), (client, closed), ("bash", port)] {
        let (now, then) = (edge(&edges, client, port), edge(&said, client, port));
        for field in ["server", "connects", "request", "resets_received"] {
            assert_eq!(now[field], then[field], "{client} {port} {field}");
        }
    }
    let services = json(&file, &["services"]);
    let listed = services["services"].as_array().expect("a list");
    assert!(listed.iter().any(|one| one["service"] == server), "{services:#}");
    let events = json(&file, &["events", "--since", "5m", "--kind", "connect"]);
    let [event] = events["events"].as_array().expect("a list").as_slice() else {
        panic!("{events:#}")
    };
    assert_eq!((&event["cause"], &event["count"]), (&"connect_refused".into(), &REFUSED.into()));
    let (code, text, _) = portolan(&["top", "--once", "--from", name]);
    assert!(code == Some(0) && text.contains(&format!("{REFUSED} refused")), "{text}");
    let refusal = format!("{closed}: 100% of connects are refused ({REFUSED} of {REFUSED})");
    let (code, text, _) = portolan(&["check", "--from", name, "--all"]);
    assert!(code == Some(1) && text.contains(&refusal), "{text}");
    assert!(text.contains("skipped: network namespaces: not possible from a snapshot"), "{text}");
    let refusing = format!("{}:{closed}", pair.server.v4);
    let (code, text, _) = portolan(&["diagnose", client, &refusing, "--from", name]);
    assert!(code == Some(1) && text.contains(&format!("{refusing} refuses connects")), "{text}");

    the_page_of(&file, &said, (client, port));

    let unpacked = Command::new("gzip").args(["-dc", name]).output().expect("starting gzip");
    assert!(unpacked.status.success());
    let unpacked = String::from_utf8(unpacked.stdout).expect("text");
    assert!(unpacked.contains("\"bash\""));
    for secret in [HEADER, ARGUMENT, "uthorization"] {
        assert!(!unpacked.contains(secret), "{secret} is in the file");
    }
}

/// The page and the API of the file are served, to readers of this host only, and by HTTP as by commands.
fn the_page_of(file: &Path, said: &Value, (client, port): (&str, u16)) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    command.args(["serve", "--web.listen-address", &address, "--from"]).arg(file);
    let mut serving = command.stderr(Stdio::piped()).spawn().expect("starting portolan");
    let get = |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        Some(response)
    };
    let began = Instant::now();
    let page = loop {
        if let Some(page) = get("/", &address) {
            break page;
        }
        assert!(began.elapsed() < patience(SOON), "nothing listens at {address}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("page.js"), "{page}");
    let edges = get("/api/v1/edges?window=1m&role=client", &address).expect("a response");
    let (_, body) = edges.split_once("\r\n\r\n").expect("a body");
    let edges: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(edge(&edges, client, port)["request"], edge(said, client, port)["request"]);
    let refused = get("/api/v1/edges?window=7s", &address).expect("a response");
    assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    let rebound = get("/api/v1/edges", "evil.example").expect("a response");
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    // SAFETY: a child of ours that was not waited for.
    assert_eq!(unsafe { libc::kill(serving.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(serving.wait().expect("its end").code(), Some(0));
}
