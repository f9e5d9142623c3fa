//! HTTP/1 of chosen services, walked in the kernel: what is counted is what servers and clients count.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use agent_common::ledger::OPERATION;
use agent_common::protocol::http1::METHOD_NAMES;
use loader::drain::Drained;
use loader::later::WALKS;
use loader::load::{Kernel, Options};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::attach::{Cgroup, cgroup_root};
use crate::exactness::{Server, free_port_in, missing};
use crate::facts;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

/// Operations by method and status.
type Counts = BTreeMap<String, u64>;

/// A cgroup, where the kernel can walk one.
fn walkable(name: &str) -> Option<Cgroup> {
    if facts::kernel_is_before(5, 17) {
        println!("SKIPPED: bpf_loop is there since Linux 5.17");
        return None;
    }
    let root = cgroup_root();
    if root.is_none() {
        println!("SKIPPED: no cgroup2 file system is mounted");
    }
    root.map(|root| Cgroup::make(&root, name))
}

/// Operations at a port, on the server's side.
fn operations(now: &Scrape, port: u16) -> Counts {
    let port = port.to_string();
    let labels = [("port", port.as_str()), ("role", "server"), ("protocol", "http")];
    let mut all = Counts::new();
    for sample in now.matching("portolan_operations_total", &labels) {
        let label = |name| sample.label(name).expect("a label of the metric");
        let name = format!("{} {}", label("operation"), label("status"));
        *all.entry(name).or_default() += sample.value as u64;
    }
    all
}

fn agent(service: &str) -> Agent {
    Agent::with(&[("protocols.services", service)])
}

/// Waits until it walks a service.
fn walks(agent: &Agent) {
    agent.eventually(true, |_| agent.log().contains("are counted in cgroup"));
}

/// One connection to a server, which is opened again when the server closes it.
struct Client<'a> {
    from: &'a Namespace,
    to: (std::net::Ipv4Addr, u16),
    stream: Option<TcpStream>,
}

impl Client<'_> {
    /// Sends pieces, each by itself, and reads so many responses.
    fn ask(&mut self, pieces: &[&[u8]], methods: &[&str]) {
        let (from, to) = (self.from, self.to);
        let stream = self.stream.get_or_insert_with(|| {
            let stream = from.connect(to).expect("connecting");
            stream.set_nodelay(true).expect("an option");
            net::patient(&stream);
            stream
        });
        for piece in pieces {
            stream.write_all(piece).expect("asking");
        }
        let mut is_closed = false;
        for method in methods {
            is_closed |= read_response(stream, method);
        }
        if is_closed {
            self.stream = None;
        }
    }
}

/// Reads a response, and those before it that are not final. Whether the server closes.
fn read_response(stream: &mut TcpStream, method: &str) -> bool {
    let head = read_head(stream);
    let status = head.split(' ').nth(1).expect("a status");
    if status == "100" {
        return read_response(stream, method);
    }
    if head.contains("transfer-encoding: chunked") {
        loop {
            let line = read_until(stream, b"\r\n");
            let size = usize::from_str_radix(line.trim(), 16).expect("a size");
            net::read_exactly(stream, size + 2).expect("a chunk");
            if size == 0 {
                break;
            }
        }
    } else if method != "HEAD" && status != "204" && status != "304" {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
        net::read_exactly(stream, length).expect("a body");
    }
    head.contains("connection: close")
}

fn read_head(stream: &mut TcpStream) -> String {
    read_until(stream, b"\r\n\r\n").to_lowercase()
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a response");
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).expect("a head is text")
}

/// nginx in a cgroup, with a log of methods and statuses.
struct Nginx {
    server: Server,
    port: u16,
    log: PathBuf,
}

impl Nginx {
    fn start(namespace: &Namespace, cgroup: &Cgroup, directory: &TempDir) -> Self {
        let port = free_port_in(namespace);
        let statuses = [200, 204, 301, 304, 404, 429, 500, 503];
        let locations: String = statuses
            .map(|status| format!("location /{status} {{ return {status} \"0123456789\"; }}\n"))
            .concat();
        let log = directory.path().join("access");
        let (root, file) = (directory.path().display(), log.display());
        // What a server side include makes has no known length.
        fs::write(directory.path().join("chunked.html"), "a<!--# echo var=\"x\" -->b".repeat(500))
            .expect("writing a page");
        let configuration = format!(
            "{} log_format methods '$request_method $status'; access_log {file} methods;\n\
             server {{ listen {}:{port}; root {root}; {locations}\n\
             location /chunked.html {{ ssi on; }} }} }}\n",
            crate::balance::nginx_head(directory).replace("access_log off;", ""),
            namespace.v4,
        );
        let path = directory.path().join("nginx.conf");
        fs::write(&path, configuration).expect("writing a configuration");
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(&path).arg("-e").arg(directory.path().join("error"));
        let server = cgroup.during(|| Server::start(&mut command, namespace, port, libc::SIGQUIT));
        Self { server, port, log }
    }

    /// Ends it, so that its log is complete, and counts that.
    fn stop(self) -> Counts {
        drop(self.server);
        let text = fs::read_to_string(self.log).expect("a log");
        let mut all = Counts::new();
        for line in text.lines() {
            let (method, status) = line.split_once(' ').expect("two fields");
            let method = if METHOD_NAMES.contains(&method) { method } else { "_OTHER" };
            *all.entry(format!("{method} {}xx", &status[..1])).or_default() += 1;
        }
        all
    }
}

/// Ten exchanges over one connection.
fn exchanges(listener: &TcpListener) {
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut server = net::accept(listener);
            for _ in 0..10 {
                assert!(server.read(&mut [0; 200]).unwrap() > 0);
                server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
        });
        let mut client = TcpStream::connect(address).unwrap();
        for _ in 0..10 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert!(client.read(&mut [0; 200]).unwrap() > 0);
        }
    });
}

#[test]
fn walk_in_sees_the_requests_of_one_cgroup_and_runs_for_no_other() {
    needs_kernel!();
    let (Some(cgroup), Some(root)) = (walkable("in"), cgroup_root()) else { return };
    let mut kernel = start(&root);
    let link = kernel.attacher.attach_cgroup(WALKS[0], &cgroup.folder).unwrap();
    let inside = cgroup.during(|| TcpListener::bind("127.0.0.1:0").unwrap());
    exchanges(&TcpListener::bind("127.0.0.1:0").unwrap());
    let runs = |walk| kernel.attacher.runs(walk).unwrap().count;
    assert_eq!(WALKS.map(runs), [0, 0], "of another cgroup no packet is looked at");
    exchanges(&inside);
    let drained = drain(&mut kernel);
    assert_eq!(drained.ledger.seen[OPERATION], 10);
    drop(link);
}

#[test]
fn walk_out_pairs_responses_with_requests() {
    needs_kernel!();
    let (Some(cgroup), Some(root)) = (walkable("out"), cgroup_root()) else { return };
    let mut kernel = start(&root);
    let attach = |walk| kernel.attacher.attach_cgroup(walk, &cgroup.folder).unwrap();
    let links = WALKS.map(attach);
    exchanges(&cgroup.during(|| TcpListener::bind("127.0.0.1:0").unwrap()));
    let drained = drain(&mut kernel);
    let ledger = &drained.ledger;
    assert_eq!(ledger.lost[OPERATION].iter().sum::<u64>(), 0, "{ledger:?}");
    let answered = drained.edges.iter().flat_map(|edge| edge.counters.operations.answered());
    assert_eq!(answered.collect::<Vec<_>>(), [("GET", "2xx", 10)]);
    drop(links);
}

#[test]
fn every_request_to_nginx_is_counted_as_its_access_log_has_it() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let Some(cgroup) = walkable("nginx") else { return };
    let (pair, directory) = (Pair::new(), tempfile::tempdir().expect("a temporary directory"));
    let nginx = Nginx::start(&pair.server, &cgroup, &directory);
    let port = nginx.port;
    let agent = agent("nginx");
    walks(&agent);
    let mut client = Client { from: &pair.client, to: (pair.server.v4, port), stream: None };
    let statuses = [200, 204, 301, 304, 404, 429, 500, 503];
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
        for status in statuses {
            let head = format!("{method} /{status} HTTP/1.1\r\nHost: shop\r\n");
            client.ask(&[format!("{head}\r\n").as_bytes()], &[method]);
            let body = format!("{head}Content-Length: 5000\r\n\r\n{}", "GET / ".repeat(1000));
            client.ask(&[&body.as_bytes()[..body.len() - 1000]], &[method]);
            let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
            client.ask(&[chunked.as_bytes()], &[method]);
        }
        client.ask(
            &[format!("{method} /chunked.html HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()],
            &[method],
        );
    }
    let request = b"GET /200 HTTP/1.1\r\nHost: shop\r\nCookie: a=b\r\n\r\n";
    // Byte by byte; and many at once.
    let bytes: Vec<&[u8]> = request.chunks(1).collect();
    client.ask(&bytes, &["GET"]);
    client.ask(&[&request.repeat(30)], &["GET"; 30]);
    let expects =
        b"POST /200 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.ask(&[expects, b"abc"], &["POST"]);
    client.ask(&[b"nonsense\r\n\r\n"], &["GET"]);
    client.ask(&[request], &["GET"]);

    let counted = agent.ledger_adds_up();
    let counted = operations(&counted, port);
    let logged = nginx.stop();
    // A line that is not a request has no method.
    let nonsense = Counts::from([("_OTHER 4xx".to_owned(), 1)]);
    let mut expected = logged;
    for (name, count) in nonsense {
        *expected.get_mut(&name).expect("nginx logs it") -= count;
    }
    assert_eq!(counted, expected);
    let now = agent.scrape();
    let labels = [("port", &*port.to_string()), ("role", "server")];
    let durations = now.histogram("portolan_operation_duration_seconds", &labels);
    assert_eq!(durations.count, expected.values().sum::<u64>());
    assert_eq!(now.sum("portolan_operations_unanswered_total", &labels), 0);
    agent.stop();
}

#[test]
fn requests_without_a_response_and_connections_that_leave_http_are_known() {
    needs_kernel!();
    let Some(cgroup) = walkable("ends") else { return };
    let pair = Pair::new();
    let agent = agent(&pair.server.service);
    let listener = cgroup.during(|| pair.server.listen((pair.server.v4, 0)));
    let port = net::port(&listener);
    walks(&agent);
    let connect = || {
        let client = pair.client.connect((pair.server.v4, port)).expect("connecting");
        net::patient(&client);
        (client, net::accept(&listener))
    };
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let arrive = |server: &mut TcpStream, length: usize| {
        net::read_exactly(server, length).expect("a request");
    };
    // The server closes instead of the second response; the client resets.
    for is_reset in [false, true] {
        let (mut client, mut server) = connect();
        client.write_all(&request.repeat(2)).expect("asking");
        arrive(&mut server, request.len() * 2);
        server.write_all(response).expect("answering");
        net::read_exactly(&mut client, response.len()).expect("a response");
        if is_reset {
            net::close_with_reset(client);
            assert!(server.read(&mut [0]).is_err(), "reset");
        } else {
            drop(server);
            assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        }
    }
    // A connection that speaks something else after its first exchange.
    let (mut client, mut server) = connect();
    let upgrade = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(upgrade).expect("asking");
    arrive(&mut server, upgrade.len());
    let switching = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    server.write_all(switching).expect("answering");
    net::read_exactly(&mut client, switching.len()).expect("a response");
    client.write_all(request).expect("asking");
    arrive(&mut server, request.len());
    server.write_all(response).expect("answering");
    // One that never spoke HTTP.
    let (mut other, mut served) = connect();
    other.write_all(b"*1\r\n$4\r\nPING\r\n").expect("asking");
    arrive(&mut served, 14);
    served.write_all(b"+PONG\r\n").expect("answering");

    let expected = Counts::from([("GET 1xx".to_owned(), 1), ("GET 2xx".to_owned(), 2)]);
    agent.eventually(expected, |now| operations(now, port));
    let labels = [("port", &*port.to_string()), ("role", "server"), ("protocol", "http")];
    agent.eventually(2, |now| now.sum("portolan_operations_unanswered_total", &labels));
    agent.ledger_adds_up();
    agent.stop();
}

/// With packets lost both ways every status is right; a request whose packets came in the wrong order
/// may be counted as lost, never as something that it is not.
#[test]
fn lost_packets_lose_no_status_and_make_none_up() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let Some(cgroup) = walkable("loss") else { return };
    let (pair, directory) = (Pair::new(), tempfile::tempdir().expect("a temporary directory"));
    let nginx = Nginx::start(&pair.server, &cgroup, &directory);
    let agent = agent("nginx");
    walks(&agent);
    let port = nginx.port;
    for end in pair.both() {
        end.nft_input("numgen random mod 100 < 2 drop");
    }
    let to = (pair.server.v4, port);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client { from: &pair.client, to, stream: None };
                for turn in 0..150 {
                    let status = [200, 404, 503][turn % 3];
                    let body = "x".repeat(if turn % 2 == 0 { 20_000 } else { 100 });
                    let request = format!(
                        "POST /{status} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    client.ask(&[request.as_bytes()], &["POST"]);
                }
            });
        }
    });
    for end in pair.both() {
        end.nft_flush();
    }
    let now = agent.ledger_adds_up();
    let counted = operations(&now, port);
    let lost: u64 = now
        .losses()
        .into_iter()
        .filter(|(class, ..)| *class == "operation")
        .map(|(_, reason, count)| {
            println!("lost: {reason} {count}");
            count
        })
        .sum();
    let logged = nginx.stop();
    println!("counted {counted:?}, logged {logged:?}");
    let sum = |all: &Counts| all.values().sum::<u64>();
    assert_eq!(sum(&counted) + lost, sum(&logged));
    for (name, count) in &counted {
        assert!(count <= &logged[name], "{name}");
    }
    // One in fifty, at the very most.
    assert!(lost <= sum(&logged) / 50, "{lost} lost");
    agent.stop();
}

#[test]
fn a_service_without_a_cgroup_of_its_own_is_refused_with_the_reason() {
    needs_kernel!();
    if walkable("none").is_none() {
        return;
    }
    let pair = Pair::new();
    let agent = agent(&pair.server.service);
    let listener = pair.server.listen((pair.server.v4, 0));
    let title = format!(
        "not observed on this host: operations of {}",
        pair.server.full_name(&pair.server.service)
    );
    let reason = |_: &Scrape| {
        let status = agent.json("/api/v1/status");
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        let one = findings.into_iter().find(|one| one["title"] == *title);
        one.and_then(|one| one["evidence"]["reason"].as_str().map(str::to_owned))
    };
    let expected = "it runs in the root cgroup, which all others are below".to_owned();
    agent.eventually(Some(expected), reason);
    assert!(agent.log().contains("are not counted: it runs in the root cgroup"), "{}", agent.log());
    drop(listener);
    agent.stop();
}

/// What was counted, when rows are old enough to be read.
fn drain(kernel: &mut Kernel) -> Drained {
    thread::sleep(Duration::from_millis(50));
    kernel.drain.run(linux::clock::monotonic_us() * 1000).unwrap()
}

/// The kernel half with the programs that walk.
fn start(cgroup_root: &Path) -> Kernel {
    Kernel::start(&Options {
        edges: 64,
        owners: 64,
        ring_bytes: 1 << 16,
        internal_ranges: Vec::new(),
        requests: true,
        responses: false,
        dns: false,
        lookups: false,
        pin: None,
        bpf_log: false,
        run_stats: true,
        cgroup_root: Some(cgroup_root.to_owned()),
        disabled: Vec::new(),
        later: WALKS.to_vec(),
    })
    .unwrap()
}
