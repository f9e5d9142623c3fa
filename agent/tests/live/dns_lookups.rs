//! DNS lookups over UDP: each is counted once, as it ended, on the edge of who asked and the server that
//! was asked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::dns::Resolver;
use crate::exactness::missing;
use crate::facts::{kernel_is_before, patience};
use crate::namespace::{Namespace, Pair};
use crate::scrape::Scrape;

const A: u16 = 1;
const AAAA: u16 = 28;
const TXT: u16 = 16;
const CAA: u16 = 257;

/// How long a socket waits for what comes.
const WITHIN: Duration = Duration::from_secs(5);
/// How long the server takes for names that begin with `slow`.
const SLOW: Duration = Duration::from_millis(40);
/// A program that closes its socket after this has waited long enough.
const GIVEN_UP: Duration = Duration::from_millis(1100);

/// Lookups by type and result.
type Lookups = BTreeMap<(String, String), u64>;

/// A server that responds as the first label of a name says.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(namespace: &Namespace, address: IpAddr) -> Self {
        let bound = namespace.within(|| UdpSocket::bind((address, 53)));
        let socket = bound.expect("port 53");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let address = socket.local_addr().expect("it is bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while !stopping.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                let message = bytes[..length].to_vec();
                let name = &message[13..13 + usize::from(message[12])];
                let (code, flip, times) = match name {
                    b"missing" => (3, 0, 1),
                    b"broken" => (2, 0, 1),
                    b"refused" => (5, 0, 1),
                    b"unknown" => (4, 0, 1),
                    b"silent" => continue,
                    b"wrong" => (0, 1, 1),
                    b"twice" => (0, 0, 2),
                    _ => (0, 0, 1),
                };
                if name == b"slow" {
                    std::thread::sleep(SLOW);
                }
                let mut response = message;
                response[1] ^= flip;
                response[2] = 0x81;
                response[3] = 0x80 | code;
                for _ in 0..times {
                    let _ = socket.send_to(&response, from);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A query with this number, with a record as resolvers add it that take large messages (OPT).
fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// A number that no other query of this test has.
fn number() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0x1000);
    NEXT.fetch_add(2, Ordering::Relaxed) as u16
}

fn socket(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a UDP socket");
    socket.set_read_timeout(Some(patience(WITHIN))).expect("a timeout");
    socket
}

fn connected(to: SocketAddr) -> UdpSocket {
    let socket = socket(to);
    socket.connect(to).expect("connecting a UDP socket");
    socket
}

fn receive(socket: &UdpSocket) {
    socket.recv(&mut [0; 512]).expect("a response");
}

/// Sends messages in one system call, each in parts.
fn send_many(socket: &UdpSocket, messages: &[Vec<&[u8]>]) {
    let mut parts: Vec<Vec<libc::iovec>> = messages
        .iter()
        .map(|message| {
            let part = |part: &&[u8]| libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            };
            message.iter().map(part).collect()
        })
        .collect();
    let mut all: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|parts| {
            // SAFETY: zeros are a valid message.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len() as _;
            message
        })
        .collect();
    let (fd, count) = (socket.as_raw_fd(), all.len() as libc::c_uint);
    // SAFETY: the messages and what they point to outlive the call.
    let sent = unsafe { libc::sendmmsg(fd, all.as_mut_ptr(), count, 0) };
    assert_eq!(sent, count as i32, "{}", std::io::Error::last_os_error());
}

/// Sends one message in parts.
fn send_parts(socket: &UdpSocket, parts: &[&[u8]]) {
    let slices: Vec<_> = parts.iter().map(|part| std::io::IoSlice::new(part)).collect();
    let message = socket2::MsgHdr::new().with_buffers(&slices);
    let sent = socket2::SockRef::from(socket).sendmsg(&message, 0).expect("sending");
    assert_eq!(sent, parts.iter().map(|part| part.len()).sum::<usize>());
}

/// What the client asked, as it counts itself.
#[derive(Default)]
struct Asked {
    lookups: Lookups,
    /// Those without a result.
    closed: u64,
    no_storage: u64,
}

impl Asked {
    fn count(&mut self, kind: &str, result: &str, times: u64) {
        *self.lookups.entry((kind.to_owned(), result.to_owned())).or_default() += times;
    }
}

/// Asks from sockets of both kinds, in every way in which programs send.
fn ask(server: SocketAddr, asked: &mut Asked) {
    // As musl and many resolvers do.
    let one = socket(server);
    for (name, kind, kind_name, result, times) in [
        ("there.test", A, "A", "NOERROR", 7),
        ("missing.test", AAAA, "AAAA", "NXDOMAIN", 3),
        ("broken.a.b.c.d.e.test", A, "A", "SERVFAIL", 2),
        ("refused.test", TXT, "TXT", "REFUSED", 1),
        ("unknown.test", CAA, "other", "other", 1),
    ] {
        for _ in 0..times {
            one.send_to(&query(number(), name, kind), server).expect("asking");
            receive(&one);
        }
        asked.count(kind_name, result, times);
    }

    // As glibc does: connected, and both families in one system call.
    let two = connected(server);
    for round in 0..4 {
        let (first, second) =
            (query(number(), "there.test", A), query(number(), "missing.test", AAAA));
        if round == 3 {
            // The part behind the question has a buffer of its own.
            let (question, rest) = first.split_at(first.len() - 11);
            send_many(&two, &[vec![question, rest], vec![&second]]);
        } else {
            send_many(&two, &[vec![&first], vec![&second]]);
        }
        receive(&two);
        receive(&two);
    }
    asked.count("A", "NOERROR", 4);
    asked.count("AAAA", "NXDOMAIN", 4);
    let message = query(number(), "there.test", 33);
    two.send(&message).expect("asking");
    receive(&two);
    asked.count("SRV", "NOERROR", 1);
    let message = query(number(), "there.test", 12);
    send_parts(&two, &[&message[..20 + 8], &message[20 + 8..]]);
    receive(&two);
    asked.count("PTR", "NOERROR", 1);

    // A response that comes twice answers once, and one with another number nothing.
    two.send(&query(number(), "twice.test", A)).expect("asking");
    receive(&two);
    receive(&two);
    asked.count("A", "NOERROR", 1);
    two.send(&query(number(), "slow.test", A)).expect("asking");
    receive(&two);
    asked.count("A", "NOERROR", 1);
    two.send(&query(number(), "wrong.test", A)).expect("asking");
    receive(&two);
    asked.closed += 1;

    // No lookups: a response that a client sends, and an update.
    for flags in [0x80, 0x28] {
        let mut message = query(number(), "silent.test", A);
        message[2] = flags;
        two.send(&message).expect("sending");
    }

    // More than a socket has room for.
    let many = connected(server);
    for _ in 0..9 {
        many.send(&query(number(), "silent.test", A)).expect("asking");
    }
    asked.closed += 8;
    asked.no_storage += 1;
}

/// Asks a server that does not respond: twice with one number, and once for long.
fn wait_in_vain(server: SocketAddr, asked: &mut Asked) {
    let again = connected(server);
    let message = query(number(), "silent.test", AAAA);
    again.send(&message).expect("asking");
    again.send(&message).expect("asking again");
    asked.count("AAAA", "timeout", 1);
    let unconnected = socket(server);
    unconnected.send_to(&query(number(), "silent.test", TXT), server).expect("asking");
    std::thread::sleep(GIVEN_UP);
    drop((again, unconnected));
    asked.count("AAAA", "timeout", 1);
    asked.count("TXT", "timeout", 1);
}

/// What is exported of a client's lookups at a server.
fn lookups(now: &Scrape, client: &str, server: &str) -> Lookups {
    let labels = [("client", client), ("server", server), ("port", "53"), ("role", "client")];
    let samples = now.matching("portolan_dns_lookups_total", &labels);
    let label = |sample: &crate::scrape::Sample, name| sample.label(name).unwrap().to_owned();
    samples.map(|one| ((label(one, "qtype"), label(one, "rcode")), one.value as u64)).collect()
}

fn lost(now: &Scrape, reason: &str) -> u64 {
    now.sum("portolan_events_lost_total", &[("class", "dns_lookup"), ("reason", reason)])
}

/// Whether this kernel sees what datagrams are sent; says so if not.
fn sees_datagrams() -> bool {
    let sees = !kernel_is_before(6, 3);
    if !sees {
        println!("SKIPPED: before Linux 6.3 sends of datagrams are not seen");
    }
    sees
}

/// A response that its program reads at once, on another processor, may be overtaken: it is counted
/// as lost then.
const MOST_OVERTAKEN: u64 = 4;

/// Whether nothing else was found than expected, and all of it but so many.
fn is_all_but(found: &Lookups, expected: &Lookups, lost: u64) -> bool {
    let expected_of = |of: &(String, String)| expected.get(of).copied().unwrap_or(0);
    let sum = |all: &Lookups| all.values().sum::<u64>();
    found.iter().all(|(of, count)| *count <= expected_of(of)) && sum(found) + lost >= sum(expected)
}

#[test]
fn lookups_are_counted_by_type_and_result() {
    needs_kernel!();
    if !sees_datagrams() {
        return;
    }
    let pair = Pair::new();
    let servers =
        [pair.server.v4.into(), pair.server.v6.into()].map(|at| Server::start(&pair.server, at));
    let agent = Agent::start();
    let (closed, no_storage) = {
        let before = agent.scrape();
        (lost(&before, "closed"), lost(&before, "no_storage"))
    };
    let asked = servers.each_ref().map(|server| {
        let mut asked = Asked::default();
        pair.client.act(|| ask(server.address, &mut asked));
        asked
    });
    let client = &pair.client.service;
    for (server, asked) in servers.iter().zip(&asked) {
        let at = server.address.ip().to_string();
        let now = agent.eventually(Ok(()), |now| {
            let found = lookups(now, client, &at);
            let few = lost(now, "overtaken").min(MOST_OVERTAKEN);
            if is_all_but(&found, &asked.lookups, few) { Ok(()) } else { Err(found) }
        });
        let labels = [("client", client.as_str()), ("server", &at), ("role", "client")];
        let took = now.histogram("portolan_dns_lookup_duration_seconds", &labels);
        let results: u64 = lookups(&now, client, &at).values().sum();
        // A response that came before its send had returned has no duration.
        assert!(took.count <= results && took.count + 3 >= results, "{} {results}", took.count);
        assert!(
            took.sum >= SLOW.as_secs_f64() && took.at_most(0.025) + 1 == took.count,
            "{took:?}"
        );
        // It is no connection.
        assert!(!now.has("portolan_tcp_connects_total", &labels), "{at}");
        assert!(!now.has("portolan_tcp_active_connections", &labels), "{at}");
    }
    let expected: (u64, u64) = asked
        .iter()
        .fold((closed, no_storage), |sum, one| (sum.0 + one.closed, sum.1 + one.no_storage));
    agent.eventually(expected, |now| (lost(now, "closed"), lost(now, "no_storage")));
    agent.ledger_adds_up();

    let edges = agent.json("/api/v1/edges?window=start");
    let mut edges = edges["edges"].as_array().expect("a list").iter();
    let of = |edge: &&serde_json::Value| {
        edge["client"] == client.as_str() && edge["server"] == pair.server.v4.to_string()
    };
    let edge = edges.find(of).expect("the edge");
    assert_eq!((&edge["dns"]["A"]["SERVFAIL"], &edge["opened"]), (&2.into(), &0.into()), "{edge}");
    assert!(edge["dns_lookup"]["count"].as_u64() > Some(10), "{edge}");
    let map = agent.json("/api/v1/map");
    assert!(!map.to_string().contains(&format!("\"{client}\"")), "no connection was made: {map}");
    agent.stop();
}

fn a_server_that_does_not_respond(of: impl Fn(&Pair) -> IpAddr) {
    let pair = Pair::new();
    let server = Server::start(&pair.server, of(&pair));
    let agent = Agent::start();
    let mut asked = Asked::default();
    let long = Instant::now();
    let patient = pair.client.act(|| {
        let patient = connected(server.address);
        patient.send(&query(number(), "silent.test", CAA)).expect("asking");
        wait_in_vain(server.address, &mut asked);
        patient
    });
    let at = server.address.ip().to_string();
    agent.eventually(asked.lookups.clone(), |now| lookups(now, &pair.client.service, &at));
    // Its next query finds that five seconds have passed.
    std::thread::sleep(Duration::from_millis(5100).saturating_sub(long.elapsed()));
    pair.client.act(|| {
        patient.send(&query(number(), "there.test", A)).expect("asking");
        receive(&patient);
    });
    asked.count("other", "timeout", 1);
    asked.count("A", "NOERROR", 1);
    agent.eventually(asked.lookups.clone(), |now| lookups(now, &pair.client.service, &at));
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn sock_release_shows_lookups_without_a_response() {
    needs_kernel!();
    if sees_datagrams() {
        a_server_that_does_not_respond(|pair| pair.server.v4.into());
        a_server_that_does_not_respond(|pair| pair.server.v6.into());
    }
}

/// The server is on the same host: where the kernel preempts a send, a response may come before that has
/// returned. Each counts once nevertheless.
#[test]
fn thousands_of_quick_lookups_are_all_counted() {
    needs_kernel!();
    if !sees_datagrams() {
        return;
    }
    const LOOKUPS: u64 = 3000;
    let pair = Pair::new();
    let server = Server::start(&pair.server, pair.server.v4.into());
    let agent = Agent::start();
    pair.client.act(|| {
        let (one, two) = (connected(server.address), socket(server.address));
        for _ in 0..LOOKUPS / 2 {
            one.send(&query(number(), "there.test", A)).expect("asking");
            receive(&one);
            two.send_to(&query(number(), "there.test", A), server.address).expect("asking");
            receive(&two);
        }
    });
    let (client, at) = (&pair.client.service, server.address.ip().to_string());
    // A response may be overtaken on a busy machine: it is counted as lost then.
    let now = agent.eventually(LOOKUPS, |now| {
        let found = lookups(now, client, &at);
        let answered = found.get(&("A".to_owned(), "NOERROR".to_owned())).copied().unwrap_or(0);
        assert!(found.len() <= 1 && answered <= LOOKUPS, "{found:?}");
        answered + now.sum("portolan_events_lost_total", &[("class", "dns_lookup")])
    });
    let lost = now.sum("portolan_events_lost_total", &[("class", "dns_lookup")]);
    assert!(lost * 500 <= LOOKUPS, "lost {lost} of {LOOKUPS}");
    let labels = [("client", client.as_str()), ("port", "53")];
    let took = now.histogram("portolan_dns_lookup_duration_seconds", &labels);
    println!("{} of {LOOKUPS} have a duration, on average {} s", took.count, took.mean());
    assert!((LOOKUPS / 2..=LOOKUPS).contains(&took.count), "{took:?}");
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn the_lookups_of_glibc_are_those_that_dnsmasq_has_answered() {
    needs_kernel!();
    if let Some(why) = missing(&["dnsmasq", "getent", "unshare"]) {
        println!("SKIPPED: {why}");
        return;
    }
    if !sees_datagrams() {
        return;
    }
    let pair = Pair::new();
    let resolver = Resolver::start(
        &pair.server,
        &["--host-record=db.portolan.test,192.0.2.7", "--local=/portolan.test/"],
    );
    let agent = Agent::start();
    for name in ["db.portolan.test", "db.portolan.test", "gone.portolan.test"] {
        resolver.run(&pair.client, &format!("getent ahosts {name} || true"));
    }
    let count = |kind: &str, result: &str, times| ((kind.to_owned(), result.to_owned()), times);
    // That a name has no address of a family is no error.
    let expected = [
        count("A", "NOERROR", 2),
        count("AAAA", "NOERROR", 2),
        count("A", "NXDOMAIN", 1),
        count("AAAA", "NXDOMAIN", 1),
    ];
    // It also listens for connections, which names it.
    agent.eventually(expected.into(), |now| lookups(now, "getent", "dnsmasq"));
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn without_the_tracepoint_lookups_are_off_and_the_status_says_so() {
    needs_kernel!();
    let agent = Agent::with(&[("disable_hooks", "way:sock_send_length")]);
    let status = agent.json("/api/v1/status");
    let findings = status["findings"].as_array().expect("a list");
    let off = findings
        .iter()
        .find(|off| off["subject"].as_str().unwrap_or_default().contains("DNS lookups"));
    let off = off.expect("a finding").to_string();
    // Some kernels do not permit what would stand for it.
    assert!(off.contains("6.3") || off.contains("sock_send_length: the BPF_PROG_LOAD"), "{off}");
    agent.stop();
}
