//! Responses: however a server sends them, and however fast the next request follows.

use std::fs::File;
use std::io::{self, IoSlice, Seek as _, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::agent::Agent;
use crate::facts;
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::scrape::Scrape;

const REQUEST: usize = 64;
const RESPONSE: usize = 1024;

/// The setting that lets responses be looked at.
const ON: (&str, &str) = ("responses", "true");

/// A way to send a response.
type Send = fn(&mut TcpStream, &[u8], &File) -> io::Result<()>;

const WAYS: &[(&str, Send)] = &[
    ("write", |stream, body, _| stream.write_all(body)),
    ("writev", |stream, body, _| {
        let (head, tail) = body.split_at(100);
        whole(stream.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)])?)
    }),
    ("send", |stream, body, _| whole(SockRef::from(&*stream).send(body)?)),
    ("sendmsg", |stream, body, _| {
        whole(SockRef::from(&*stream).send_vectored(&[IoSlice::new(body)])?)
    }),
    ("sendfile", |stream, _, file| whole(SockRef::from(&*stream).sendfile(file, 0, None)?)),
    ("copy", |stream, _, file| {
        let mut file = file.try_clone()?;
        file.rewind()?;
        whole(io::copy(&mut file, stream)? as usize)
    }),
];

fn whole(sent: usize) -> io::Result<()> {
    if sent == RESPONSE { Ok(()) } else { Err(io::Error::other("sent in parts")) }
}

#[test]
fn a_response_counts_however_it_is_sent() {
    needs_kernel!();
    const EXCHANGES: u64 = 5;
    let pair = Pair::new();
    let agent = Agent::start();
    let body = vec![b'x'; RESPONSE];
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&body).unwrap();
    assert!(file.as_raw_fd() >= 0);
    for (name, send) in WAYS {
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let mut client = pair.client.connect((pair.server.v4, port)).unwrap();
        let mut server = net::accept(&listener);
        for _ in 0..EXCHANGES {
            client.write_all(&[b'q'; REQUEST]).unwrap();
            net::read_exactly(&mut server, REQUEST).unwrap();
            thread::sleep(Duration::from_millis(5));
            send(&mut server, &body, &file).unwrap_or_else(|error| panic!("{name}: {error}"));
            net::read_exactly(&mut client, RESPONSE).unwrap();
        }
        let served = |now: &Scrape| {
            now.edge(&pair.client.service, &pair.server.service, port, "server").requests()
        };
        // Before 6.5 sendfile uses a path without a hook: the exchange is counted at the next
        // request, or at the end. The standard library may copy by sendfile.
        let unseen = matches!(*name, "sendfile" | "copy") && facts::kernel_is_before(6, 5);
        if unseen {
            agent.eventually((*name, true), |now| (*name, served(now).count >= EXCHANGES - 1));
            drop(client);
            drop(server);
        }
        let now = agent.eventually((*name, EXCHANGES), |now| (*name, served(now).count));
        assert!(served(&now).mean() >= 0.005, "{name}: {:?}", served(&now));
    }
    agent.stop();
}

/// The beginning of a response, padded to [`RESPONSE`] bytes; a file for those that send one.
#[test]
fn the_status_is_read_however_a_response_is_sent() {
    needs_kernel!();
    const EXCHANGES: u64 = 3;
    let pair = Pair::new();
    let agent = Agent::with(&[ON]);
    let mut body = b"HTTP/1.1 503 Service Unavailable\r\n".to_vec();
    body.resize(RESPONSE, b'x');
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&body).unwrap();
    let mut expected = 0;
    for (name, send) in WAYS.iter().filter(|(name, _)| *name != "copy") {
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        for _ in 0..EXCHANGES {
            client.write_all(&[b'q'; REQUEST]).unwrap();
            net::read_exactly(&mut server, REQUEST).unwrap();
            send(&mut server, &body, &file).unwrap_or_else(|error| panic!("{name}: {error}"));
            net::read_exactly(&mut client, RESPONSE).unwrap();
        }
        let port = port.to_string();
        let status = [("port", port.as_str()), ("protocol", "http"), ("status", "5xx")];
        if *name == "sendfile" {
            expected += EXCHANGES;
        } else {
            agent.eventually((*name, EXCHANGES), |now| {
                (*name, now.sum("portolan_responses_total", &status))
            });
        }
    }
    if !facts::kernel_is_before(6, 5) {
        let lost = [("class", "response"), ("reason", "no_buffer")];
        agent.eventually(expected, |now| now.sum("portolan_events_lost_total", &lost));
    }
    agent.ledger_adds_up();
    agent.stop();
}

#[test]
fn without_a_field_or_by_choice_no_response_is_looked_at() {
    needs_kernel!();
    for (settings, is_said) in [
        (&[ON, ("disable_fields", "syscall_number")][..], true),
        (&[ON, ("disable_hooks", "part:responses")], true),
        (&[], false),
    ] {
        let pair = Pair::new();
        let agent = Agent::with(settings);
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        client.write_all(&[b'q'; REQUEST]).unwrap();
        net::read_exactly(&mut server, REQUEST).unwrap();
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let now = agent.eventually((settings, 1), |now| {
            let edge = now.edge(&pair.client.service, &pair.server.service, port, "server");
            (settings, edge.requests().count)
        });
        assert!(!now.has_metric("portolan_responses_total"), "{settings:?}");
        assert!(!now.has_metric("portolan_connection_security_total"), "{settings:?}");
        let status = agent.json("/api/v1/status").to_string();
        assert_eq!(status.contains("protocols of connections"), is_said, "{settings:?}: {status}");
        agent.stop();
    }
}

#[test]
fn thousands_of_quick_turns_are_all_counted_on_both_sides() {
    needs_kernel!();
    const EXCHANGES: u64 = 5000;
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    let work = thread::spawn(move || net::answer(&mut server, REQUEST, RESPONSE, Duration::ZERO));
    for _ in 0..EXCHANGES {
        net::ask(&mut client, REQUEST, RESPONSE).unwrap();
    }
    let now = agent.eventually((EXCHANGES, EXCHANGES), |now| {
        let edge = |role| now.edge(&pair.client.service, &pair.server.service, port, role);
        (edge("client").requests().count, edge("server").requests().count)
    });
    let edge = now.edge(&pair.client.service, &pair.server.service, port, "server");
    assert_eq!(edge.sent_bytes(), EXCHANGES * RESPONSE as u64);
    assert_eq!(edge.received_bytes(), EXCHANGES * REQUEST as u64);
    drop(client);
    assert_eq!(work.join().unwrap().unwrap(), EXCHANGES);
    agent.stop();
}

#[test]
fn a_response_in_many_sends_is_one() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    server.set_nodelay(true).unwrap();
    for _ in 0..10 {
        client.write_all(&[b'q'; REQUEST]).unwrap();
        net::read_exactly(&mut server, REQUEST).unwrap();
        for _ in 0..16 {
            server.write_all(&[b'x'; RESPONSE / 16]).unwrap();
        }
        net::read_exactly(&mut client, RESPONSE).unwrap();
    }
    agent.eventually((10, 10), |now| {
        let edge = |role| now.edge(&pair.client.service, &pair.server.service, port, role);
        (edge("client").requests().count, edge("server").requests().count)
    });
    agent.stop();
}
