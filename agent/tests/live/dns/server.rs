//! DNS servers for tests: dnsmasq, and one with scripted answers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// dnsmasq in a namespace; it ends when dropped.
pub(crate) struct Dnsmasq {
    child: Child,
    directory: tempfile::TempDir,
}

impl Dnsmasq {
    /// Starts it with these records and waits for its first answer.
    pub(crate) fn start(namespace: &Namespace, records: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("resolv.conf");
        fs::write(&file, format!("nameserver {}\n", namespace.v4)).expect("writing a file");
        let mut command = namespace.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--bind-interfaces", "--user=root", "--pid-file=", "--local-ttl=5"]);
        command.arg(format!("--listen-address={}", namespace.v4)).args(records);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("starting dnsmasq");
        let dnsmasq = Self { child, directory };
        let began = Instant::now();
        let answers = || {
            let socket = UdpSocket::bind((namespace.v4, 0)).expect("a UDP socket");
            socket.set_read_timeout(Some(PAUSE)).expect("a timeout");
            let _ = socket.send_to(&query("unknown.portolan.test", A), (namespace.v4, 53));
            socket.recv(&mut [0; 512]).is_ok()
        };
        while !namespace.within(answers) {
            assert!(began.elapsed() < PATIENCE, "dnsmasq does not answer");
        }
        dnsmasq
    }

    /// Requests a page of `host` with curl, which resolves it by this server.
    pub(super) fn curl(&self, namespace: &Namespace, host: &str, port: u16) {
        let said =
            self.run(namespace, &format!("exec curl -s --max-time 10 http://{host}:{port}/"));
        assert_eq!(said, "ok", "{host}");
    }

    /// Runs a script whose programs resolve names by this server; returns what it prints.
    pub(crate) fn run(&self, namespace: &Namespace, script: &str) -> String {
        let file: PathBuf = self.directory.path().join("resolv.conf");
        let script = format!("mount --bind {} /etc/resolv.conf && {script}", file.display());
        let mut command = namespace.command("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null());
        let output = command.output().expect("starting unshare");
        let (said, errors) = (output.stdout, output.stderr);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&errors));
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers this many requests with `ok`.
pub(super) fn serve_http(listener: &TcpListener, requests: usize) {
    for _ in 0..requests {
        let mut stream = crate::net::accept(listener);
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut some = [0; 1024];
            let read = stream.read(&mut some).expect("a request");
            assert!(read > 0, "curl closed: {}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&some[..read]);
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        stream.write_all(answer.as_bytes()).expect("answering");
    }
}

/// A question.
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: u16,
    id: [u8; 2],
}

/// A record to answer with.
pub(super) struct Record {
    owner: String,
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

/// A message, right or wrong.
pub(super) struct Message(pub(super) Vec<u8>);

/// A server on port 53 of a namespace that answers by a closure; it ends when dropped.
pub(super) struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A question for a name in wire format.
pub(super) fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x50, 0x54, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(wire(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

// === impl Question ===

impl Question {
    pub(super) fn new(name: &str, kind: u16) -> Self {
        Self { name: name.to_owned(), kind, id: [0x50, 0x54] }
    }

    fn parse(bytes: &[u8]) -> Self {
        let (mut labels, mut at) = (Vec::new(), 12);
        while bytes[at] != 0 {
            let label = &bytes[at + 1..=at + usize::from(bytes[at])];
            labels.push(String::from_utf8(label.to_vec()).expect("our own names"));
            at += 1 + label.len();
        }
        let kind = u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]);
        Self { name: labels.join("."), kind, id: [bytes[0], bytes[1]] }
    }
}

// === impl Record ===

impl Record {
    pub(super) fn a(owner: &str, ttl: u32, address: &str) -> Self {
        let address: std::net::Ipv4Addr = address.parse().expect("an address");
        Self { owner: owner.to_owned(), kind: A, ttl, data: address.octets().into() }
    }

    pub(super) fn aaaa(owner: &str, ttl: u32, address: &str) -> Self {
        let address: Ipv6Addr = address.parse().expect("an address");
        Self { owner: owner.to_owned(), kind: AAAA, ttl, data: address.octets().into() }
    }
}

// === impl Message ===

impl Message {
    pub(super) fn answer(question: &Question, records: &[Record]) -> Self {
        let mut bytes = question.id.to_vec();
        bytes.extend([0x81, 0x80, 0, 1]);
        bytes.extend((records.len() as u16).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&query(&question.name, question.kind)[12..]);
        for Record { owner, kind, ttl, data } in records {
            // Most owner names are the queried name.
            bytes.extend(if *owner == question.name { vec![0xc0, 12] } else { wire(owner) });
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        Self(bytes)
    }

    /// Without its last bytes.
    pub(super) fn cut(mut self, bytes: usize) -> Self {
        self.0.truncate(self.0.len() - bytes);
        self
    }

    /// Sets the TC bit.
    pub(super) fn truncated(mut self) -> Self {
        self.0[2] |= 2;
        self
    }
}

// === impl Responder ===

impl Responder {
    pub(super) fn start(
        namespace: &Namespace,
        answers: impl Fn(&Question) -> Vec<Message> + Send + 'static,
    ) -> Self {
        let address = (IpAddr::from(namespace.v4), 53);
        let socket = namespace.within(|| UdpSocket::bind(address).expect("port 53"));
        socket.set_read_timeout(Some(PAUSE)).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !stopping.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                for Message(answer) in answers(&Question::parse(&bytes[..length])) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
