//! What two programs do on a connection, and how many requests they leave without an answer.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::holder::Holder;
use crate::net;

/// Longer than a program takes between its last message and the close.
pub(super) const WAIT: Duration = Duration::from_millis(80);
/// Longer than a pause within a request.
const SILENCE: Duration = Duration::from_millis(150);

/// What the two programs do, with the client's end and the server's. `false`: this machine was too
/// busy for what the play is about.
pub(super) type Play = fn(TcpStream, TcpStream) -> bool;

/// A play, and how many requests it leaves without an answer, as client and server see it.
pub(super) const PLAYS: &[(&str, Play, (u64, u64))] = &[
    (
        "the client gives up",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client gives up, and the server has never read the request",
        |client, _server| {
            (&client).write_all(b"request").unwrap();
            thread::sleep(WAIT);
            drop(client);
            true
        },
        (1, 1),
    ),
    (
        "the client gives up with a reset",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            net::close_with_reset(client);
            net::read_to_end(&mut &server).unwrap_err();
            true
        },
        (1, 1),
    ),
    (
        "the server answers a client that gave up",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            (&server).write_all(b"too late").unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client gives up the second request",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(WAIT);
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client gives up with a last message",
        |client, server| {
            exchange(&client, &server);
            asks(&client, &server);
            thread::sleep(SILENCE);
            // As on a network, where no acknowledgement is back when the client closes.
            SockRef::from(&server).set_tcp_quickack(false).unwrap();
            (&client).write_all(b"close_notify").unwrap();
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server closes instead of an answer",
        |client, server| {
            asks(&client, &server);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server closes instead of the second answer",
        |client, server| {
            exchange(&client, &server);
            asks(&client, &server);
            thread::sleep(WAIT);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server closes without having read the request",
        |client, server| {
            exchange(&client, &server);
            (&client).write_all(b"request").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap_err();
            true
        },
        (1, 1),
    ),
    (
        "the server resets",
        |client, server| {
            asks(&client, &server);
            net::close_with_reset(server);
            net::read_to_end(&mut &client).unwrap_err();
            true
        },
        (1, 1),
    ),
    (
        "the client's process is killed while it waits",
        |client, server| {
            asks(&client, &server);
            let holder = Holder::new("holds-a-client", vec![OwnedFd::from(client)]);
            thread::sleep(WAIT);
            drop(holder);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the server's process is killed while it works",
        |client, server| {
            asks(&client, &server);
            drop(Holder::new("holds-a-server", vec![OwnedFd::from(server)]));
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (1, 1),
    ),
    (
        "the client takes its leave",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(SILENCE);
            let at_once = sends_and_closes(client, b"QUIT\r\n");
            net::read_to_end(&mut &server).unwrap();
            at_once
        },
        (0, 0),
    ),
    (
        "the client takes its leave, and the server does not read it",
        |client, server| {
            exchange(&client, &server);
            let at_once = sends_and_closes(client, b"QUIT\r\n");
            drop(server);
            at_once
        },
        (0, 0),
    ),
    (
        "the client takes its leave when the server has closed",
        |client, server| {
            exchange(&client, &server);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            sends_and_closes(client, b"QUIT\r\n")
        },
        (0, 0),
    ),
    (
        "the client takes its leave, and the server is the first to close",
        |client, server| {
            exchange(&client, &server);
            let began = Instant::now();
            (&client).write_all(b"QUIT\r\n").unwrap();
            net::read_exactly(&mut &server, 6).unwrap();
            drop(server);
            let at_once = began.elapsed() < WAIT / 4;
            net::read_to_end(&mut &client).unwrap();
            at_once
        },
        (0, 0),
    ),
    (
        "the client closes an idle connection",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(WAIT);
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the server closes an idle connection",
        |client, server| {
            exchange(&client, &server);
            thread::sleep(WAIT);
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the client closes its half, and is answered",
        |client, server| {
            asks(&client, &server);
            client.shutdown(Shutdown::Write).unwrap();
            net::read_to_end(&mut &server).unwrap();
            thread::sleep(WAIT);
            (&server).write_all(b"response").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the client waits, closes its half, and is answered",
        |client, server| {
            asks(&client, &server);
            thread::sleep(WAIT);
            client.shutdown(Shutdown::Write).unwrap();
            net::read_to_end(&mut &server).unwrap();
            (&server).write_all(b"response").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the response comes with the FIN",
        |client, server| {
            asks(&client, &server);
            SockRef::from(&server).set_tcp_cork(true).unwrap();
            (&server).write_all(b"response").unwrap();
            drop(server);
            net::read_to_end(&mut &client).unwrap();
            true
        },
        (0, 0),
    ),
    (
        "the client sends its metrics and closes",
        |client, server| {
            let at_once = sends_and_closes(client, &[b'm'; 5000]);
            assert_eq!(net::read_to_end(&mut &server).unwrap(), 5000);
            at_once
        },
        (0, 0),
    ),
    (
        "the client sends much and closes",
        |client, server| {
            const SIZE: usize = 8 << 20;
            let writer = thread::spawn(move || {
                (&client).write_all(&vec![b'm'; SIZE - 5000]).unwrap();
                sends_and_closes(client, &[b'm'; 5000])
            });
            assert_eq!(net::read_to_end(&mut &server).unwrap(), SIZE as u64);
            writer.join().unwrap()
        },
        (0, 0),
    ),
    (
        "the client sends lines, and is killed",
        |client, server| sends_lines(client, server, true),
        (0, 0),
    ),
    (
        "the client sends lines, and the server restarts",
        |client, server| sends_lines(client, server, false),
        (0, 0),
    ),
    (
        "the server speaks first, and the client leaves",
        |client, server| {
            (&server).write_all(b"220 ready").unwrap();
            net::read_exactly(&mut &client, 9).unwrap();
            drop(client);
            net::read_to_end(&mut &server).unwrap();
            true
        },
        (0, 0),
    ),
];

/// The client sends a request, and the server reads it.
pub(super) fn asks(mut client: &TcpStream, mut server: &TcpStream) {
    client.write_all(b"request").unwrap();
    net::read_exactly(&mut server, 7).unwrap();
}

/// A request and its response.
pub(super) fn exchange(mut client: &TcpStream, mut server: &TcpStream) {
    asks(client, server);
    server.write_all(b"response").unwrap();
    net::read_exactly(&mut client, 8).unwrap();
}

/// The client of a log server, which never gets an answer.
fn sends_lines(client: TcpStream, server: TcpStream, ended_by_client: bool) -> bool {
    for _ in 0..9 {
        (&client).write_all(b"a line\n").unwrap();
        net::read_exactly(&mut &server, 7).unwrap();
        thread::sleep(SILENCE);
    }
    let (first, last) = if ended_by_client { (client, server) } else { (server, client) };
    drop(first);
    net::read_to_end(&mut &last).unwrap();
    true
}

/// A client's last message and its close. Returns whether there was hardly any time between them.
fn sends_and_closes(client: TcpStream, message: &[u8]) -> bool {
    let began = Instant::now();
    (&client).write_all(message).unwrap();
    drop(client);
    began.elapsed() < WAIT / 4
}
