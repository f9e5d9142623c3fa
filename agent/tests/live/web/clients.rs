//! Clients of the endpoint as users have them (curl, openssl, python), and the agent under test.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Start};
use crate::facts::patience;

/// Asks at a Unix socket, as `/usr/bin/python3 -c` with its path: the status, or the error.
pub(super) const ASK: &str = "\
import socket, sys
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
    client.sendall(b'GET /metrics HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n')
    print(client.recv(12).decode())
except OSError as error:
    print(error.strerror)";

/// Opens connections to a port as fast as it can from three threads, and keeps the last 200 of each;
/// says so after the first thousand.
pub(super) const FLOOD: &str = "\
import socket, sys, threading
port, opened = int(sys.argv[1]), [0]
said = threading.Event()
def flood():
    ring = []
    while True:
        try:
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')
            one.settimeout(2)
            one.connect(('127.0.0.1', port))
            ring.append(one)
            opened[0] += 1
            if len(ring) > 200:
                ring.pop(0).close()
            if opened[0] > 1000 and not said.is_set():
                said.set()
                print('ready', flush=True)
        except OSError:
            pass
for _ in range(3):
    threading.Thread(target=flood).start()";

pub(super) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// An agent with access control; the test waits until it answers.
pub(super) fn agent(settings: &[(&str, &str)]) -> Agent {
    Agent::launch(&Start { settings: settings.to_vec(), unasked: true, ..Start::default() })
}

/// The status that curl gets; 0 if there is no response.
pub(super) fn curl(agent: &Agent, scheme: &str, path: &str, arguments: &[&str]) -> u16 {
    let url = format!("{scheme}://localhost:{}{path}", agent.address.port());
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"]);
    let output = curl.args(arguments).arg(url).output().expect("starting curl");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
}

#[track_caller]
pub(super) fn eventually<T: PartialEq + std::fmt::Debug>(expected: T, value: impl Fn() -> T) {
    let began = Instant::now();
    loop {
        let now = value();
        if now == expected {
            return;
        }
        assert!(
            began.elapsed() < patience(Duration::from_secs(10)),
            "expected {expected:?}, still {now:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(super) fn s_client(agent: &Agent, arguments: &[&str]) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &agent.address.to_string()]).args(arguments);
    said(&client.stdin(Stdio::null()).output().expect("starting openssl"))
}

/// CPU time of the agent so far (man 5 proc_pid_stat; a tick is 10 ms).
pub(super) fn cpu_time(agent: &Agent) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

pub(super) fn ready(agent: &Agent, ca: &str) {
    eventually(200, || curl(agent, "https", "/-/ready", &["--cacert", ca]));
}

/// Inodes of sockets that a process has open.
pub(super) fn sockets(pid: u32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent is ours");
    let links = descriptors.flatten().filter_map(|one| fs::read_link(one.path()).ok());
    let names = links.filter_map(|link| link.to_str().map(str::to_owned));
    let inode = |name: String| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    names.filter_map(inode).collect()
}
