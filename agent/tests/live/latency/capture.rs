//! A packet capture of one end of a pair, and the latencies in it by the agent's definition.
//!
//! tcpdump writes, this file reads: pcap with microseconds, Ethernet, IPv4, TCP. The definitions
//! of docs/metrics.md, applied to packets:
//! * connect, at the client: SYN out to SYN-ACK in;
//! * request, at the client: the last data out to the first data in after it;
//! * request, at the server: the first data in to the first data out after it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::facts::patience;
use crate::namespace::{Namespace, Pair};

/// A port without a listener that no test uses: discard.
const MARK: u16 = 9;
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A running tcpdump.
pub struct Capture {
    child: Child,
    said: BufReader<ChildStderr>,
    directory: TempDir,
}

/// A TCP segment as the capture has it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    at_us: u64,
    source: u16,
    destination: u16,
    syn: bool,
    ack: bool,
    payload: usize,
}

/// Latencies of the connections to one port, in microseconds.
#[derive(Debug, Default)]
pub struct Latencies {
    /// One for every connection.
    pub connects: Vec<u64>,
    /// One for every exchange.
    pub requests: Vec<u64>,
}

/// The definition of a request to use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The capture was taken at the client.
    Client,
    /// The capture was taken at the server.
    Server,
}

impl Capture {
    /// Starts it and waits until it captures.
    pub fn start(namespace: &Namespace) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = namespace.command("tcpdump");
        command.args([
            "-i",
            "veth0",
            "-s",
            "128",
            "-B",
            "16384",
            "-U",
            "--immediate-mode",
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(directory.path().join("packets")).arg("tcp");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starting tcpdump");
        let mut said = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(said.read_line(&mut line).expect("text"), 0, "tcpdump ended at once");
        }
        Self { child, said, directory }
    }

    /// Stops it once it has seen a connection attempt to [`MARK`], made after all traffic of the
    /// test, and returns everything it saw.
    pub fn stop(mut self) -> Vec<Segment> {
        let began = Instant::now();
        let file = self.directory.path().join("packets");
        let mut seen = Vec::new();
        while !seen.iter().any(|segment: &Segment| segment.destination == MARK) {
            assert!(began.elapsed() < patience(PATIENCE), "the capture does not see the mark");
            thread::sleep(PAUSE);
            seen = segments(&fs::read(&file).expect("a capture"));
        }
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        // SAFETY: kill touches no memory; the child was not waited for, so the pid is its own.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("text");
        self.child.wait().expect("waiting for tcpdump");
        assert!(said.contains("\n0 packets dropped by kernel"), "it missed some:\n{said}");
        seen
    }
}

/// Ends captures at both ends of a pair; see [`Capture::stop`].
pub fn stop_all<const N: usize>(pair: &Pair, captures: [Capture; N]) -> [Vec<Segment>; N] {
    let refused = pair.client.connect((pair.server.v4, MARK));
    assert!(refused.is_err(), "there is no listener");
    captures.map(Capture::stop)
}

/// The latencies of connections to `port`.
pub fn latencies(segments: &[Segment], port: u16, end: End) -> Latencies {
    let mut latencies = Latencies::default();
    let mut connections: BTreeMap<u16, Vec<Segment>> = BTreeMap::new();
    for segment in segments {
        if segment.destination == port {
            connections.entry(segment.source).or_default().push(*segment);
        } else if segment.source == port {
            connections.entry(segment.destination).or_default().push(*segment);
        }
    }
    for connection in connections.values() {
        let (mut asked, mut began) = (None, None);
        for segment in connection {
            let from_client = segment.destination == port;
            if segment.syn && from_client {
                began = Some(segment.at_us);
            } else if segment.syn && segment.ack {
                let began = began.take().expect("a SYN before the SYN-ACK");
                latencies.connects.push(segment.at_us - began);
            } else if segment.payload > 0 && from_client {
                // The client counts from its last segment, the server from the first it received.
                if end == End::Client || asked.is_none() {
                    asked = Some(segment.at_us);
                }
            } else if segment.payload > 0
                && let Some(asked) = asked.take()
            {
                latencies.requests.push(segment.at_us - asked);
            }
        }
    }
    latencies
}

/// Reads a capture in this machine's byte order.
fn segments(pcap: &[u8]) -> Vec<Segment> {
    const MICROSECONDS: u32 = 0xa1b2_c3d4;
    const ETHERNET: u32 = 1;
    if pcap.len() < 24 {
        return Vec::new();
    }
    let word = |at: usize| u32::from_ne_bytes(pcap[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((word(0), word(20)), (MICROSECONDS, ETHERNET), "the kind of capture asked for");
    let (mut at, mut segments) = (24, Vec::new());
    // The file may end within a packet that is being written.
    while at + 16 <= pcap.len() && at + 16 + word(at + 8) as usize <= pcap.len() {
        let at_us = u64::from(word(at)) * 1_000_000 + u64::from(word(at + 4));
        let length = word(at + 8) as usize;
        segments.extend(segment(at_us, &pcap[at + 16..at + 16 + length]));
        at += 16 + length;
    }
    segments
}

/// A TCP segment over IPv4.
fn segment(at_us: u64, frame: &[u8]) -> Option<Segment> {
    const IPV4: [u8; 2] = [0x08, 0x00];
    let half = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    if frame[12..14] != IPV4 {
        return None;
    }
    let ip = &frame[14..];
    let ip_header = usize::from(ip[0] & 15) * 4;
    let tcp = &ip[ip_header..];
    let tcp_header = usize::from(tcp[12] >> 4) * 4;
    Some(Segment {
        at_us,
        source: half(tcp, 0),
        destination: half(tcp, 2),
        syn: tcp[13] & 0x02 != 0,
        ack: tcp[13] & 0x10 != 0,
        payload: usize::from(half(ip, 2)) - ip_header - tcp_header,
    })
}
