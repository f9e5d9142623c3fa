//! Connections that the kernel translates on their way, in all network namespaces of this host.
//!
//! A connection is known by both of its ends. In each namespace that it passes, connection tracking
//! has an entry for it, and each may translate it again: what one namespace sends is what the next
//! receives. [`Connections`] joins the entries of one connection; [`Connections::routes`] then says
//! for each client and requested address where the connections went ([`Route`]), each once.
//!
//! An untranslated connection is part of it if others to the same address are translated: a sidecar
//! connects to the very address whose connections are redirected to it.

use std::sync::Arc;

use agent_common::address::Address;
use agent_common::peer::Handshake;
use hashbrown::{HashMap, HashSet};

use linux::conntrack::{End, Tracked};

/// Connections of one list at most.
pub const MAX_CONNECTIONS: usize = 32_768;
/// Connections of one client address at most.
pub const MAX_OF_CLIENT: usize = MAX_CONNECTIONS / 4;
/// A connection is not followed through more namespaces.
const MAX_HOPS: usize = 8;

/// Finds the owner row of a client by the connection as the client sees it.
pub type OwnerOf = Arc<dyn Fn(&Handshake) -> Option<u32> + Send + Sync>;

/// Connections of one client to one requested address that went to the same backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The namespace in which the connection is tracked first.
    pub netns: u32,
    /// The owner row of the client, if it is of this host and known.
    pub owner: Option<u32>,
    /// The client's address.
    pub client: Address,
    /// The address and port that the client connected to.
    pub requested: End,
    /// The address and port of the backend; the requested ones if nothing was translated.
    pub backend: End,
    /// The namespace in which the connection is tracked last.
    pub backend_netns: u32,
    /// The client's address as the backend sees it.
    pub seen_as: Address,
}

/// The routes of one list of all namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The number of the list: it grows with each.
    pub number: u64,
    /// Whether any namespace tracks connections.
    pub tracking: bool,
    /// Sorted.
    pub routes: Vec<Route>,
    /// Connections left out.
    pub dropped: u64,
}

/// The entries of a list, by what each namespace received: client and requested address.
#[derive(Default)]
pub struct Connections {
    entries: HashMap<(End, End), Vec<Entry>>,
    of_client: HashMap<Address, usize>,
    count: usize,
    dropped: u64,
}

/// What a namespace made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    netns: u32,
    backend: End,
    seen_as: End,
}

// === impl Route ===

impl Route {
    /// Whether the destination was translated.
    pub fn is_translated(&self) -> bool {
        self.requested != self.backend
    }

    /// Whether the backend sees other addresses than the client.
    pub fn differs_at_the_backend(&self) -> bool {
        self.is_translated() || self.client != self.seen_as
    }
}

// === impl Connections ===

impl Connections {
    /// Adds an entry of a namespace.
    pub fn add(&mut self, netns: u32, tracked: &Tracked) {
        let Tracked { client, requested, backend, seen_as } = *tracked;
        let entry = Entry { netns, backend, seen_as };
        let key = (client, requested);
        if let Some(known) = self.entries.get_mut(&key) {
            // A namespace that the connection only passes says nothing new. One that translates
            // replaces it; two that do so differently are two connections.
            let passes = |entry: &Entry| (entry.seen_as, entry.backend) == key;
            if passes(&entry) || known.contains(&entry) {
                return;
            }
            known.retain(|one| !passes(one));
            if known.len() < MAX_HOPS {
                known.push(entry);
            }
            return;
        }
        let of_client = self.of_client.entry(client.0).or_default();
        if self.count >= MAX_CONNECTIONS || *of_client >= MAX_OF_CLIENT {
            self.dropped += 1;
            return;
        }
        *of_client += 1;
        self.count += 1;
        self.entries.insert(key, vec![entry]);
    }

    /// Addresses and ports of which connections are translated.
    pub fn translated(&self) -> HashSet<End> {
        let is_translated = |((_, requested), entries): &(&(End, End), &Vec<Entry>)| {
            entries.iter().any(|entry| entry.backend != *requested)
        };
        self.entries.iter().filter(is_translated).map(|((_, requested), _)| *requested).collect()
    }

    /// Where the connections went, by client and requested address.
    pub fn routes(&self, owner_of: &OwnerOf) -> Vec<Route> {
        let sent = |(key, entries): (&(End, End), &Vec<Entry>)| {
            let sent: Vec<_> = entries.iter().map(|entry| (entry.seen_as, entry.backend)).collect();
            let key = *key;
            sent.into_iter().filter(move |sent| *sent != key)
        };
        let continued: HashSet<(End, End)> = self.entries.iter().flat_map(sent).collect();
        let mut routes = HashSet::new();
        for (key, entries) in &self.entries {
            if continued.contains(key) {
                continue;
            }
            let (client, requested) = *key;
            for first in entries {
                let last = self.follow(*first, *key);
                let handshake = Handshake {
                    client: client.0,
                    client_port: client.1,
                    server: requested.0,
                    port: requested.1,
                    netns: first.netns,
                };
                // Of two connections with the same ends it is unknown which one the note is about.
                let owner = if entries.len() == 1 { owner_of(&handshake) } else { None };
                routes.insert(Route {
                    netns: first.netns,
                    owner,
                    client: client.0,
                    requested,
                    backend: last.backend,
                    backend_netns: last.netns,
                    seen_as: last.seen_as.0,
                });
            }
        }
        let mut routes: Vec<Route> = routes.into_iter().collect();
        routes.sort_unstable();
        routes
    }

    /// Counts a connection that found no room elsewhere.
    pub fn drop_one(&mut self) {
        self.dropped += 1;
    }

    /// Connections that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The last namespace's entry of a connection.
    fn follow(&self, first: Entry, key: (End, End)) -> Entry {
        let (mut last, mut at) = (first, key);
        for _ in 0..MAX_HOPS {
            let next = (last.seen_as, last.backend);
            match self.entries.get(&next).map(Vec::as_slice) {
                Some([entry]) if next != at => (last, at) = (*entry, next),
                _ => break,
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::address;
    use std::net::SocketAddr;

    const POD: u32 = 1;
    const HOST: u32 = 2;

    fn end(text: &str) -> End {
        let address: SocketAddr = text.parse().unwrap();
        (address::from_ip(address.ip()), address.port())
    }

    fn tracked([client, requested, backend, seen_as]: [&str; 4]) -> Tracked {
        Tracked {
            client: end(client),
            requested: end(requested),
            backend: end(backend),
            seen_as: end(seen_as),
        }
    }

    /// No client is known.
    fn nobody() -> OwnerOf {
        Arc::new(|_| None)
    }

    #[test]
    fn a_connection_is_followed_through_the_namespaces_that_translate_it() {
        let check = |entries: &[(u32, [&str; 4])], expected: &[(&str, &str, u32, &str)]| {
            for turned in [false, true] {
                let mut connections = Connections::default();
                let mut entries = entries.to_vec();
                if turned {
                    entries.reverse();
                }
                for (netns, ends) in &entries {
                    connections.add(*netns, &tracked(*ends));
                }
                let found: Vec<_> = connections
                    .routes(&nobody())
                    .iter()
                    .map(|route| {
                        (route.requested, route.backend, route.backend_netns, route.seen_as)
                    })
                    .collect();
                let mut expected: Vec<_> = expected
                    .iter()
                    .map(|(requested, backend, netns, seen_as)| {
                        (end(requested), end(backend), *netns, end(&format!("{seen_as}:1")).0)
                    })
                    .collect();
                expected.sort_unstable();
                assert_eq!(found, expected, "{entries:?}");
            }
        };
        let vip = "10.96.0.1:80";
        // Only the host translates; the pod's namespace tracks the connection and lets it pass.
        check(
            &[
                (POD, ["10.1.0.2:4000", vip, vip, "10.1.0.2:4000"]),
                (HOST, ["10.1.0.2:4000", vip, "10.1.0.3:8080", "10.1.0.2:4000"]),
            ],
            &[(vip, "10.1.0.3:8080", HOST, "10.1.0.2")],
        );
        // The pod translates the destination, the host destination and source.
        check(
            &[
                (POD, ["10.1.0.2:4000", vip, "10.97.0.1:81", "10.1.0.2:4000"]),
                (HOST, ["10.1.0.2:4000", "10.97.0.1:81", "10.1.0.3:8080", "10.0.0.5:9"]),
            ],
            &[(vip, "10.1.0.3:8080", HOST, "10.0.0.5")],
        );
        // The pod translates the source, the host the destination.
        check(
            &[
                (POD, ["10.1.0.2:4000", vip, vip, "10.9.0.2:7"]),
                (HOST, ["10.9.0.2:7", vip, "10.1.0.3:8080", "10.9.0.2:7"]),
            ],
            &[(vip, "10.1.0.3:8080", HOST, "10.9.0.2")],
        );
        // Two that only look the same.
        check(
            &[
                (POD, ["10.1.0.2:4000", vip, "10.1.0.3:1", "10.1.0.2:4000"]),
                (HOST, ["10.1.0.2:4000", vip, "10.1.0.3:2", "10.1.0.2:4000"]),
            ],
            &[(vip, "10.1.0.3:1", POD, "10.1.0.2"), (vip, "10.1.0.3:2", HOST, "10.1.0.2")],
        );
        // Rules that lead in a circle.
        check(
            &[
                (POD, ["10.1.0.2:4000", vip, "10.97.0.1:81", "10.1.0.2:4000"]),
                (HOST, ["10.1.0.2:4000", "10.97.0.1:81", vip, "10.1.0.2:4000"]),
            ],
            &[],
        );
    }

    #[test]
    fn the_client_is_found_by_the_connection_as_it_sees_it() {
        let mut connections = Connections::default();
        let vip = "10.96.0.1:80";
        for (client, backend) in
            [("10.1.0.2:4000", "10.1.0.3:1"), ("10.1.0.2:4001", vip), ("10.1.0.2:4002", vip)]
        {
            connections.add(POD, &tracked([client, vip, backend, client]));
        }
        let owner_of: OwnerOf = Arc::new(|handshake: &Handshake| {
            assert_eq!((handshake.server, handshake.port), end("10.96.0.1:80"));
            assert_eq!(handshake.netns, POD);
            let port = handshake.client_port;
            [(4000, 7), (4001, 8)].iter().find(|(at, _)| *at == port).map(|(_, owner)| *owner)
        });
        let routes = connections.routes(&owner_of);
        let found: Vec<_> = routes.iter().map(|one| (one.owner, one.is_translated())).collect();
        assert_eq!(found, [(None, false), (Some(7), true), (Some(8), false)]);
        assert_eq!(connections.translated(), HashSet::from([end(vip)]));
    }

    #[test]
    fn one_client_does_not_take_the_room_of_others() {
        let mut connections = Connections::default();
        let (vip, backend) = (end("10.96.0.1:80"), end("10.1.0.3:80"));
        let one = |client: End| Tracked { client, requested: vip, backend, seen_as: client };
        for port in 0..u16::MAX {
            connections.add(POD, &one((end("10.1.0.2:1").0, port)));
        }
        assert_eq!(connections.dropped(), u64::from(u16::MAX) - MAX_OF_CLIENT as u64);
        connections.add(POD, &one(end("10.1.0.4:1")));
        assert_eq!(connections.routes(&nobody()).len(), 2);
    }
}
