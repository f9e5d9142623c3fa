//! Bytes: programs that count their writes and reads, in both directions and families.

use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use super::{Between, Books, Watcher, equal, equal_bytes};
use crate::agent::Agent;
use crate::namespace::Pair;
use crate::net;

/// Sizes of a request and its response: within a segment, many segments, more than any buffer.
const EXCHANGES: [(usize, usize); 6] =
    [(1, 1), (100, 20_000), (70_000, 3), (1, 400_000), (300_000, 300_000), (999, 1001)];
const CONNECTIONS: usize = 12;

fn programs_and_agent_agree(address: impl Fn(&Pair) -> SocketAddr) {
    let pair = Pair::new();
    let agent = Agent::start();
    let listener = pair.server.listen(address(&pair));
    let port = net::port(&listener);
    let at = SocketAddr::new(address(&pair).ip(), port);
    let books = Books::open(&pair, &agent);
    Watcher::during(&agent, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..CONNECTIONS {
                    let mut stream = net::accept(&listener);
                    scope.spawn(move || {
                        for (request, response) in EXCHANGES {
                            net::read_exactly(&mut stream, request).expect("a request");
                            thread::sleep(Duration::from_millis(2));
                            std::io::Write::write_all(&mut stream, &vec![b'a'; response])
                                .expect("answering");
                        }
                        assert_eq!(net::read_to_end(&mut stream).expect("the end"), 0);
                    });
                }
            });
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut stream = pair.client.connect(at).expect("connecting");
                    net::patient(&stream);
                    for (request, response) in EXCHANGES {
                        net::ask(&mut stream, request, response).expect("an exchange");
                    }
                    stream.shutdown(Shutdown::Write).expect("closing");
                    assert_eq!(net::read_to_end(&mut stream).expect("the end"), 0);
                });
            }
        });
    });
    let (client, server) = (&pair.client.service, &pair.server.service);
    let settled = books.close(&pair, &agent, Between { client, server, port });
    let total = |sizes: fn(&(usize, usize)) -> usize| {
        (EXCHANGES.iter().map(sizes).sum::<usize>() * CONNECTIONS) as u64
    };
    let (requests, responses) = (total(|exchange| exchange.0), total(|exchange| exchange.1));
    equal_bytes("client sent", settled.client_sent, requests, settled.slack);
    equal_bytes("server received", settled.server_received, requests, settled.slack);
    equal_bytes("server sent", settled.server_sent, responses, settled.slack);
    equal_bytes("client received", settled.client_received, responses, settled.slack);
    let exchanges = (CONNECTIONS * EXCHANGES.len()) as u64;
    equal("exchanges of the client", settled.client_requests, exchanges, settled.slack);
    equal("exchanges of the server", settled.server_requests, exchanges, settled.slack);
    equal("connections", settled.connects, CONNECTIONS as u64, settled.slack);
    agent.stop();
}

#[test]
fn bytes_over_ipv4_are_what_the_programs_wrote_and_read() {
    needs_kernel!();
    programs_and_agent_agree(|pair| SocketAddr::from((pair.server.v4, 0)));
}

#[test]
fn bytes_over_ipv6_are_what_the_programs_wrote_and_read() {
    needs_kernel!();
    programs_and_agent_agree(|pair| SocketAddr::from((pair.server.v6, 0)));
}
