//! Services registered by hand: names for endpoints that nothing else can name.

use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
pub use notation::Endpoint;

use super::full_name::FullName;
use super::service::Service;

/// Registered services at most.
pub const MOST: usize = 1024;
/// Endpoints of one service at most.
pub const MOST_ENDPOINTS: usize = 64;

/// A registered service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub service: FullName,
    /// Where it is.
    pub endpoints: Vec<Endpoint>,
}

/// All registered services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    services: Vec<Registration>,
    /// By length of prefix, the longest first: network and port → service. A port on any
    /// address has no network.
    prefixes: Vec<(Prefix, HashMap<Endpoint, Service>)>,
}

/// Length of a prefix and family (true = IPv4); `None` is any address.
type Prefix = Option<(u8, bool)>;

/// Why a service is not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Two names for one endpoint.
    #[error(
        "{endpoint} is registered as {service}; unregister that first (portolan services unregister {service})"
    )]
    Taken {
        /// Where.
        endpoint: Endpoint,
        /// Who is there.
        service: FullName,
    },
    /// No endpoint.
    #[error("{0} has no address; give at least one with --address, like 10.1.2.3:443")]
    Nowhere(FullName),
    /// Too many endpoints.
    #[error(
        "{0} has more than {MOST_ENDPOINTS} addresses; write fewer and wider ones, like 10.9.0.0/16"
    )]
    TooManyEndpoints(FullName),
    /// Too many services.
    #[error(
        "{MOST} services are registered already; unregister some that are not needed (`portolan services` lists them)"
    )]
    Full,
    /// Nothing to remove.
    #[error("{0} is not registered; `portolan services` lists what is")]
    NotRegistered(FullName),
}

/// Where its addresses are in the index.
fn prefix(endpoint: &Endpoint) -> Prefix {
    endpoint.network.map(|network| (network.prefix_len(), network.addr().is_ipv4()))
}

// === impl Registry ===

impl Registry {
    /// All, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Registration> {
        self.services.iter()
    }

    /// Adds a service, or gives the one of this name other endpoints.
    pub fn register(&mut self, wanted: Registration) -> Result<(), Refused> {
        let Registration { service, mut endpoints } = wanted;
        endpoints.sort_unstable();
        endpoints.dedup();
        if endpoints.is_empty() {
            return Err(Refused::Nowhere(service));
        }
        if endpoints.len() > MOST_ENDPOINTS {
            return Err(Refused::TooManyEndpoints(service));
        }
        for other in self.services.iter().filter(|other| other.service != service) {
            if let Some(endpoint) = endpoints.iter().find(|one| other.endpoints.contains(one)) {
                let service = other.service.clone();
                return Err(Refused::Taken { endpoint: *endpoint, service });
            }
        }
        let others = self.services.iter().filter(|other| other.service != service).count();
        if others >= MOST {
            return Err(Refused::Full);
        }
        self.services.retain(|other| other.service != service);
        let at = self.services.partition_point(|other| other.service < service);
        self.services.insert(at, Registration { service, endpoints });
        self.index();
        Ok(())
    }

    /// Removes a service and returns it.
    pub fn unregister(&mut self, service: &FullName) -> Result<Registration, Refused> {
        let at = self.services.iter().position(|other| other.service == *service);
        let at = at.ok_or_else(|| Refused::NotRegistered(service.clone()))?;
        let removed = self.services.remove(at);
        self.index();
        Ok(removed)
    }

    /// What is at a port of an address: the longest prefix wins, and with the same one a port
    /// wins over any port.
    pub fn name(&self, address: IpAddr, port: u16) -> Option<&Service> {
        let address = address.to_canonical();
        self.prefixes.iter().find_map(|(prefix, by_endpoint)| {
            let network = match *prefix {
                None => None,
                Some((_, is_v4)) if is_v4 != address.is_ipv4() => return None,
                Some((length, _)) => Some(IpNet::new(address, length).ok()?.trunc()),
            };
            let named = |port| by_endpoint.get(&Endpoint { network, port });
            named(Some(port)).or_else(|| named(None))
        })
    }

    fn index(&mut self) {
        let mut prefixes: HashMap<Prefix, HashMap<Endpoint, Service>> = HashMap::new();
        for Registration { service, endpoints } in &self.services {
            let named = Service::registered(service);
            for endpoint in endpoints {
                let by_endpoint = prefixes.entry(prefix(endpoint)).or_default();
                by_endpoint.insert(*endpoint, named.clone());
            }
        }
        self.prefixes = prefixes.into_iter().collect();
        self.prefixes.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(service: &str, endpoints: &[&str]) -> Registration {
        let endpoints = endpoints.iter().map(|text| text.parse().expect("an endpoint")).collect();
        Registration { service: service.parse().expect("a name"), endpoints }
    }

    fn registry(all: &[(&str, &[&str])]) -> Registry {
        let mut registry = Registry::default();
        for (service, endpoints) in all {
            registry.register(at(service, endpoints)).expect("no contradiction");
        }
        registry
    }

    #[test]
    fn the_longest_prefix_names_an_address() {
        let registry = registry(&[
            ("partner", &["203.0.113.0/24"]),
            ("billing", &["203.0.113.7:443", "[2001:db8::7]:443"]),
            ("acme/db", &["203.0.113.0/24:5432"]),
            ("host", &["203.0.113.9"]),
            ("cassandra", &["9042"]),
            ("everything-six", &["::/0"]),
        ]);
        let check = |address: &str, port, expected: Option<&str>| {
            let found = registry.name(address.parse().expect("an address"), port);
            let found = found.map(|service| FullName::from(service).to_string());
            assert_eq!(found.as_deref(), expected, "{address} {port}");
        };
        check("203.0.113.7", 443, Some("billing"));
        check("203.0.113.7", 80, Some("partner"));
        check("::ffff:203.0.113.7", 443, Some("billing"));
        check("203.0.113.1", 5432, Some("acme/db"));
        check("203.0.113.9", 5432, Some("host"));
        check("198.51.100.1", 443, None);
        check("198.51.100.1", 9042, Some("cassandra"));
        check("2001:db8::7", 443, Some("billing"));
        check("2001:db8::8", 9042, Some("everything-six"));
    }

    #[test]
    fn one_place_has_one_name() {
        let mut registry = registry(&[("a", &["10.0.0.1:80", "10.0.0.0/8"])]);
        let refused = registry.register(at("b", &["10.1.2.3/8"])).expect_err("taken").to_string();
        assert!(refused.starts_with("10.0.0.0/8 is registered as a; unregister"), "{refused}");
        registry.register(at("a", &["10.0.0.1:80"])).expect("its own");
        registry.register(at("b", &["10.1.2.3/8"])).expect("free now");
        assert_eq!(
            registry.unregister(&"a".parse().expect("a name")),
            Ok(at("a", &["10.0.0.1:80"]))
        );
        assert!(registry.unregister(&"a".parse().expect("a name")).is_err());
        assert_eq!(registry.register(at("c", &[])), Err(Refused::Nowhere("c".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_search_would(
            endpoints in proptest::collection::vec((0u32..256, 24u8..=32, proptest::option::of(1u16..4)), 1..20),
            address in 0u32..256, port in 1u16..4,
        ) {
            let mut registry = Registry::default();
            let mut all: Vec<(Endpoint, String)> = Vec::new();
            for (i, (host, length, port)) in endpoints.into_iter().enumerate() {
                let ip = IpAddr::from((0x0a00_0000 | host).to_be_bytes());
                let network = IpNet::new(ip, length).ok();
                let endpoint = Endpoint { network, port }.canonical();
                let name = format!("s{i}");
                let one = Registration {
                    service: name.parse().expect("a name"),
                    endpoints: vec![endpoint],
                };
                if registry.register(one).is_ok() {
                    all.push((endpoint, name));
                }
            }
            let ip = IpAddr::from((0x0a00_0000 | address).to_be_bytes());
            let best = all
                .iter()
                .filter(|(endpoint, _)| endpoint.network.is_some_and(|network| network.contains(&ip)))
                .filter(|(endpoint, _)| endpoint.port.is_none_or(|own| own == port))
                .max_by_key(|(endpoint, _)| (prefix(endpoint), endpoint.port.is_some()))
                .map(|(_, name)| name.as_str());
            let found = registry.name(ip, port).map(|service| &*service.name);
            prop_assert_eq!(found, best);
        }
    }
}
