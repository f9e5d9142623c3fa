//! SYN-ACKs that get lost: the listener has to retransmit them.

use std::net::{IpAddr, SocketAddr};

use crate::agent::Agent;
use crate::facts::Counters;
use crate::namespace::Pair;
use crate::net;
use crate::unseen::repeated;

#[test]
fn repeated_answers_to_connection_requests_are_what_the_kernel_counts() {
    needs_kernel!();
    repeated(|| {
        let pair = Pair::new();
        let agent = Agent::start();
        for address in [IpAddr::V4(pair.server.v4), IpAddr::V6(pair.server.v6)] {
            let listener = pair.server.listen("[::]:0");
            let port = net::port(&listener);
            let address = SocketAddr::from((address, port));
            let before = Counters::of(&pair.server);
            pair.client.nft_input("tcp flags & (syn | ack) == (syn | ack) drop");
            let socket = pair.client.begin_connect(address);
            let labels = [("service", pair.server.service.as_str()), ("port", &port.to_string())];
            let counted_synacks = |now: &crate::scrape::Scrape| {
                now.sum("portolan_tcp_synack_retransmits_total", &labels)
            };
            agent.eventually(true, |now| counted_synacks(now) > 0);
            // Now it comes through, and the connection is none the worse.
            pair.client.nft_flush();
            let now = agent.eventually(1, |now| {
                now.edge(&pair.client.service, &pair.server.service, port, "server").connects("ok")
            });
            let counted = Counters::of(&pair.server).since(&before, "TcpRetransSegs");
            assert_eq!(counted_synacks(&now), counted, "TcpRetransSegs of a listener's namespace");
            assert_eq!(
                now.edge(&pair.client.service, &pair.server.service, port, "server").retransmits(),
                0,
                "they are the listener's"
            );
            drop(socket);
        }
        agent.stop();
    });
}
