//! The other end of an edge: a listener or client of this host if there is exactly one that fits,
//! else the address.
//!
//! An address alone says little: `127.0.0.1` is a different place in every network namespace.
//! So an address is first given its namespace, seen from the owner's; see [`Remotes::place`].

use agent_common::address::{self, Address};
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
use agent_common::listener::ListenerRecord;
use hashbrown::{HashMap, HashSet};

use crate::model::service::{Service, Source};

/// Entries per table at most.
const MAX_ENTRIES: usize = 65_536;

/// A service of this host that connects somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Network namespace it is in.
    pub netns: u32,
    /// The address it connects to.
    pub remote: Address,
    /// The server's port.
    pub port: u16,
    /// Its name.
    pub service: Service,
}

/// What is known of this host's listeners, addresses and clients.
#[derive(Default)]
pub(super) struct Remotes {
    listeners: HashMap<(u32, u16), Vec<Listener>>,
    /// Address → the namespace that has it; `None` if several do.
    places: HashMap<Address, Option<u32>>,
    own: HashSet<(u32, Address)>,
    /// What the clients of a namespace connect to → the service; `None` if several do.
    clients: HashMap<Connection, Option<Service>>,
    dropped_listeners: u64,
    dropped_addresses: u64,
    dropped_clients: u64,
}

struct Listener {
    address: Address,
    accepts_v4: bool,
    accepts_v6: bool,
    service: Service,
}

/// A client's connections to one port of one namespace. `path` keeps apart what cannot be the
/// same connection: loopback and not, IPv4 and IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Connection {
    client: u32,
    server: u32,
    port: u16,
    path: (bool, bool),
}

impl Remotes {
    pub(super) fn set_listeners(&mut self, listeners: &[(ListenerRecord, Service)]) {
        let kept = listeners.get(..MAX_ENTRIES).unwrap_or(listeners);
        self.dropped_listeners = (listeners.len() - kept.len()) as u64;
        self.listeners.clear();
        for (record, service) in kept {
            self.listeners
                .entry((record.netns, record.port))
                .or_default()
                .push(Listener::new(record, service));
        }
    }

    pub(super) fn set_addresses(&mut self, addresses: &[(u32, Address)]) {
        let kept = addresses.get(..MAX_ENTRIES).unwrap_or(addresses);
        self.dropped_addresses = (addresses.len() - kept.len()) as u64;
        self.places.clear();
        self.own.clear();
        for &(netns, address) in kept {
            self.own.insert((netns, address));
            if everywhere(address) {
                continue;
            }
            self.places
                .entry(address)
                .and_modify(|place| *place = place.filter(|one| *one == netns))
                .or_insert(Some(netns));
        }
    }

    pub(super) fn set_clients(&mut self, clients: &[Client]) {
        let kept = clients.get(..MAX_ENTRIES).unwrap_or(clients);
        self.dropped_clients = (clients.len() - kept.len()) as u64;
        let mut table: HashMap<Connection, Option<Service>> = HashMap::new();
        for Client { netns, remote, port, service } in kept {
            let Some(server) = self.place(*netns, *remote) else { continue };
            let connection =
                Connection { client: *netns, server, port: *port, path: path(*remote) };
            table
                .entry(connection)
                .and_modify(|known| {
                    if !known.as_ref().is_some_and(|known| known.is_called_as(service)) {
                        *known = None;
                    }
                })
                .or_insert_with(|| Some(service.clone()));
        }
        self.clients = table;
    }

    /// The service at the other end of an edge of an owner in `netns`.
    pub(super) fn resolve(&self, netns: u32, key: &EdgeKey) -> Service {
        match key.role {
            ROLE_CLIENT => self
                .place(netns, key.remote)
                .and_then(|place| self.listener(place, key.remote, key.port))
                .map_or_else(|| by_address(key.remote), |found| found.found_by(Source::Listener)),
            ROLE_SERVER if key.remote == address::INTERNET => Service::internet(),
            ROLE_SERVER if key.remote == address::UNSPECIFIED => {
                Service::new("any", Source::Unknown)
            }
            ROLE_SERVER => self
                .place(netns, key.remote)
                .and_then(|place| self.client(place, netns, key))
                .map_or_else(
                    || by_address(key.remote),
                    |found| found.found_by(Source::LocalClient),
                ),
            // What happens to a listener before there is a connection has no client yet.
            ROLE_LISTENER => Service::new("any", Source::Unknown),
            _ => Service::other(),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        let Self { dropped_listeners, dropped_addresses, dropped_clients, .. } = self;
        dropped_listeners + dropped_addresses + dropped_clients
    }

    /// The namespace that `address` leads to from `netns`, if it is one of this host and only one.
    fn place(&self, netns: u32, address: Address) -> Option<u32> {
        if address::to_ip(address).is_loopback() || self.own.contains(&(netns, address)) {
            return Some(netns);
        }
        if self.dropped_addresses > 0 {
            return None; // Another namespace may have it too.
        }
        self.places.get(&address).copied().flatten()
    }

    /// Who listens there. As in the kernel's lookup (`compute_score`,
    /// net/ipv4/inet_hashtables.c), a listener on the address beats one on all, and one of the
    /// address's own family beats a dual-stack one.
    fn listener(&self, netns: u32, address: Address, port: u16) -> Option<&Service> {
        let candidates = self.listeners.get(&(netns, port))?;
        candidates
            .iter()
            .filter_map(|listener| Some((listener.score(address)?, &listener.service)))
            // Of several services on one port (SO_REUSEPORT) always the same one.
            .max_by(|(score, service), (other_score, other)| {
                score.cmp(other_score).then_with(|| other.cmp(service))
            })
            .map(|(_, service)| service)
    }

    /// Who in namespace `client` has connections to the port of `server` that look like `key`.
    fn client(&self, client: u32, server: u32, key: &EdgeKey) -> Option<&Service> {
        if self.dropped_clients > 0 {
            return None; // The only one in the table may not be the only one.
        }
        let connection = Connection { client, server, port: key.port, path: path(key.remote) };
        self.clients.get(&connection)?.as_ref()
    }
}

impl Listener {
    fn new(record: &ListenerRecord, service: &Service) -> Self {
        let is_v6 = i32::from(record.family) == libc::AF_INET6;
        Self {
            address: record.address,
            accepts_v4: !is_v6 || record.v6_only == 0,
            accepts_v6: is_v6,
            service: service.clone(),
        }
    }

    fn score(&self, address: Address) -> Option<u8> {
        if self.address == address {
            return Some(3);
        }
        if !address::to_ip(self.address).is_unspecified() {
            return None;
        }
        let is_v4 = address::to_ip(address).is_ipv4();
        let accepts = if is_v4 { self.accepts_v4 } else { self.accepts_v6 };
        accepts.then_some(if is_v4 && self.accepts_v6 { 1 } else { 2 })
    }
}

fn by_address(address: Address) -> Service {
    Service::new(&address::to_ip(address).to_string(), Source::Address)
}

fn path(address: Address) -> (bool, bool) {
    let ip = address::to_ip(address);
    (ip.is_loopback(), ip.is_ipv4())
}

/// Addresses that say nothing about where they are.
fn everywhere(address: Address) -> bool {
    match address::to_ip(address) {
        std::net::IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified(),
        std::net::IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire;
    use std::net::IpAddr;

    const HOST: u32 = 1;
    const BLUE: u32 = 2;
    const RED: u32 = 3;

    fn ip(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().unwrap())
    }

    fn listener(netns: u32, address: &str, port: u16, name: &str) -> (ListenerRecord, Service) {
        let family = if address.contains(':') { 10 } else { 2 };
        let record = ListenerRecord { netns, port, family, address: ip(address), ..Wire::zeroed() };
        (record, Service::new(name, Source::Process))
    }

    fn client(netns: u32, remote: &str, port: u16, name: &str) -> Client {
        let service = Service::new(name, Source::Process);
        Client { netns, remote: ip(remote), port, service }
    }

    fn key(role: u8, remote: &str, port: u16) -> EdgeKey {
        EdgeKey { owner: 9, port, role, zero: 0, remote: ip(remote) }
    }

    /// Two containers on a bridge with the host; both have a 172.30.0.1 of their own besides.
    fn remotes() -> Remotes {
        let mut remotes = Remotes::default();
        let mut addresses = vec![
            (HOST, ip("10.0.0.5")),
            (HOST, ip("172.17.0.1")),
            (BLUE, ip("172.17.0.2")),
            (BLUE, ip("172.30.0.1")),
            (BLUE, ip("fd00::2")),
            (RED, ip("172.17.0.3")),
            (RED, ip("172.30.0.1")),
        ];
        for netns in [HOST, BLUE, RED] {
            addresses.extend([(netns, ip("127.0.0.1")), (netns, ip("::1"))]);
            addresses.push((netns, ip("fe80::1")));
        }
        remotes.set_addresses(&addresses);
        remotes
    }

    #[test]
    fn a_client_finds_the_listener_in_the_right_namespace() {
        let mut remotes = remotes();
        let mut only_v6 = listener(BLUE, "::", 9000, "six");
        only_v6.0.v6_only = 1;
        remotes.set_listeners(&[
            listener(HOST, "127.0.0.1", 80, "host-loopback"),
            listener(HOST, "0.0.0.0", 80, "host-all"),
            listener(BLUE, "::", 80, "blue-dual"),
            listener(RED, "0.0.0.0", 80, "red-all"),
            listener(RED, "172.17.0.3", 80, "red-specific"),
            listener(HOST, "::", 81, "dual"),
            listener(HOST, "0.0.0.0", 81, "four"),
            listener(HOST, "0.0.0.0", 82, "b"),
            listener(HOST, "0.0.0.0", 82, "a"),
            only_v6,
        ]);
        let check = |netns, remote: &str, port, expected: &str| {
            let found = remotes.resolve(netns, &key(ROLE_CLIENT, remote, port));
            let source = if expected == remote { Source::Address } else { Source::Listener };
            assert_eq!(found, Service::new(expected, source), "from {netns} to {remote}:{port}");
        };
        check(HOST, "127.0.0.1", 80, "host-loopback");
        check(HOST, "127.0.0.9", 80, "host-all");
        check(HOST, "10.0.0.5", 80, "host-all");
        check(BLUE, "127.0.0.1", 80, "blue-dual");
        check(BLUE, "::1", 80, "blue-dual");
        check(RED, "127.0.0.1", 80, "red-all");
        check(RED, "::1", 80, "::1");
        check(HOST, "172.17.0.2", 80, "blue-dual");
        check(HOST, "fd00::2", 80, "blue-dual");
        check(BLUE, "172.17.0.3", 80, "red-specific");
        check(BLUE, "172.17.0.1", 80, "host-all");
        check(BLUE, "10.0.0.5", 80, "host-all");
        // The own namespace comes first; from elsewhere the address is in two places.
        check(RED, "172.30.0.1", 80, "red-all");
        check(HOST, "172.30.0.1", 80, "172.30.0.1");
        check(HOST, "fe80::1", 81, "dual");
        check(BLUE, "fe80::99", 80, "fe80::99");
        check(HOST, "10.0.0.5", 81, "four");
        check(HOST, "10.0.0.5", 82, "a");
        check(HOST, "172.17.0.2", 9000, "172.17.0.2");
        check(HOST, "fd00::2", 9000, "six");
        check(HOST, "172.17.0.2", 9999, "172.17.0.2");
        check(HOST, "8.8.8.8", 80, "8.8.8.8");
    }

    #[test]
    fn a_server_is_told_its_client_only_if_there_is_one_candidate() {
        let mut remotes = remotes();
        remotes.set_clients(&[
            client(BLUE, "172.17.0.3", 5432, "shop"),
            client(BLUE, "172.17.0.3", 5432, "shop"),
            client(BLUE, "172.17.0.3", 6379, "shop"),
            client(BLUE, "172.17.0.3", 6379, "cart"),
            client(BLUE, "172.17.0.1", 5432, "other-target"),
            client(RED, "127.0.0.1", 5432, "inside"),
            client(RED, "172.17.0.3", 5432, "inside-by-address"),
            client(RED, "::1", 5432, "inside-six"),
            client(HOST, "8.8.8.8", 53, "resolver"),
        ]);
        let check = |netns, remote: &str, port, expected: &str| {
            let found = remotes.resolve(netns, &key(ROLE_SERVER, remote, port));
            let source = if expected == remote { Source::Address } else { Source::LocalClient };
            assert_eq!(found, Service::new(expected, source), "at {netns} from {remote}:{port}");
        };
        check(RED, "172.17.0.2", 5432, "shop");
        check(RED, "172.17.0.2", 6379, "172.17.0.2");
        check(HOST, "172.17.0.2", 5432, "other-target");
        check(RED, "127.0.0.1", 5432, "inside");
        check(RED, "172.17.0.3", 5432, "inside-by-address");
        check(RED, "::1", 5432, "inside-six");
        check(RED, "172.17.0.1", 5432, "172.17.0.1");
        check(RED, "8.8.8.8", 53, "8.8.8.8");
    }

    #[test]
    fn collapsed_clients_are_the_internet_and_overflow_is_other() {
        let remotes = remotes();
        let mut internet = key(ROLE_SERVER, "::", 80);
        internet.remote = address::INTERNET;
        assert_eq!(remotes.resolve(HOST, &internet), Service::internet());
        assert_eq!(remotes.resolve(HOST, &EdgeKey::zeroed()), Service::other());
        assert_eq!(&*remotes.resolve(HOST, &key(ROLE_LISTENER, "::", 80)).name, "any");
    }

    #[test]
    fn a_full_table_never_makes_a_wrong_name() {
        let mut remotes = remotes();
        let many = |name: &str| client(BLUE, "172.17.0.3", 5432, name);
        let mut clients = vec![many("shop"); MAX_ENTRIES];
        remotes.set_clients(&clients);
        let at = key(ROLE_SERVER, "172.17.0.2", 5432);
        assert_eq!(&*remotes.resolve(RED, &at).name, "shop");
        clients.push(many("cart"));
        remotes.set_clients(&clients);
        assert_eq!(&*remotes.resolve(RED, &at).name, "172.17.0.2");
        assert_eq!(remotes.dropped(), 1);
    }
}
