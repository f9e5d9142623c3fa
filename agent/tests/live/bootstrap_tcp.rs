//! Pre-existing sockets: roles, owners, and only events after the start.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};

use crate::agent::Agent;
use crate::holder::Holder;
use crate::namespace::{self, Pair};
use crate::net;
use crate::scrape::Scrape;

/// How many connections there are before the agent.
const BEFORE: u64 = 200;

/// `Agent::start` while this process, which holds the clients' sockets, is called `service`.
fn start_while_called(service: &str) -> Agent {
    namespace::called(service, Agent::start)
}

#[test]
fn connections_from_before_are_known_by_role_and_owner_and_count_from_then_on() {
    needs_kernel!();
    let pair = Pair::new();
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let mut clients: Vec<TcpStream> = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..BEFORE {
        let mut client = pair.client.connect((pair.server.v4, port)).unwrap();
        let mut server = net::accept(&listener);
        client.write_all(&[b'x'; 1000]).unwrap();
        net::read_exactly(&mut server, 1000).unwrap();
        clients.push(client);
        servers.push(server);
    }
    // Another program holds the server's ends.
    let spare = listener.try_clone().unwrap();
    let mut sockets: Vec<_> = servers.into_iter().map(Into::into).collect();
    sockets.push(listener.into());
    let holder = Holder::new(&pair.server.service, sockets);
    drop(spare);
    let agent = start_while_called(&pair.client.service);
    let (c, s) = (&pair.client.service, &pair.server.service);
    let figures = |now: &Scrape, role| {
        let edge = now.edge(c, s, port, role);
        (edge.preexisting(), edge.active(), edge.all_connects())
    };
    let now = agent.eventually(((BEFORE, BEFORE, 0), (BEFORE, BEFORE, 0)), |now| {
        (figures(now, "client"), figures(now, "server"))
    });
    let bytes = |now: &Scrape| {
        let (a, b) = (now.edge(c, s, port, "client"), now.edge(c, s, port, "server"));
        (a.sent_bytes(), b.received_bytes(), b.sent_bytes(), a.received_bytes())
    };
    assert_eq!(bytes(&now), (0, 0, 0, 0), "what was before is not ours");
    let labels = [("service", s.as_str()), ("port", &port.to_string())];
    assert_eq!(now.sum("portolan_port_listeners", &labels), 1);
    // From here on everything counts.
    for client in &mut clients {
        client.write_all(&[b'y'; 10]).unwrap();
    }
    agent.eventually((BEFORE * 10, BEFORE * 10, 0, 0), bytes);
    // The listener from before accepts: the child belongs to its owner.
    let late = pair.client.connect((pair.server.v4, port)).unwrap();
    agent.eventually(((BEFORE, BEFORE + 1, 1), (BEFORE, BEFORE + 1, 1)), |now| {
        (figures(now, "client"), figures(now, "server"))
    });
    drop((clients, late));
    agent.eventually(0, |now| figures(now, "client").1);
    drop(holder);
    let now = agent.eventually(0, |now| figures(now, "server").1);
    assert_eq!(now.sum("portolan_port_listeners", &labels), 0);
    agent.stop();
}

#[test]
fn requests_on_connections_from_before_are_timed() {
    needs_kernel!();
    let pair = Pair::new();
    let mut open = Vec::new();
    for address in [IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6)] {
        let listener = pair.server.listen(SocketAddr::from((address, 0)));
        let port = net::port(&listener);
        let client = pair.client.connect((address, port)).unwrap();
        let server = net::accept(&listener);
        open.push((listener, port, client, server));
    }
    let agent = start_while_called(&pair.client.service);
    for (_, port, client, server) in &mut open {
        for _ in 0..10 {
            client.write_all(b"question").unwrap();
            net::read_exactly(server, 8).unwrap();
            server.write_all(b"answer").unwrap();
            net::read_exactly(client, 6).unwrap();
        }
        // Both ends are held by this process, under the name it had at the start.
        let name = pair.client.service.as_str();
        agent.eventually((10, 10), |now| {
            let count = |role| now.edge(name, name, *port, role).requests().count;
            (count("client"), count("server"))
        });
    }
    agent.stop();
}

#[test]
fn an_attempt_that_was_under_way_ends_as_what_it_becomes() {
    needs_kernel!();
    let pair = Pair::new();
    let listener = pair.server.listen("0.0.0.0:0");
    let port = net::port(&listener);
    let address = SocketAddr::from((pair.server.v4, port));
    pair.server.nft_input("tcp flags & (syn | ack) == syn drop");
    let (given_up, patient) =
        (pair.client.begin_connect(address), pair.client.begin_connect(address));
    let agent = start_while_called(&pair.client.service);
    drop(given_up);
    let attempts = |now: &Scrape| {
        let edge = now.edges(&[
            ("client", &pair.client.service),
            ("port", &port.to_string()),
            ("role", "client"),
        ]);
        (edge.all_connects(), edge.connects("aborted"), edge.connects("ok"), edge.active())
    };
    agent.eventually((1, 1, 0, 0), attempts);
    pair.server.nft_flush();
    agent.eventually((2, 1, 1, 1), attempts);
    drop(patient);
    agent.eventually((2, 1, 1, 0), attempts);
    agent.stop();
}
