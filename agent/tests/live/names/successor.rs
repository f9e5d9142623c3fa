//! A server that ends, and another that takes its port soon after.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::agent::Agent;
use crate::facts;
use crate::namespace::Pair;
use crate::net;
use crate::scrape::Scrape;

#[test]
fn what_came_until_a_server_ended_is_its_own() {
    needs_kernel!();
    let net = Pair::new();
    // No timer reads the tables in between: the kernel half has to call.
    let agent = Agent::with(&[("collection_interval", "1m")]);
    let tag = std::process::id();
    let (one, two) = (format!("one{tag}"), format!("two{tag}"));
    let listen = |name: &str, port: u16| {
        let bound = net.server.act_as(name, || TcpListener::bind(("0.0.0.0", port)));
        bound.expect("a free port")
    };
    let first = listen(&one, 0);
    let port = net::port(&first);
    let serve = |listener: &TcpListener, times: u32| {
        for _ in 0..times {
            let client = net.client.connect((net.server.v4, port)).expect("a listener of ours");
            drop((net::accept(listener), client));
        }
    };
    let ok = |now: &Scrape, server: &str| {
        now.edge(&net.client.service, server, port, "client").connects("ok")
    };
    serve(&first, 2);
    agent.eventually(2, |now| ok(now, &one));
    serve(&first, 3);
    drop(first);
    // As long as a small program takes to start.
    thread::sleep(facts::patience(Duration::from_millis(300)));
    let second = listen(&two, port);
    serve(&second, 4);
    agent.eventually((5, 4), |now| (ok(now, &one), ok(now, &two)));
    agent.stop();
}
