//! Events: what fails and what changes appears one by one, in the list, in a stream, in a file and
//! on the command line.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::conflicts::claim::Claim;
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;

/// What happens in the test: kind, cause, and a service that it is about.
type Expected<'a> = (&'a str, &'a str, &'a str);

/// A failed bind without the kernel's errno is known after two seconds, with its holder after three.
const SOON: Duration = Duration::from_secs(15);

/// A stream of events, in HTTP/1.0, which knows no chunks.
struct Stream {
    socket: TcpStream,
    text: String,
}

// === impl Stream ===

impl Stream {
    /// Opens it and waits for the head of the response.
    fn open(agent: &Agent) -> Self {
        let mut socket = TcpStream::connect(agent.address).unwrap();
        net::patient(&socket);
        let host = agent.address;
        write!(
            socket,
            "GET /api/v1/events HTTP/1.0\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"
        )
        .unwrap();
        let mut stream = Self { socket, text: String::new() };
        while !stream.text.contains("\r\n\r\n:\n\n") {
            assert!(stream.read(), "{}", stream.text);
        }
        assert!(stream.text.contains("200 OK") && stream.text.contains("text/event-stream"));
        stream
    }

    /// Reads what there is; false at the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = self.socket.read(&mut buffer).expect("the stream goes on");
        self.text.push_str(std::str::from_utf8(&buffer[..read]).expect("JSON in ASCII"));
        read > 0
    }

    /// Reads until all of these are there. Nothing is asked of the agent: it collects by itself.
    fn wait_for(&mut self, expected: &[Expected<'_>]) {
        let began = Instant::now();
        loop {
            let events = self.events();
            let late = missing(&events, expected);
            if late.is_empty() {
                return;
            }
            assert!(began.elapsed() < patience(SOON), "{late:?} not in {events:#?}");
            assert!(self.read(), "{}", self.text);
        }
    }

    /// The events so far.
    fn events(&self) -> Vec<Value> {
        let whole = self.text.rfind("\n\n").map_or("", |end| &self.text[..end]);
        let data = whole.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|json| serde_json::from_str(json).expect("JSON")).collect()
    }
}

/// Those of `expected` that are not among the events.
fn missing<'a>(events: &[Value], expected: &[Expected<'a>]) -> Vec<Expected<'a>> {
    let is = |event: &Value, (kind, cause, service): &Expected<'_>| {
        let is_about = |end: &str| event[end]["name"] == *service;
        event["kind"] == *kind
            && event["cause"] == *cause
            && ["client", "server", "holder"].iter().any(|end| is_about(end))
    };
    let missing = expected.iter().filter(|one| !events.iter().any(|event| is(event, one)));
    missing.copied().collect()
}

fn cli(agent: &Agent, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    let url = format!("http://{}", agent.address);
    let output = command.args(arguments).args(["--url", &url]).output().expect("started");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_refused_connect_a_reset_a_conflict_and_a_start_are_events_within_seconds() {
    needs_kernel!();
    let pair = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events");
    let agent = Agent::with(&[("events.log", file.to_str().unwrap())]);
    let mut stream = Stream::open(&agent);
    let (client, server) = (pair.client.service.as_str(), pair.server.service.as_str());
    // A service starts, and then a connection to it is reset.
    let listener = pair.server.listen((pair.server.v4, 0));
    stream.wait_for(&[("service", "service_started", server)]);
    let port = net::port(&listener);
    let mut to_server = pair.client.connect((pair.server.v4, port)).unwrap();
    let mut from_client = net::accept(&listener);
    from_client.write_all(b"x").unwrap();
    net::read_exactly(&mut to_server, 1).unwrap();
    net::close_with_reset(from_client);
    // Nothing listens there.
    let closed = net::port(&pair.server.listen((pair.server.v4, 0)));
    pair.client.connect((pair.server.v4, closed)).unwrap_err();
    // Two programs and one port.
    let address = SocketAddr::new(pair.server.v4.into(), 5432);
    let _holder = pair.server.act_as("events-holder", || Claim::tcp(address).listen().unwrap());
    pair.server.act_as("events-claimant", || Claim::tcp(address).listen().unwrap_err());

    let expected = [
        ("service", "service_started", server),
        ("reset", "reset_aborted", client),
        ("connect", "connect_refused", client),
        ("bind", "same_address", "events-claimant"),
        ("bind", "same_address", "events-holder"),
    ];
    stream.wait_for(&expected);
    let listed = agent.json("/api/v1/events");
    let events = listed["events"].as_array().unwrap();
    assert_eq!(missing(events, &expected), []);
    // The cursor leads on, and filters leave only what was asked for.
    let after = agent.json(&format!("/api/v1/events?after={}", listed["cursor"]));
    assert_eq!(missing(after["events"].as_array().unwrap(), &expected), expected);
    let query = format!("/api/v1/events?client={client}&kind=reset,abort&port={port}");
    let reset = agent.json(&query)["events"].clone();
    let [reset] = reset.as_array().unwrap().as_slice() else { panic!("{reset}") };
    assert_eq!((&reset["server"]["name"], &reset["count"]), (&server.into(), &1.into()));
    let change = &reset["changes_before"][0];
    assert_eq!((&change["service"], &change["text"]), (&server.into(), &"started".into()));
    let text = cli(&agent, &["events", "--kind", "reset", "--client", client]);
    let client_name = client;
    let (client, server) = (pair.client.full_name(client), pair.server.full_name(server));
    let line = format!("{client} → {server}:{port} reset (by a program); before: {server} started");
    assert!(text.contains(&line), "{line:?} in {text}");
    let history = agent.json(&format!("/api/v1/history?client={client_name}&port={port}"));
    let points = history["series"][0]["points"].as_array().unwrap();
    let sum = |key: &str| points.iter().filter_map(|point| point[key].as_u64()).sum::<u64>();
    assert_eq!((sum("connects_ok"), sum("resets"), sum("received_bytes")), (1, 1, 1));
    assert!(points.iter().all(|point| point["seconds"].as_f64().unwrap() < 3.0), "{history}");
    let scrape = agent.scrape();
    let reported = |kind| scrape.sum("portolan_reported_events_total", &[("kind", kind)]);
    assert!(reported("connect") >= 1 && reported("reset") >= 1 && reported("bind") >= 1);
    let dropped =
        |reason| scrape.sum("portolan_reported_events_dropped_total", &[("reason", reason)]);
    assert_eq!((dropped("log"), dropped("follower")), (0, 0));
    // An open stream does not keep the agent from ending.
    agent.stop();
    let logged: Vec<Value> = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(missing(&logged, &expected), []);
}
