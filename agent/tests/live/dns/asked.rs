//! Answers that were not asked for, and those that were.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use super::scene::{
    ANSWER_WITHIN, V4, V6, agent, by_address, expect, ip, ledger, named, pair, source,
};
use super::server::{self, Message, Question, Record};
use crate::facts::patience;
use crate::namespace::Pair;
use crate::net;

/// The family that questions and answers travel in.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The sockets of a test.
struct Sockets {
    /// A DNS server.
    server: UdpSocket,
    /// Another host's port 53, which no client has queried.
    stranger: UdpSocket,
    /// A client that asks the server, not connected.
    client: UdpSocket,
    /// A client that waits for datagrams and sends no query.
    sink: UdpSocket,
}

impl Sockets {
    fn new(pair: &Pair, family: Family) -> Self {
        let (server, stranger, any): (IpAddr, String, &str) = match family {
            Family::V4 => (pair.server.v4.into(), format!("{V4}.99"), "0.0.0.0:0"),
            Family::V6 => (pair.server.v6.into(), format!("{V6}::99"), "[::]:0"),
        };
        if matches!(family, Family::V6) {
            // Only an interface's address can be bound.
            ip(&pair.server, &format!("addr add {stranger}/128 dev lo nodad"));
        }
        let stranger: IpAddr = stranger.parse().expect("an address");
        let at_server = |own: IpAddr| {
            pair.server.within(|| UdpSocket::bind((own, 53))).expect("port 53 of the server")
        };
        let at_client = || {
            let socket = pair.client.within(|| UdpSocket::bind(any)).expect("a UDP socket");
            socket.set_read_timeout(Some(patience(ANSWER_WITHIN))).expect("a timeout");
            socket
        };
        Self {
            server: at_server(server),
            stranger: at_server(stranger),
            client: at_client(),
            sink: at_client(),
        }
    }

    /// The client asks the server; returns where the answer goes.
    fn ask(&self, name: &str) -> SocketAddr {
        let server = self.server.local_addr().expect("it has an address");
        self.client.send_to(&server::query(name, server::A), server).expect("asking");
        self.server.recv_from(&mut [0; 512]).expect("a question").1
    }

    /// Where the sink is reached.
    fn sink(&self, pair: &Pair) -> SocketAddr {
        let port = self.sink.local_addr().expect("it has an address").port();
        let server = self.server.local_addr().expect("it has an address");
        let client = if server.is_ipv4() { pair.client.v4.into() } else { pair.client.v6.into() };
        SocketAddr::new(client, port)
    }
}

/// Sends an answer that a name has an address, and has it read.
fn answer(from: &UdpSocket, to: SocketAddr, reader: &UdpSocket, name: &str, last: u8) {
    let record = Record::a(name, 60, &format!("{V4}.{last}"));
    let message = Message::answer(&Question::new(name, server::A), &[record]);
    from.send_to(&message.0, to).expect("sending");
    reader.recv(&mut [0; 2048]).expect("what was sent arrives");
}

pub(crate) fn answers_count_only_from_a_server_that_was_asked(family: Family) {
    let pair = pair();
    let sockets = Sockets::new(&pair, family);
    let Sockets { server, stranger, client, sink } = &sockets;
    let connect = |agent: &_, expected: &[(u8, Option<&str>)]| {
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        let open: Vec<TcpStream> = expected
            .iter()
            .map(|(last, _)| {
                let to: IpAddr = format!("{V4}.{last}").parse().expect("an address");
                pair.client.connect((to, port)).expect("a connection")
            })
            .collect();
        let rows = expected.iter().map(|(last, name)| match name {
            Some(name) => named(name, 1),
            None => by_address(&format!("{V4}.{last}"), 1),
        });
        expect(agent, port, &rows.collect::<Vec<_>>());
        drop(open);
    };

    let agent_of_all = agent(&[]);
    let (seen, ..) = ledger(&agent_of_all);
    for _ in 0..500 {
        answer(stranger, sockets.sink(&pair), sink, "evil.portolan.test", 60);
        answer(server, sockets.sink(&pair), sink, "early.portolan.test", 61);
    }
    let asking = sockets.ask("good.portolan.test");
    answer(stranger, asking, client, "forged.portolan.test", 62);
    answer(server, asking, client, "good.portolan.test", 63);
    connect(&agent_of_all, &[(60, None), (61, None), (62, None), (63, Some("good.portolan.test"))]);
    let entries = source(&agent_of_all).expect("it is a source")["entries"].clone();
    assert_eq!(entries, 1, "only what was asked for has a name");
    let (now, exported, lost) = ledger(&agent_of_all);
    assert!((1..20).contains(&(now - seen)) && exported + lost == now, "{seen} {now}");
    agent_of_all.stop();

    // Without the hook no answer to such a socket is believed, and the status says so.
    let hook = match family {
        Family::V4 => "sendmsg4",
        Family::V6 => "sendmsg6",
    };
    let without = agent(&[("disable_hooks", hook)]);
    let asking = sockets.ask("good.portolan.test");
    answer(server, asking, client, "good.portolan.test", 64);
    connect(&without, &[(64, None)]);
    let status = without.json("/api/v1/status");
    let off = status["findings"].as_array().expect("a list").iter().any(|off| {
        let subject = off["subject"].as_str().unwrap_or_default();
        subject.contains("sockets that are not connected")
    });
    assert!(off, "{status}");
    without.stop();
}
