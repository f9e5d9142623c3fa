//! Events that take seconds, and so are not part of every trial without a hook: single attempts of
//! a program, retransmitted SYN-ACKs, and retransmitted data.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{NOWHERE, NOWHERE4, kernel_has};
use crate::agent::Agent;
use crate::facts::patience;
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::scrape::Scrape;

/// How long to wait for an event that must not come: twice the timeout of a pending bind or
/// connect.
const ABSENCE: Duration = Duration::from_millis(2500);
/// How long one that must come is.
const PRESENCE: Duration = Duration::from_secs(8);

/// An agent without this hook, if the kernel has it.
fn without(hook: &str) -> Option<Agent> {
    if !kernel_has(hook) {
        println!("this kernel has no {hook} to take away");
        return None;
    }
    Some(Agent::with(&[("disable_hooks", hook)]))
}

/// Scrapes until the event appears, or for as long as it must not appear.
fn shows(agent: &Agent, with_hook: bool, seen: impl Fn(&Scrape) -> bool) -> bool {
    let wait = if with_hook { patience(PRESENCE) } else { ABSENCE };
    let began = Instant::now();
    while began.elapsed() < wait {
        if seen(&agent.scrape()) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

#[test]
fn without_expire_attempts_single_attempts_are_not_reported() {
    needs_kernel!();
    let pair = Pair::new();
    let check = |agent: Agent, with_hook: bool, port: u16| {
        let nowhere = SocketAddr::new(NOWHERE4, port);
        pair.client.act(|| TcpStream::connect(nowhere).unwrap_err());
        let port = port.to_string();
        let labels = [("client", pair.client.service.as_str()), ("port", &port)];
        let seen = shows(&agent, with_hook, |now| now.edges(&labels).all_connects() == 1);
        assert_eq!(seen, with_hook);
        agent.stop();
    };
    check(Agent::start(), true, NOWHERE.0);
    if let Some(agent) = without("expire_attempts") {
        check(agent, false, NOWHERE.1);
    }
}

#[test]
fn without_tcp_retransmit_synack_repeated_syn_acks_are_not_counted() {
    needs_kernel!();
    let pair = Pair::new();
    let check = |agent: Agent, with_hook: bool| {
        let listener = pair.server.listen("0.0.0.0:0");
        let address = SocketAddr::from((pair.server.v4, net::port(&listener)));
        pair.client.nft_input("tcp flags & (syn | ack) == (syn | ack) drop");
        let _connecting = pair.client.begin_connect(address);
        let labels = [("service", pair.server.service.as_str())];
        let seen = shows(&agent, with_hook, |now| {
            now.sum("portolan_tcp_synack_retransmits_total", &labels) > 0
        });
        assert_eq!(seen, with_hook);
        pair.client.nft_flush();
        agent.stop();
    };
    check(Agent::start(), true);
    if let Some(agent) = without("tcp_retransmit_synack") {
        check(agent, false);
    }
}

#[test]
fn without_tcp_retransmit_skb_latency_excludes_the_loss_of_a_request() {
    needs_kernel!();
    let pair = Pair::new();
    let check = |agent: Agent, with_hook: bool| {
        let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
        net::patient(&client);
        let work = thread::spawn(move || net::answer(&mut server, 500, 500, Duration::ZERO));
        // The request and its first repetition are lost.
        pair.server.nft_input(&format!(
            "tcp dport {port} tcp flags & (syn | fin | rst) == 0 meta length > 100 \
             limit rate 2/hour burst 2 packets drop"
        ));
        let began = Instant::now();
        net::ask(&mut client, 500, 500).unwrap();
        let waited = began.elapsed().as_secs_f64();
        let (c, s) = (&pair.client.service, &pair.server.service);
        let now = agent.eventually(1, |now| now.edge(c, s, port, "client").requests().count);
        let seen = now.edge(c, s, port, "client").requests().sum / waited;
        assert!(waited > 0.2, "two losses take a timeout: {waited} s");
        assert!(if with_hook { seen > 0.8 } else { seen < 0.5 }, "{seen} of {waited} s");
        pair.server.nft_flush();
        drop(client);
        work.join().unwrap().unwrap();
        agent.stop();
    };
    check(Agent::start(), true);
    if let Some(agent) = without("tcp_retransmit_skb") {
        check(agent, false);
    }
}
