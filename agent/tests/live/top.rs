//! `portolan top` on real faults: what fails is in the first row, with its cause, above busier traffic
//! of the same client that works.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::Socket;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::conflicts::claim::Claim;
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;

/// How long a fault may take to show: a connect that nobody answers fails after some seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// A connection is idle after a second of silence.
const IDLE: Duration = Duration::from_millis(1100);
/// Longer than a program takes between its last message and the close.
const WAIT: Duration = Duration::from_millis(80);
/// Where nothing listens, and where nothing answers; not among the ports that are given out.
const CLOSED: u16 = 4001;
const SILENT: u16 = 4002;

/// Where faults happen.
struct Scene {
    pair: Pair,
    agent: Agent,
    /// A server that works.
    server: TcpListener,
    /// One that does not. It keeps running: failures while a server stops are not faults.
    faulty: TcpListener,
}

/// A client, what goes wrong between it and a server, and what `top` calls that. A fault leaves in the
/// list what has to stay open until it was seen.
type Fault = (&'static str, fn(&Scene, &str, &mut Vec<Socket>), &'static str);

const FAULTS: &[Fault] = &[
    ("top-timeout", time_out, "connect_timeout"),
    ("top-refused", refuse, "connect_refused"),
    ("top-idle-reuse", reuse, "reset_idle_reuse"),
    ("top-reset", reset, "reset_aborted"),
    ("top-unanswered", do_not_answer, "request_unanswered"),
];

// === impl Scene ===

impl Scene {
    fn new() -> Self {
        let pair = Pair::new();
        pair.server.nft_input(&format!("tcp dport {SILENT} drop"));
        // One more SYN, and a connect has failed.
        pair.client.sysctl("ipv4/tcp_syn_retries", "1");
        let agent = Agent::start();
        let (server, faulty) = (pair.server.listen("0.0.0.0:0"), pair.server.listen("0.0.0.0:0"));
        Self { pair, agent, server, faulty }
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.pair.server.v4, port).into()
    }

    /// A connection that was used once: both ends.
    fn used(&self, client: &str, server: &TcpListener) -> (TcpStream, TcpStream) {
        let at = self.at(net::port(server));
        let near = self.pair.client.act_as(client, || TcpStream::connect(at));
        let (mut near, mut far) = (near.expect("connected"), net::accept(server));
        net::patient(&near);
        near.write_all(b"request").expect("sent");
        net::read_exactly(&mut far, 7).expect("received");
        far.write_all(b"response").expect("sent");
        net::read_exactly(&mut near, 8).expect("received");
        (near, far)
    }

    /// The screen, once: what this client does, worst first.
    fn top(&self, view: &str, client: &str, more: &[&str]) -> String {
        let (url, filter) = (format!("http://{}", self.agent.address), format!("client={client}"));
        let mut command = Command::new(binary());
        forget_our_variables(&mut command);
        command.args(["top", "--once", "--url", &url, "--view", view, "--filter", &filter]);
        let output = command.args(more).output().expect("starting portolan");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Waits until the first row of the JSON is as expected.
    #[track_caller]
    fn first(&self, view: &str, client: &str, expected: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let json = self.top(view, client, &["--output", "json"]);
            let json: Value = serde_json::from_str(&json).expect("JSON");
            if expected(&json["rows"][0]) {
                return json;
            }
            assert!(began.elapsed() < patience(PATIENCE), "{client}: {:#}", json["rows"]);
        }
    }
}

fn time_out(scene: &Scene, client: &str, open: &mut Vec<Socket>) {
    let to = scene.at(SILENT);
    open.push(scene.pair.client.act_as(client, || {
        let socket = net::socket_for(&to);
        net::begin_connect(&socket, to);
        socket
    }));
}

fn refuse(scene: &Scene, client: &str, _: &mut Vec<Socket>) {
    let to = scene.at(CLOSED);
    scene.pair.client.act_as(client, || TcpStream::connect(to)).expect_err("nothing listens");
}

fn reuse(scene: &Scene, client: &str, _: &mut Vec<Socket>) {
    let (mut near, far) = scene.used(client, &scene.faulty);
    drop(far);
    thread::sleep(IDLE);
    near.write_all(b"request").expect("the first one is sent");
    thread::sleep(WAIT);
}

fn reset(scene: &Scene, client: &str, _: &mut Vec<Socket>) {
    let (near, far) = scene.used(client, &scene.faulty);
    net::close_with_reset(far);
    thread::sleep(WAIT);
    drop(near);
}

fn do_not_answer(scene: &Scene, client: &str, _: &mut Vec<Socket>) {
    let (mut near, mut far) = scene.used(client, &scene.faulty);
    // What is sent just before a close, after an answer, is a goodbye.
    thread::sleep(WAIT);
    near.write_all(b"request").expect("sent");
    net::read_exactly(&mut far, 7).expect("received");
    thread::sleep(WAIT);
    drop(far);
    net::read_to_end(&mut near).expect("closed");
}

#[test]
fn each_fault_is_the_first_row_of_top_and_what_works_comes_after_it() {
    needs_kernel!();
    let scene = Scene::new();
    let mut held = Vec::new();
    for (client, fault, _) in FAULTS {
        // Busier than what is wrong.
        for _ in 0..3 {
            drop(scene.used(client, &scene.server));
        }
        fault(&scene, client, &mut held);
    }
    let working = u64::from(net::port(&scene.server));
    for (client, _, cause) in FAULTS {
        let json = scene.first("edges", client, |row| row["why"][0]["cause"] == *cause);
        let rows = json["rows"].as_array().expect("rows");
        let [first, second] = &rows[..] else { panic!("{client}: {rows:#?}") };
        assert_eq!((&first["client"], &first["role"]), (&(*client).into(), &"client".into()));
        assert_ne!(first["mark"], "ok", "{client}");
        assert_eq!((&second["port"], &second["mark"]), (&working.into(), &"ok".into()), "{client}");
    }
    drop(held);

    // The same as people see it.
    let text = scene.top("edges", "top-refused", &[]);
    let mut rows = text.lines().skip_while(|line| !line.contains("CLIENT")).skip(1);
    let (first, second) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    assert!(first.starts_with(['!', '✗']) && first.contains("1 refused"), "{text}");
    assert!(second.starts_with('✓'), "{text}");

    // A program that wants a port that is in use has no edge.
    let place = scene.at(net::port(&scene.server));
    let claimant = "top-claimant";
    scene.pair.server.act_as(claimant, || Claim::tcp(place).listen().unwrap_err());
    let json = scene.first("conflicts", claimant, |row| !row.is_null());
    let first = &json["rows"][0];
    assert_eq!(first["port"], place.port(), "{first:#}");
    assert_eq!(first["holder"]["service"]["name"], scene.pair.server.service, "{first:#}");
    scene.agent.stop();
}
