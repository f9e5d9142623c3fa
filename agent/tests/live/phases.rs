//! Retransmits by phase: of the SYN, of data, of the FIN. `TcpRetransSegs` of the namespace is the
//! truth for their sum; which packet was lost says which phase they belong to.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::agent::Agent;
use crate::facts::Counters;
use crate::namespace::{Connection, Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;
use crate::unseen::repeated;

/// Syn, established, closing.
type Phases = [u64; 3];

fn phases(now: &Scrape, pair: &Pair, port: u16, role: &str) -> Phases {
    // A server without a listener has no name.
    let port = port.to_string();
    let edge = now.edges(&[("client", &pair.client.service), ("port", &port), ("role", role)]);
    ["syn", "established", "closing"].map(|phase| edge.retransmits_in(phase))
}

/// Loses packets that come in to `at` until the rule is taken away.
pub fn losing<T>(at: &Namespace, which: &str, meanwhile: impl FnOnce() -> T) -> T {
    at.nft_input(&format!("{which} drop"));
    let result = meanwhile();
    at.nft_flush();
    result
}

/// Waits until this side has sent something again; the loss of further repetitions ends with that.
pub fn until_sent_again(namespace: &Namespace, before: &Counters) {
    let began = std::time::Instant::now();
    while Counters::of(namespace).since(before, "TcpRetransSegs") == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing was sent again");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection of which every phase loses something, on the client's side and, after its
/// beginning, on the server's. What was sent again by then is given to `seen` after each phase.
fn suffer(pair: &Pair, is_v6: bool, seen: impl Fn(u16, Phases, Phases)) {
    let Pair { client: near, server: far } = pair;
    let address: IpAddr = if is_v6 { far.v6.into() } else { far.v4.into() };
    let listener = far.listen((address, 0));
    let port = net::port(&listener);
    let again = |namespace: &Namespace, since: &Counters| {
        Counters::of(namespace).since(since, "TcpRetransSegs")
    };
    let (near_before, far_before) = (Counters::of(near), Counters::of(far));
    let (mut of_client, mut of_server) = ([0; 3], [0; 3]);

    let first = format!(
        "tcp dport {port} tcp flags & (syn | ack) == syn limit rate 1/hour burst 1 packets"
    );
    let mut client = losing(far, &first, || near.connect((address, port)).unwrap());
    let mut server = net::accept(&listener);
    of_client[0] = again(near, &near_before);
    seen(port, of_client, of_server);

    let data = format!("tcp dport {port} meta length > 100");
    losing(far, &data, || {
        client.write_all(&[b'q'; 500]).unwrap();
        until_sent_again(near, &Counters::of(near));
    });
    net::read_exactly(&mut server, 500).unwrap();
    let data = format!("tcp sport {port} meta length > 100");
    losing(near, &data, || {
        server.write_all(&[b'a'; 500]).unwrap();
        until_sent_again(far, &Counters::of(far));
    });
    net::read_exactly(&mut client, 500).unwrap();
    // Long enough for the last acknowledgement.
    std::thread::sleep(Duration::from_millis(300));
    of_client[1] = again(near, &near_before) - of_client[0];
    of_server[1] = again(far, &far_before);
    seen(port, of_client, of_server);

    // The client closes first, from ESTABLISHED; then the server, from CLOSE_WAIT.
    let fin = format!("tcp dport {port} tcp flags & fin == fin");
    losing(far, &fin, || {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        until_sent_again(near, &Counters::of(near));
    });
    assert_eq!(net::read_to_end(&mut server).unwrap(), 0);
    let fin = format!("tcp sport {port} tcp flags & fin == fin");
    losing(near, &fin, || {
        drop(server);
        until_sent_again(far, &Counters::of(far));
    });
    assert_eq!(net::read_to_end(&mut client).unwrap(), 0);
    drop(client);
    std::thread::sleep(Duration::from_millis(300));
    of_client[2] = again(near, &near_before) - of_client[0] - of_client[1];
    of_server[2] = again(far, &far_before) - of_server[1];
    seen(port, of_client, of_server);
    assert!(of_client.iter().chain(&of_server[1..]).all(|count| *count > 0), "nothing was lost");
}

/// Scraped after each phase, so that the socket iteration attributes them.
#[test]
fn every_retransmit_is_of_its_phase() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        for is_v6 in [false, true] {
            suffer(&pair, is_v6, |port, client, server| {
                println!("v6 {is_v6}: client {client:?}, server {server:?}");
                agent.eventually((client, server), |now| {
                    (phases(now, &pair, port, "client"), phases(now, &pair, port, "server"))
                });
            });
        }
        agent.stop();
    });
}

/// Nothing is collected while the connection lives.
#[test]
fn a_connection_between_two_collections_has_its_phases_too() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::with(&[("collection_interval", "60s")]);
        let last = std::cell::Cell::default();
        suffer(&pair, false, |port, client, server| last.set((port, client, server)));
        let (port, client, server) = last.get();
        agent.eventually((client, server), |now| {
            (phases(now, &pair, port, "client"), phases(now, &pair, port, "server"))
        });
        agent.stop();
    });
}

#[test]
fn an_unanswered_connect_shows_its_retransmits_before_it_fails() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let before = Counters::of(&pair.client);
        pair.server.nft_input("tcp dport 7001 drop");
        let connecting = pair.client.begin_connect((pair.server.v4, 7001).into());
        let again = || Counters::of(&pair.client).since(&before, "TcpRetransSegs");
        let now = agent.eventually(true, |now| {
            let found = phases(now, &pair, 7001, "client");
            found[0] > 0 && found == [again(), 0, 0]
        });
        let labels = [("client", pair.client.service.as_str()), ("port", "7001")];
        assert_eq!(now.edges(&labels).all_connects(), 0, "it has not failed yet");
        drop(connecting);
        agent.eventually(1, |now| now.edges(&labels).connects("aborted"));
        assert_eq!(phases(&agent.scrape(), &pair, 7001, "client"), [again(), 0, 0]);
        agent.stop();
    });
}

/// Half closed by the peer, this side still sends data: that is not closing.
#[test]
fn data_after_the_peers_fin_is_of_an_established_connection() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(net::read_to_end(&mut server).unwrap(), 0);
        let before = Counters::of(&pair.server);
        losing(&pair.client, &format!("tcp sport {port} meta length > 100"), || {
            server.write_all(&[b'a'; 500]).unwrap();
            until_sent_again(&pair.server, &before);
        });
        net::read_exactly(&mut client, 500).unwrap();
        drop((client, server));
        let again = Counters::of(&pair.server).since(&before, "TcpRetransSegs");
        agent.eventually([0, again, 0], |now| phases(now, &pair, port, "server"));
        agent.stop();
    });
}
