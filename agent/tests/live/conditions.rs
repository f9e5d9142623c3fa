//! Conditions of network namespaces: what interfaces drop and how full connection tracking is, as the
//! kernel has it.

use std::fs;
use std::net::UdpSocket;

use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};
use crate::net;
use crate::scrape::Scrape;

/// Packets that are longer than the MTU of the other end, and their payload.
const LOST: u64 = 40;
const PAYLOAD: usize = 1400;
/// Connections that are tracked.
const TRACKED: u16 = 300;

/// Packets that an interface dropped in both directions, as /proc/net/dev has it.
fn dropped(namespace: &Namespace, name: &str) -> u64 {
    let text = namespace.within(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let text = text.expect("/proc/net/dev");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let fields: Vec<u64> = line
        .unwrap_or_else(|| panic!("no {name}: {text}"))
        .split_whitespace()
        .map(|field| field.parse().expect("a number"))
        .collect();
    // Received: bytes, packets, errs, drop, fifo, frame, compressed, multicast; then sent.
    fields[3] + fields[11]
}

/// A setting of connection tracking.
fn tracking(namespace: &Namespace, name: &str) -> u64 {
    let path = format!("/proc/sys/net/netfilter/{name}");
    let text = namespace.within(|| fs::read_to_string(&path)).expect("connection tracking");
    text.trim().parse().expect("a number")
}

#[test]
fn drops_of_interfaces_and_tracked_connections_are_metrics_of_their_namespace() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("collection_interval", "100ms")]);
    let (client, server) = (&pair.client, &pair.server);
    let listener = server.listen("0.0.0.0:0");
    let stream = client.connect((server.v4, net::port(&listener))).expect("a listener of ours");
    let accepted = net::accept(&listener);
    // Both have a name, and nothing was dropped: the first drop has to be an increase.
    let veth =
        |of: &Namespace| [("netns_of", of.service.clone()), ("interface", "veth".to_owned())];
    let (of_client, of_server) = (veth(client), veth(server));
    let drops = |now: &Scrape, of: &[(&str, String); 2]| {
        let of = of.each_ref().map(|(name, value)| (*name, value.as_str()));
        let drops = now.matching("portolan_interface_drops_total", &of).next();
        drops.map(|sample| sample.value as u64)
    };
    agent.eventually([Some(0); 2], |now| [&of_client, &of_server].map(|of| drops(now, of)));

    let both = || [client, server].map(|of| dropped(of, "veth0"));
    let before = both();
    let narrow = "link set dev veth0 mtu 1280";
    let done = server.command("ip").args(narrow.split(' ')).status().expect("starting ip");
    assert!(done.success(), "ip {narrow}");
    client.act(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        for _ in 0..LOST {
            socket.send_to(&[0; PAYLOAD], (server.v4, 9)).expect("sent");
        }
    });
    // The kernel counts each at both ends, as sent and as received.
    let after = both();
    assert_eq!([0, 1].map(|end| after[end] - before[end]), [LOST; 2], "the kernel's own count");
    agent.eventually([Some(LOST); 2], |now| [&of_client, &of_server].map(|of| drops(now, of)));

    // Only the client's namespace tracks connections.
    client.nft("table ip track { chain out { type filter hook output priority 0; ct state new counter; }; }");
    client.act(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        for port in 1..=TRACKED {
            socket.send_to(&[0], (server.v4, 20_000 + port)).expect("sent");
        }
    });
    let limit = tracking(client, "nf_conntrack_max") as f64;
    agent.eventually((true, Some(0.0)), |now| {
        let ratio = |of: &Namespace| {
            let labels = [("netns_of", of.service.as_str())];
            let mut found = now.matching("portolan_conntrack_used_ratio", &labels);
            found.next().map(|sample| sample.value)
        };
        let used = ratio(client).map(|ratio| (ratio * limit).round() as u64);
        let count = tracking(client, "nf_conntrack_count");
        (used == Some(count) && count >= u64::from(TRACKED), ratio(server))
    });

    let now = agent.scrape();
    assert!(now.sum("portolan_network_namespaces", &[("state", "read")]) >= 3, "{:?}", now.who());
    let memory = [("netns_of", client.service.as_str()), ("event", "pressure")];
    assert!(now.has("portolan_tcp_memory_pressure_total", &memory));
    drop((stream, accepted));
    agent.stop();
}
