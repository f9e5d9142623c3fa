//! Deduplication: which of the two sides of a connection is the primary one.
//!
//! A connection between two programs of this host has two rows: the client's and the server's.
//! What is counted once per connection must take one of them. Both know the address at the other
//! end exactly, and the local one of the connection that took the row.
//!
//! * The *client's* row is primary for its connections: it is there before the server's, and it
//!   knows who asked, which address translation hides from the server.
//! * The *server's* row is primary for clients of other hosts. A client is of this host if the
//!   address is one of this host's, or if some client's row has connected from it; not one in a
//!   namespace that any user can make, where clients can have anybody's address.
//!
//! For evaluation by address ([`Deduplication::evaluates`]) there is one more case: on its way from
//! the client the connection may be translated (a published port, a Service address). Then the
//! client's row has the address that was asked for, the server's row the one that answered. The two
//! rows do not match, and the server's row is primary, as it alone knows where the connection ended.

use agent_common::address::{self, Address, UNSPECIFIED};
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER};
use hashbrown::HashSet;

use agent_common::drained::Edge;

/// Addresses of both ends and the server's port, as one side sees them.
type Ends = (Address, Address, u16);

/// What this host's rows say of each other.
#[derive(Default)]
pub struct Deduplication {
    own: HashSet<Address>,
    by_clients: HashSet<Ends>,
    by_servers: HashSet<Ends>,
    /// Clients of servers' rows that no client's row matches.
    translated: HashSet<Address>,
}

// === impl Deduplication ===

impl Deduplication {
    /// From the rows of one drain, and the addresses of this host as far as they are known;
    /// `is_users` whether any user may have made the namespace of an edge's owner.
    pub fn new(
        edges: &[Edge],
        own: impl IntoIterator<Item = Address>,
        is_users: impl Fn(&Edge) -> bool,
    ) -> Self {
        let mut sides = Self {
            own: own.into_iter().collect(),
            by_clients: HashSet::new(),
            by_servers: HashSet::new(),
            translated: HashSet::new(),
        };
        for edge in edges.iter().filter(|edge| !edge.is_overflow()) {
            let (local, remote, port) = ends(edge);
            match edge.key.role {
                ROLE_CLIENT => {
                    if !is_users(edge) {
                        sides.own.insert(local);
                    }
                    sides.by_clients.insert((local, remote, port));
                }
                ROLE_SERVER => {
                    sides.by_servers.insert((remote, local, port));
                }
                _ => {}
            }
        }
        sides.own.remove(&UNSPECIFIED);
        let unmatched = sides.by_servers.difference(&sides.by_clients);
        sides.translated = unmatched.map(|(client, ..)| *client).collect();
        sides
    }

    /// Whether an edge's connections are counted by this row, and by no other of this host.
    pub fn counts(&self, edge: &Edge) -> bool {
        match edge.key.role {
            ROLE_CLIENT => true,
            ROLE_SERVER => !self.is_of_this_host(&edge.key.remote),
            _ => false,
        }
    }

    /// Whether an edge's connections are evaluated, by the addresses of their ends, by this row.
    pub fn evaluates(&self, edge: &Edge) -> bool {
        let (local, remote, port) = ends(edge);
        match edge.key.role {
            ROLE_CLIENT => {
                address::is_same_host(&local, &remote)
                    || !self.own.contains(&remote)
                    || self.by_servers.contains(&(local, remote, port))
                    // No other socket of this host answered it under another address either.
                    || !self.translated.contains(&local)
            }
            ROLE_SERVER => {
                !self.is_of_this_host(&edge.key.remote)
                    || (address::owner_of(&edge.key.remote).is_none()
                        && !address::is_same_host(&local, &remote)
                        && !self.by_clients.contains(&(remote, local, port)))
            }
            _ => false,
        }
    }

    fn is_of_this_host(&self, client: &Address) -> bool {
        address::owner_of(client).is_some()
            || address::to_ip(*client).is_loopback()
            || self.own.contains(client)
    }
}

/// Local and remote address, and the port. A server's row that has its client's owner for a key has
/// the addresses of its first connection: from another address that client has another row, unless
/// the connection never leaves the namespace.
fn ends(edge: &Edge) -> Ends {
    let Edge { key, local, remote, .. } = edge;
    let remote = if address::owner_of(&key.remote).is_some() { *remote } else { key.remote };
    (*local, remote, key.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::address::{INTERNET, from_owner};
    use agent_common::counters::EdgeCounters;
    use agent_common::drained::Table;
    use agent_common::edge::EdgeKey;
    use std::net::IpAddr;
    use std::sync::Arc;

    fn ip(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().expect("an address"))
    }

    fn edge(role: u8, local: Address, remote: Address, port: u16) -> Edge {
        let key = EdgeKey { owner: 1, port, role, zero: 0, remote };
        Edge {
            table: Table::Edges,
            slot: 4,
            key,
            local,
            remote,
            born_us: 1,
            counters: Arc::new(EdgeCounters::ZERO),
        }
    }

    /// A server's row whose client has left its name.
    fn introduced(local: Address, remote: Address, port: u16) -> Edge {
        let edge = edge(ROLE_SERVER, local, remote, port);
        Edge { key: EdgeKey { remote: from_owner(7, &local, &remote), ..edge.key }, ..edge }
    }

    /// Which of the rows count and which evaluate.
    fn check(edges: &[Edge], own: &[&str], counts: &[bool], evaluate: &[bool]) {
        let sides = Deduplication::new(edges, own.iter().map(|text| ip(text)), |_| false);
        assert_eq!(edges.iter().map(|edge| sides.counts(edge)).collect::<Vec<_>>(), counts);
        assert_eq!(edges.iter().map(|edge| sides.evaluates(edge)).collect::<Vec<_>>(), evaluate);
    }

    #[test]
    fn of_two_rows_the_clients_is_primary() {
        let (c, s) = (ip("172.20.0.2"), ip("172.22.0.2"));
        let rows = [edge(ROLE_CLIENT, c, s, 5432), edge(ROLE_SERVER, s, c, 5432)];
        check(&rows, &[], &[true, false], &[true, false]);
        check(&rows, &["172.20.0.2", "172.22.0.2"], &[true, false], &[true, false]);
    }

    #[test]
    fn a_client_that_left_its_name_is_primary_too() {
        let (c, s) = (ip("172.20.0.2"), ip("172.22.0.2"));
        let rows = [edge(ROLE_CLIENT, c, s, 5432), introduced(s, c, 5432)];
        check(&rows, &["172.20.0.2", "172.22.0.2"], &[true, false], &[true, false]);
        // Beside connections that were translated, of which only the server knows where they end.
        let far = ip("172.20.0.1");
        let rows = [
            edge(ROLE_CLIENT, c, s, 5432),
            introduced(s, c, 5432),
            edge(ROLE_CLIENT, c, far, 15432),
            edge(ROLE_SERVER, s, c, 15432),
        ];
        check(&rows, &["172.20.0.1"], &[true, false, true, false], &[true, false, false, true]);
    }

    #[test]
    fn a_client_with_two_addresses_is_primary_for_both() {
        let (one, two, s) = (ip("172.20.0.2"), ip("172.21.0.2"), ip("172.22.0.2"));
        let far = ip("172.21.0.1");
        let rows = [
            edge(ROLE_CLIENT, one, s, 5432),
            edge(ROLE_CLIENT, two, s, 5432),
            introduced(s, one, 5432),
            introduced(s, two, 5432),
            // The second also asks for something that is translated.
            edge(ROLE_CLIENT, two, far, 15432),
            edge(ROLE_SERVER, s, two, 15432),
        ];
        assert_ne!(rows[2].key, rows[3].key);
        let counts = [true, true, false, false, true, false];
        check(&rows, &["172.21.0.1"], &counts, &[true, true, false, false, false, true]);
    }

    #[test]
    fn an_address_that_a_users_client_has_is_not_this_hosts() {
        let (far, s, elsewhere) = (ip("192.0.2.7"), ip("172.22.0.2"), ip("192.0.2.9"));
        let rows = [edge(ROLE_CLIENT, far, elsewhere, 80), edge(ROLE_SERVER, s, far, 5432)];
        let counts = |is_users: bool| Deduplication::new(&rows, [s], |_| is_users).counts(&rows[1]);
        assert!(counts(true) && !counts(false));
    }

    #[test]
    fn alone_each_side_is_primary() {
        let (c, s) = (ip("172.20.0.2"), ip("172.22.0.2"));
        check(&[edge(ROLE_CLIENT, c, s, 1)], &["172.20.0.2"], &[true], &[true]);
        check(&[edge(ROLE_SERVER, s, c, 1)], &["172.22.0.2"], &[true], &[true]);
        check(&[edge(ROLE_SERVER, s, INTERNET, 1)], &[], &[true], &[true]);
    }

    #[test]
    fn within_a_namespace_the_clients_is_primary() {
        let lo = ip("127.0.0.1");
        let rows =
            [edge(ROLE_CLIENT, lo, lo, 80), introduced(lo, lo, 80), edge(ROLE_SERVER, lo, lo, 80)];
        check(&rows, &["127.0.0.1"], &[true, false, false], &[true, false, false]);
    }

    #[test]
    fn what_was_translated_is_judged_where_it_ended() {
        // A frontend asks the gateway's published port; a database in another network answers.
        let (c, gateway, s) = (ip("172.20.0.2"), ip("172.20.0.1"), ip("172.22.0.2"));
        let rows = [edge(ROLE_CLIENT, c, gateway, 15432), edge(ROLE_SERVER, s, c, 5432)];
        check(&rows, &["172.20.0.1"], &[true, false], &[false, true]);
        // A Service address, which no interface has: the client's row is evaluated by a network that
        // no segment declares, the server's by the true one.
        let rows = [edge(ROLE_CLIENT, c, ip("10.96.0.1"), 80), edge(ROLE_SERVER, s, c, 8080)];
        check(&rows, &[], &[true, false], &[true, true]);
    }

    #[test]
    fn listeners_and_overflow_rows_are_never_primary() {
        let rows = [edge(3, ip("0.0.0.0"), ip("0.0.0.0"), 80), edge(0, [0; 4], [0; 4], 0)];
        check(&rows, &[], &[false, false], &[false, false]);
    }
}
