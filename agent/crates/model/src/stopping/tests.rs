//! Listeners that end, and the edges that fail with them.

use std::sync::Arc;

use agent_common::address::{UNSPECIFIED, from_owner, from_v4};
use agent_common::edge::EdgeKey;
use agent_common::wire::Wire as _;

use super::*;

const SERVER: u32 = 7;
const CLIENT: u32 = 8;
const STRANGER: u32 = 9;
const NETNS: u32 = 70;

fn address(last: u8) -> Address {
    from_v4(u32::from_ne_bytes([10, 0, 0, last]))
}

fn loopback() -> Address {
    from_v4(u32::from_ne_bytes([127, 0, 0, 1]))
}

fn listener(port: u16, cookie: u64) -> ListenerRecord {
    ListenerRecord { owner: SERVER, netns: NETNS, port, cookie, ..ListenerRecord::zeroed() }
}

fn edge(role: u8, owner: u32, port: u16, local: Address, remote: Address) -> Edge {
    let key = EdgeKey { owner, port, role, zero: 0, remote };
    let (table, counters) = (Table::Edges, Arc::default());
    Edge { table, slot: 9, key, local, remote, born_us: 1, counters }
}

/// A client that the server has served, on port 80.
fn served() -> [Edge; 2] {
    let (server, client) = (address(2), address(1));
    [
        edge(ROLE_SERVER, SERVER, 80, server, from_owner(CLIENT, &server, &client)),
        edge(ROLE_CLIENT, CLIENT, 80, client, server),
    ]
}

/// Everyone is in a namespace of their own, but for the server.
fn netns(owner: u32) -> u32 {
    if owner == SERVER { NETNS } else { owner }
}

/// Which of `edges` fail with a listener that is gone at the second collection.
fn failing(edges: &[Edge], listens: ListenerRecord) -> Vec<bool> {
    let mut stopping = Stopping::default();
    stopping.observe(0, &[listens]);
    assert!(!edges.iter().any(|edge| stopping.edges(edges, netns).contains(edge)));
    stopping.observe(1, &[]);
    let found = stopping.edges(edges, netns);
    edges.iter().map(|edge| found.contains(edge)).collect()
}

#[test]
fn both_sides_of_a_listener_that_ends_and_nobody_else() {
    let [at_server, at_client] = served();
    let other_port = edge(ROLE_SERVER, SERVER, 81, address(2), address(5));
    let other_owner = edge(ROLE_SERVER, STRANGER, 80, address(3), address(5));
    let to_other = edge(ROLE_CLIENT, STRANGER, 80, address(5), address(3));
    // It has never had a connection.
    let new_client = edge(ROLE_CLIENT, STRANGER, 80, address(5), address(2));
    let edges = [at_server, at_client, other_port, other_owner, to_other, new_client];
    assert_eq!(failing(&edges, listener(80, 1)), [true, true, false, false, false, true]);
    assert_eq!(failing(&edges, listener(443, 1)), [false; 6]);
}

#[test]
fn a_loopback_address_is_that_of_the_clients_own_namespace() {
    let here = edge(ROLE_CLIENT, SERVER, 80, loopback(), loopback());
    let elsewhere = edge(ROLE_CLIENT, STRANGER, 80, loopback(), loopback());
    let at_server =
        edge(ROLE_SERVER, SERVER, 80, loopback(), from_owner(SERVER, &loopback(), &loopback()));
    let edges = [here, elsewhere, at_server];
    for address in [UNSPECIFIED, loopback()] {
        let listens = ListenerRecord { address, ..listener(80, 1) };
        assert_eq!(failing(&edges, listens), [true, false, true]);
    }
}

#[test]
fn an_address_that_was_listened_on_needs_no_connection() {
    let refused = edge(ROLE_CLIENT, STRANGER, 80, address(5), address(2));
    let listens = ListenerRecord { address: address(2), ..listener(80, 1) };
    assert_eq!(failing(&[refused], listens), [true]);
}

#[test]
fn it_lasts_for_some_seconds_and_the_collection_after() {
    let (edges, mut stopping) = (served(), Stopping::default());
    let mut check = |now_us, listeners: &[ListenerRecord], expected| {
        stopping.observe(now_us, listeners);
        let found = stopping.edges(&edges, netns);
        assert_eq!(edges.each_ref().map(|edge| found.contains(edge)), [expected; 2], "{now_us}");
    };
    check(0, &[listener(80, 1), listener(80, 2)], false);
    // One of two sockets that share the port.
    check(10, &[listener(80, 2)], true);
    check(10 + STOPPING_US - 1, &[listener(80, 2)], true);
    // What happened since the last collection began within the time.
    check(60 + STOPPING_US, &[listener(80, 2)], true);
    check(70 + STOPPING_US, &[listener(80, 2)], false);
}

#[test]
fn one_that_an_iteration_has_missed_did_not_end() {
    let (edges, mut stopping) = (served(), Stopping::default());
    for (now, listeners, expected) in
        [(0, vec![listener(80, 1)], false), (1, vec![], true), (2, vec![listener(80, 1)], false)]
    {
        stopping.observe(now, &listeners);
        assert_eq!(stopping.edges(&edges, netns).contains(&edges[0]), expected, "{now}");
    }
}

#[test]
fn so_many_are_followed_and_no_more() {
    let mut stopping = Stopping::default();
    let many: Vec<_> = (0..MOST as u64 + 9).map(|cookie| listener(80, cookie)).collect();
    stopping.observe(0, &many);
    stopping.observe(1, &[]);
    assert_eq!(stopping.ended.len(), MOST);
    stopping.observe(2 + STOPPING_US, &[]);
    stopping.observe(3 + STOPPING_US, &[]);
    assert!(stopping.ended.is_empty());
}
