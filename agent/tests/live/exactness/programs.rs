//! Real servers and load tools inside namespaces: started when their port listens, ended with
//! the test. Waiting for a port looks at `/proc/net/tcp`, so that it opens no connection.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::namespace::{Namespace, Pair};
use crate::net;

/// How long a server may take to listen or to end.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(10);

/// Why a test cannot run here: a program it needs is not installed.
pub fn missing(programs: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let is_here = |program: &str| {
        Path::new(program).is_file()
            || path.split(':').any(|folder| Path::new(folder).join(program).is_file())
    };
    let missing: Vec<_> = programs.iter().copied().filter(|name| !is_here(name)).collect();
    if missing.is_empty() { None } else { Some(format!("not installed: {}", missing.join(", "))) }
}

/// A port that is free in a namespace of ours.
pub fn free_port_in(namespace: &Namespace) -> u16 {
    let address = namespace.v4;
    namespace.within(move || {
        let probe = TcpListener::bind((address, 0)).expect("a free port in a namespace of ours");
        net::port(&probe)
    })
}

/// A server program; ended when dropped.
pub struct Server {
    child: Child,
    signal: i32,
}

impl Server {
    /// Starts it and waits until it listens. `signal` makes it end soon.
    pub fn start(command: &mut Command, namespace: &Namespace, port: u16, signal: i32) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let mut server = Self { child, signal };
        let began = Instant::now();
        while !listens(namespace, port) {
            let ended = server.child.try_wait().expect("a child of ours");
            assert_eq!(ended, None, "{command:?} ended at once");
            assert!(began.elapsed() < PATIENCE, "{command:?} does not listen on port {port}");
            thread::sleep(PAUSE);
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        // SAFETY: kill touches no memory; the child was not waited for, so the pid is its own.
        unsafe { libc::kill(pid, self.signal) };
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process listens on a port over IPv4 in a namespace.
fn listens(namespace: &Namespace, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = namespace.within(|| fs::read_to_string("/proc/thread-self/net/tcp"));
    let table = table.expect("reading /proc/thread-self/net/tcp");
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().and_then(|local| local.split_once(':'));
        let is_port = local.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
        is_port && words.nth(1) == Some(LISTEN)
    })
}

/// nginx with an access log that adds up.
pub struct Nginx {
    /// Where it listens.
    pub port: u16,
    server: Server,
    directory: TempDir,
}

/// nginx's own counts.
#[derive(Debug, Default)]
pub struct AccessLog {
    /// Requests it answered.
    pub answered: u64,
    /// Bytes of the responses, headers included (`$bytes_sent`).
    pub sent: u64,
    /// Bytes of the requests, headers included (`$request_length`).
    pub received: u64,
}

impl Nginx {
    /// Starts it with two workers; it answers everything with `body` bytes.
    pub fn start(namespace: &Namespace, body: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (root, port) = (directory.path().display(), free_port_in(namespace));
        let body = "x".repeat(body);
        let address = namespace.v4;
        let configuration = format!(
            "daemon off; worker_processes 2; pid {root}/pid; error_log {root}/error;\n\
             events {{ worker_connections 512; }}\n\
             http {{ log_format sums '$status $bytes_sent $request_length';\n\
             access_log {root}/access sums; keepalive_requests 10000000;\n\
             client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};\n\
             uwsgi_temp_path {root}; scgi_temp_path {root};\n\
             server {{ listen {address}:{port} backlog=4096; location / {{ return 200 \"{body}\"; }} }} }}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration).expect("writing a configuration");
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(directory.path().join("error"));
        let server = Server::start(&mut command, namespace, port, libc::SIGQUIT);
        Self { port, server, directory }
    }

    /// Ends it, so that its log is complete, and adds the log up.
    pub fn stop(self) -> AccessLog {
        let Self { port: _, server, directory } = self;
        drop(server);
        let text = fs::read_to_string(directory.path().join("access")).expect("an access log");
        let mut log = AccessLog::default();
        for line in text.lines() {
            let mut words = line.split(' ').map(|word| word.parse::<u64>().expect("a number"));
            let [Some(status), Some(sent), Some(received)] =
                [words.next(), words.next(), words.next()]
            else {
                panic!("not a line of ours: {line}");
            };
            // 499 and 400: the client closed before it got, or had sent, anything.
            log.answered += u64::from(status == 200 && sent > 0);
            log.sent += sent;
            log.received += received;
        }
        log
    }
}

/// redis-server without persistence.
pub struct Redis {
    /// Where it listens.
    pub port: u16,
    address: Ipv4Addr,
    _server: Server,
}

/// redis-server's own counts.
#[derive(Debug)]
pub struct RedisStats {
    /// `total_connections_received`, without the query's own.
    pub connections: u64,
    /// `total_net_input_bytes`, without the question.
    pub received: u64,
    /// `total_net_output_bytes`, without the response to the query.
    pub sent: u64,
}

impl Redis {
    /// Starts it.
    pub fn start(namespace: &Namespace) -> Self {
        let (address, port) = (namespace.v4, free_port_in(namespace));
        let mut command = namespace.command("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
        command.args(["--bind", &address.to_string(), "--port", &port.to_string()]);
        let server = Server::start(&mut command, namespace, port, libc::SIGTERM);
        Self { port, address, _server: server }
    }

    /// Queries it, over a separate connection from `client`.
    pub fn stats(&self, client: &Namespace) -> RedisStats {
        use std::io::Write as _;
        let question = b"*2\r\n$4\r\nINFO\r\n$5\r\nstats\r\n";
        let mut stream = client.connect((self.address, self.port)).expect("connecting to redis");
        net::patient(&stream);
        stream.write_all(question).expect("asking redis");
        let answer = bulk_string(&mut stream);
        let value = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<u64>().ok()).expect("a known statistic")
        };
        RedisStats {
            connections: value("total_connections_received") - 1,
            received: value("total_net_input_bytes") - question.len() as u64,
            sent: value("total_net_output_bytes"),
        }
    }
}

/// Reads `$length\r\n…\r\n`.
fn bulk_string(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer of redis");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let length: usize = head.trim().trim_start_matches('$').parse().expect("a length");
    let mut body = vec![0; length + 2];
    stream.read_exact(&mut body).expect("an answer of redis");
    String::from_utf8(body).expect("text")
}

/// A load tool that ran to its end.
pub struct Load {
    /// Its stdout.
    pub output: String,
}

impl Load {
    /// Runs it; panics with its output if it fails.
    pub fn run(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} failed\n{said}\n{complained}");
        Self { output: said }
    }

    /// wrk for a second; `headers` go with every request. Its script makes it report exact sums.
    pub fn wrk(client: &Namespace, server: SocketAddr, connections: u32, headers: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let script = directory.path().join("sums.lua");
        fs::write(
            &script,
            "done = function(summary, latency, requests)\n\
             print('sum requests ' .. summary.requests)\nprint('sum bytes ' .. summary.bytes)\n\
             print('sum errors ' .. summary.errors.connect + summary.errors.status)\n\
             print('sum mean_us ' .. math.floor(latency.mean))\nend\n",
        )
        .expect("writing a script");
        let mut command = client.command("wrk");
        let mut url = String::from("http://");
        let _ = write!(url, "{server}/");
        command.args(["-t2", "-d1s", &format!("-c{connections}")]).arg("-s").arg(&script);
        for header in headers {
            command.args(["-H", header]);
        }
        Self::run(command.arg(url))
    }

    /// The number in the line that begins with `name`, up to the next word.
    pub fn number(&self, name: &str) -> u64 {
        let rest = self.output.lines().find_map(|line| line.trim().strip_prefix(name));
        let word = rest.and_then(|rest| rest.split([' ', '/']).find(|word| !word.is_empty()));
        word.and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no number after {name}:\n{}", self.output))
    }
}

/// A server of TLS in the server's namespace, on this port; the directory is for its key.
pub fn tls_server(pair: &Pair, directory: &Path, port: u16) -> Server {
    let (key, certificate) = (directory.join("key"), directory.join("certificate"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=a"]);
    Load::run(command.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
    let mut command = pair.server.command("openssl");
    command.args(["s_server", "-quiet", "-www", "-accept", &format!("{}:{port}", pair.server.v4)]);
    command.arg("-key").arg(&key).arg("-cert").arg(&certificate);
    Server::start(&mut command, &pair.server, port, libc::SIGKILL)
}

/// A connection of TLS from the client's namespace.
pub fn tls_client(pair: &Pair, port: u16, version: &str) {
    let mut command = pair.client.command("openssl");
    command.args(["s_client", version, "-connect", &format!("{}:{port}", pair.server.v4)]);
    let output = command.stdin(Stdio::null()).output().expect("starting openssl");
    assert!(output.status.success(), "{version}: {output:?}");
}
