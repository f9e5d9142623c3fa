//! Clients that are known at their server although the handshake ends late, and others use their port
//! in the meantime.

use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::Socket;

use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};
use crate::net;

/// More than a set of notes holds.
const OTHERS: usize = 8;

/// Connects from a port of its own.
fn connect_from(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> Socket {
    namespace.act(|| {
        let socket = net::socket_for(&to);
        // Several connections have this port.
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&from.into()).expect("a port that nothing listens on");
        socket.connect(&to.into()).expect("a listener of ours");
        socket
    })
}

#[test]
fn a_client_is_known_although_its_handshake_ends_late_and_others_use_its_port() {
    needs_kernel!();
    let (pair, elsewhere) = (Pair::new(), Pair::new());
    let agent = Agent::start();
    let address = IpAddr::from(elsewhere.server.v4);
    let listen = |_| elsewhere.server.listen((address, 0));
    let others: Vec<TcpListener> = (0..OTHERS).map(listen).collect();
    let check = |from: &Namespace, to: &Namespace, address: IpAddr| {
        let listener = to.listen((address, 0));
        let port = net::port(&listener);
        to.nft_input(&format!("tcp dport {port} tcp flags & (syn | ack) == ack drop"));
        let client = from.connect((address, port)).expect("the client has its answer");
        let own = client.local_addr().expect("it is connected").port();
        let busy: Vec<Socket> = others
            .iter()
            .map(|other| {
                let to = SocketAddr::new(elsewhere.server.v4.into(), net::port(other));
                connect_from(&elsewhere.client, (elsewhere.client.v4, own).into(), to)
            })
            .collect();
        // The next SYN-ACK, a second later, is acknowledged.
        to.nft_flush();
        let served = net::accept(&listener);
        let (client_name, server_name) = (&from.service, &to.service);
        agent.eventually((1, 1), |now| {
            let ok = |role| now.edge(client_name, server_name, port, role).connects("ok");
            (ok("client"), ok("server"))
        });
        drop((client, served, busy));
    };
    let Pair { client, server } = &pair;
    check(client, server, server.v4.into());
    check(client, server, server.v6.into());
    check(server, server, IpAddr::from([127, 0, 0, 1]));
    agent.stop();
}
