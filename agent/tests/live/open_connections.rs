//! The gauge of open connections when a hook does not handle their end: at rest it is the number of
//! sockets. The kernel skips a run a few times in a million connections, so here the state of a socket
//! is changed to say that its end was handled.

use crate::agent::Agent;
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::scrape::Scrape;
use crate::socket_table::States;

fn open(now: &Scrape, pair: &Pair, port: u16) -> [u64; 2] {
    ["client", "server"]
        .map(|role| now.edge(&pair.client.service, &pair.server.service, port, role).active())
}

#[test]
fn an_end_that_was_not_handled_leaves_nothing_in_the_gauge_at_rest() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener, port, client, server } = pair.connection();
    let more = || {
        let client = pair.client.connect((pair.server.v4, port)).unwrap();
        let server = net::accept(&listener);
        (client, server)
    };
    let (second, third) = (more(), more());
    agent.eventually([3, 3], |now| open(now, &pair, port));
    let states = States::of(&agent);
    // Of the first the client's end, of the second both, of the third none.
    states.skip_its_end(&client);
    states.skip_its_end(&second.0);
    states.skip_its_end(&second.1);
    drop((client, server, second));
    // Before it is known that they stay: only counted ends.
    agent.eventually([3, 2], |now| open(now, &pair, port));
    agent.eventually([1, 1], |now| open(now, &pair, port));
    let fourth = more();
    agent.eventually([2, 2], |now| open(now, &pair, port));
    drop((third, fourth));
    agent.eventually([0, 0], |now| open(now, &pair, port));
    // And it stays so.
    for _ in 0..6 {
        assert_eq!(open(&agent.scrape(), &pair, port), [0, 0]);
    }
    agent.stop();
}

/// Many connections of many edges at rest: each scrape shows what `ss` lists.
#[test]
fn connections_at_rest_are_as_many_as_there_are_sockets() {
    needs_kernel!();
    const EDGES: usize = 8;
    let pair = Pair::new();
    let agent = Agent::start();
    let mut held = Vec::new();
    for number in 0..EDGES {
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        for _ in 0..=number * 5 {
            let client = pair.client.connect((pair.server.v4, port)).unwrap();
            held.push((client, net::accept(&listener)));
        }
        let expected = number as u64 * 5 + 1;
        agent.eventually([expected; 2], |now| open(now, &pair, port));
        for _ in 0..6 {
            assert_eq!(open(&agent.scrape(), &pair, port), [expected; 2]);
        }
        drop(listener);
    }
    agent.stop();
}
