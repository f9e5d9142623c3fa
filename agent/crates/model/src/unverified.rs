//! Unverified: what a user can have made up.
//!
//! In a network namespace below a user namespace that they made, users are root: any address is
//! theirs, a TUN device answers as they like, and TCP_REPAIR establishes connections without a
//! packet. What the kernel counts there is true of that namespace and says nothing of anybody else,
//! so it must not raise an alert. It is *unverified*, unless the other end proves it: a service
//! outside, at which the connection arrived with the client's note (`agent_common::peer`), or from
//! which it came.
//!
//! Namespaces below a user namespace that root made are the runtime's (`userns-remap`, LXD, pods
//! with `hostUsers: false`), and users can be declared to be trusted ([`Owners::trusting`]).

use std::collections::BTreeMap;

use agent_common::address::{self, Address};
use agent_common::drained::Edge;
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER};
use hashbrown::HashSet;

use super::delta::Delta;
use super::owners::Owners;

/// Users counted by number at most.
const MAX_USERS: usize = 256;

/// Connections from users' namespaces that have arrived at a service outside: the client, and the
/// server's address and port.
#[derive(Debug, Default)]
pub struct Proven(HashSet<(u32, Address, u16)>);

/// Counts by the user who may have faked them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByUser {
    counts: BTreeMap<u32, u64>,
    others: u64,
}

// === impl Proven ===

impl Proven {
    /// What the edges of one drain prove.
    pub fn new(edges: &[Edge], owners: &Owners) -> Self {
        let arrived = edges.iter().filter_map(|edge| {
            let is_outside = edge.key.role == ROLE_SERVER && !edge.is_overflow();
            let client = is_outside.then(|| address::owner_of(&edge.key.remote))??;
            owners.user(client)?;
            let is_proof = owners.is_verified(edge.key.owner);
            is_proof.then_some((client, edge.local, edge.key.port))
        });
        Self(arrived.collect())
    }

    /// The user who may have faked what an edge shows.
    pub fn doubt(&self, edge: &Edge, owners: &Owners) -> Option<u32> {
        let user = owners.user(edge.key.owner)?;
        let key = &edge.key;
        let is_proven = match key.role {
            ROLE_CLIENT => self.0.contains(&(key.owner, key.remote, key.port)),
            ROLE_SERVER => {
                address::owner_of(&key.remote).is_some_and(|client| owners.is_verified(client))
            }
            _ => false,
        };
        (!is_proven).then_some(user)
    }
}

// === impl ByUser ===

impl ByUser {
    /// Adds to the count of a user.
    pub fn add(&mut self, user: u32, count: u64) {
        if self.counts.len() < MAX_USERS || self.counts.contains_key(&user) {
            *self.counts.entry(user).or_default() += count;
        } else {
            self.others += count;
        }
    }

    /// Adds the attempts to connect, and the accepted connections, of edges in doubt.
    pub fn add_connects(&mut self, deltas: &[Delta]) {
        for delta in deltas {
            if let Some(user) = delta.labels.unverified_user
                && !delta.grown.is_empty()
            {
                let connects = delta.grown.difference().connects;
                self.add(user, connects.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count)));
            }
        }
    }

    /// Counts above zero by user; `None` stands for users beyond the limit.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u32>, u64)> {
        let counts = self.counts.iter().map(|(user, count)| (Some(*user), *count));
        counts.chain([(None, self.others)]).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use agent_common::address::{from_ip, from_owner};
    use agent_common::counters::EdgeCounters;
    use agent_common::drained::Table;
    use agent_common::edge::{EdgeKey, ROLE_LISTENER};
    use agent_common::owner::OwnerRow;
    use agent_common::share::{BY_USER, Tenant};
    use agent_common::wire::Wire as _;

    use super::*;

    const HOST: u32 = 1;
    const OF_USER: u32 = 2;
    const OF_ROOT: u32 = 3;
    const OF_OTHER_USER: u32 = 4;
    const OF_TRUSTED: u32 = 5;
    const UNKNOWN: u32 = 9;

    fn owners() -> Owners {
        let mut owners = Owners::trusting([1000]);
        let made = |user: u64| BY_USER | user;
        for (index, origin) in [
            (HOST, 4_026_531_840),
            (OF_USER, made(1500)),
            (OF_ROOT, made(0)),
            (OF_OTHER_USER, made(1501)),
            (OF_TRUSTED, made(1000)),
        ] {
            let tenant = Tenant { cgroup: 7, origin };
            owners.insert(index, OwnerRow { tenant, ..OwnerRow::zeroed() });
        }
        owners
    }

    fn ip(text: &str) -> Address {
        from_ip(text.parse::<IpAddr>().expect("an address"))
    }

    fn edge(owner: u32, role: u8, local: Address, remote: Address) -> Edge {
        let key = EdgeKey { owner, port: 5432, role, zero: 0, remote };
        let counters = Arc::new(EdgeCounters::ZERO);
        Edge { table: Table::Edges, slot: 9, key, local, remote, born_us: 1, counters }
    }

    /// A server's row with the note of a client.
    fn arrived(owner: u32, client: u32, local: Address, remote: Address) -> Edge {
        edge(owner, ROLE_SERVER, local, from_owner(client, &local, &remote))
    }

    /// Who is doubted, edge by edge.
    #[track_caller]
    fn check(edges: &[Edge], expected: &[Option<u32>]) {
        let owners = owners();
        let proven = Proven::new(edges, &owners);
        let doubts: Vec<_> = edges.iter().map(|edge| proven.doubt(edge, &owners)).collect();
        assert_eq!(doubts, expected);
    }

    #[test]
    fn what_stays_within_the_namespaces_of_a_user_is_in_doubt() {
        let (c, s) = (ip("172.20.0.2"), ip("172.22.0.2"));
        for owner in [HOST, OF_ROOT, OF_TRUSTED, UNKNOWN] {
            check(&[edge(owner, ROLE_CLIENT, c, s), arrived(owner, owner, s, c)], &[None, None]);
        }
        let inside = [
            edge(OF_USER, ROLE_CLIENT, c, s),
            arrived(OF_USER, OF_USER, s, c),
            // Forged from outside, as far as anybody knows.
            edge(OF_USER, ROLE_SERVER, s, c),
            edge(OF_USER, ROLE_LISTENER, s, ip("0.0.0.0")),
        ];
        check(&inside, &[Some(1500); 4]);
    }

    #[test]
    fn a_connection_with_an_end_outside_is_proven_by_that_end() {
        let (c, s) = (ip("172.20.0.2"), ip("172.22.0.2"));
        check(&[edge(OF_USER, ROLE_CLIENT, c, s), arrived(HOST, OF_USER, s, c)], &[None, None]);
        check(&[arrived(OF_USER, HOST, s, c)], &[None]);
        check(&[arrived(OF_USER, OF_ROOT, s, c)], &[None]);
        // At another address or port, or without a note, nothing has arrived.
        let elsewhere = ip("172.22.0.3");
        let edges = [edge(OF_USER, ROLE_CLIENT, c, elsewhere), arrived(HOST, OF_USER, s, c)];
        check(&edges, &[Some(1500), None]);
        let edges = [edge(OF_USER, ROLE_CLIENT, c, s), edge(HOST, ROLE_SERVER, s, c)];
        check(&edges, &[Some(1500), None]);
        // Two users prove nothing to each other.
        let edges = [edge(OF_USER, ROLE_CLIENT, c, s), arrived(OF_OTHER_USER, OF_USER, s, c)];
        check(&edges, &[Some(1500), Some(1501)]);
    }

    #[test]
    fn there_is_an_end_to_the_number_of_users() {
        let mut counts = ByUser::default();
        for user in 1000..3000 {
            counts.add(user, 1);
            counts.add(1000, 1);
        }
        let all: Vec<_> = counts.iter().collect();
        assert_eq!(all.len(), MAX_USERS + 1);
        assert_eq!(all.first(), Some(&(Some(1000), 2001)));
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 4000);
    }
}
