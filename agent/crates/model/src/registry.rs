//! Services registered by hand: names for endpoints that no source identifies.
//!
//! Time is an argument (seconds since the Unix epoch). An endpoint with a time to live that was not
//! renewed no longer belongs to its service. Its name stays for another hour, so that failures
//! while the service is down still have it.

mod refused;
mod registration;

use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
pub use notation::{Check, Endpoint};

pub use self::refused::Refused;
pub use self::registration::{Lease, Registration};
use super::full_name::FullName;
use super::service::Service;

/// Maximum number of registered services.
pub const MOST: usize = 1024;
/// Maximum number of endpoints of one service.
pub const MOST_ENDPOINTS: usize = 64;
/// The shortest time to live, seconds: less would end between two rounds of checks.
pub const LEAST_TTL: u64 = 5;
/// The longest one, seconds: a year.
pub const MOST_TTL: u64 = 365 * 24 * 60 * 60;
/// How long an endpoint that was not renewed is remembered, seconds.
pub const REMEMBERED: u64 = 60 * 60;

/// All registered services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    services: Vec<Registration>,
    /// By length of prefix, the longest first: network and port → service. A port on any
    /// address has no network.
    prefixes: Vec<(Prefix, HashMap<Endpoint, Named>)>,
}

/// The names of a registry at a moment, seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    registry: &'a Registry,
    now: u64,
}

/// The name of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    service: Service,
    /// Until when, seconds since the Unix epoch.
    until: Option<u64>,
}

/// Length of a prefix and family (true = IPv4); `None` is any address.
type Prefix = Option<(u8, bool)>;

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

    /// Adds a service, or gives the one of this name other endpoints. Endpoints that have expired
    /// by `now` do not conflict.
    pub fn register(&mut self, mut wanted: Registration, now: u64) -> Result<(), Refused> {
        wanted.check()?;
        self.expire(now);
        for other in self.services.iter().filter(|other| other.service != wanted.service) {
            let mut taken = wanted.endpoints.iter().filter(|one| other.endpoints.contains(one));
            if let Some(endpoint) = taken.find(|one| other.is_in_force(one, now)) {
                let service = other.service.clone();
                return Err(Refused::Taken { endpoint: *endpoint, service });
            }
        }
        let others = self.services.iter().filter(|other| other.service != wanted.service).count();
        if others >= MOST {
            return Err(Refused::Full);
        }
        self.services.retain(|other| other.service != wanted.service);
        for other in &mut self.services {
            other.endpoints.retain(|one| !wanted.endpoints.contains(one));
        }
        self.services.retain(|other| !other.endpoints.is_empty());
        let at = self.services.partition_point(|other| other.service < wanted.service);
        self.services.insert(at, wanted);
        self.index();
        Ok(())
    }

    /// Renews an endpoint for its time to live. Returns whether the service has the endpoint and it
    /// has a time to live.
    pub fn renew(&mut self, service: &FullName, endpoint: &Endpoint, now: u64) -> bool {
        let found = self.services.iter_mut().find(|one| one.service == *service);
        let Some(found) = found.filter(|one| one.endpoints.contains(endpoint)) else {
            return false;
        };
        let Some(Lease { ttl, until }) = &mut found.lease else { return false };
        until.insert(*endpoint, now.saturating_add(*ttl));
        self.index();
        true
    }

    /// Forgets endpoints an hour after they should have been renewed, and services without others.
    pub fn expire(&mut self, now: u64) {
        for one in &mut self.services {
            let remembered =
                one.endpoints.iter().filter(|endpoint| one.is_remembered(endpoint, now));
            one.endpoints = remembered.copied().collect();
        }
        self.services.retain(|one| !one.endpoints.is_empty());
        self.index();
    }

    /// Removes a service and returns it.
    pub fn unregister(&mut self, service: &FullName) -> Result<Registration, Refused> {
        let at = self.services.iter().position(|other| other.service == *service);
        let at = at.ok_or_else(|| Refused::NotRegistered(service.clone()))?;
        let removed = self.services.remove(at);
        self.index();
        Ok(removed)
    }

    /// The names at `now`.
    #[must_use]
    pub const fn at(&self, now: u64) -> At<'_> {
        At { registry: self, now }
    }

    fn index(&mut self) {
        let mut prefixes: HashMap<Prefix, HashMap<Endpoint, Named>> = HashMap::new();
        for one in &self.services {
            let service = Service::registered(&one.service);
            for endpoint in &one.endpoints {
                let by_endpoint = prefixes.entry(prefix(endpoint)).or_default();
                let until = one.named_until(endpoint);
                by_endpoint.insert(*endpoint, Named { service: service.clone(), until });
            }
        }
        self.prefixes = prefixes.into_iter().collect();
        self.prefixes.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    }
}

// === impl At ===

impl<'a> At<'a> {
    /// What is at a port of an address: the longest prefix wins, and with the same one a port
    /// wins over any port.
    #[must_use]
    pub fn name(self, address: IpAddr, port: u16) -> Option<&'a Service> {
        let address = address.to_canonical();
        self.registry.prefixes.iter().find_map(|(prefix, by_endpoint)| {
            let network = match *prefix {
                None => None,
                Some((_, is_v4)) if is_v4 != address.is_ipv4() => return None,
                Some((length, _)) => Some(IpNet::new(address, length).ok()?.trunc()),
            };
            let named = |port| {
                let found = by_endpoint.get(&Endpoint { network, port })?;
                found.until.is_none_or(|until| until > self.now).then_some(&found.service)
            };
            named(Some(port)).or_else(|| named(None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(service: &str, endpoints: &[&str]) -> Registration {
        let endpoints = endpoints.iter().map(|text| text.parse().expect("an endpoint")).collect();
        Registration::new(service.parse().expect("a name"), endpoints)
    }

    /// The same with a time to live, seconds, from `now` on.
    fn for_seconds(ttl: u64, now: u64, service: &str, endpoints: &[&str]) -> Registration {
        let one = at(service, endpoints);
        Registration { lease: Some(Lease::new(ttl, &one.endpoints, now)), ..one }
    }

    fn registry(all: &[(&str, &[&str])]) -> Registry {
        let mut registry = Registry::default();
        for (service, endpoints) in all {
            registry.register(at(service, endpoints), 0).expect("no contradiction");
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
            let found = registry.at(0).name(address.parse().expect("an address"), port);
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
        let refused =
            registry.register(at("b", &["10.1.2.3/8"]), 0).expect_err("taken").to_string();
        assert!(refused.starts_with("10.0.0.0/8 is registered as a; unregister"), "{refused}");
        registry.register(at("a", &["10.0.0.1:80"]), 0).expect("its own");
        registry.register(at("b", &["10.1.2.3/8"]), 0).expect("free now");
        assert_eq!(
            registry.unregister(&"a".parse().expect("a name")),
            Ok(at("a", &["10.0.0.1:80"]))
        );
        assert!(registry.unregister(&"a".parse().expect("a name")).is_err());
        assert_eq!(registry.register(at("c", &[]), 0), Err(Refused::Nowhere("c".parse().unwrap())));
    }

    #[test]
    fn an_endpoint_that_is_not_renewed_is_in_nobodys_way_and_keeps_its_name_for_an_hour() {
        let (one, other) = ("10.0.0.1:80", "10.0.0.2:80");
        let api = "api".parse().expect("a name");
        let mut registry = Registry::default();
        registry.register(for_seconds(30, 100, "api", &[one, other]), 100).expect("free");
        let in_force = |registry: &Registry, now| {
            let found = registry.iter().flat_map(|found| {
                found.endpoints.iter().filter(move |endpoint| found.is_in_force(endpoint, now))
            });
            found.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(in_force(&registry, 129), [one, other]);
        let renewed = |registry: &mut Registry, endpoint: &str, now| {
            registry.renew(&api, &endpoint.parse().expect("an endpoint"), now)
        };
        assert!(renewed(&mut registry, one, 120));
        assert!(!renewed(&mut registry, "10.0.0.3:80", 120), "it is not there");
        assert_eq!(in_force(&registry, 130), [one]);
        assert_eq!(in_force(&registry, 150), Vec::<String>::new());
        // Down, it has its name, and comes back.
        let named = |registry: &Registry, now| {
            registry
                .at(now)
                .name("10.0.0.2".parse().expect("an address"), 80)
                .map(|it| it.name.to_string())
        };
        assert_eq!(named(&registry, 130 + REMEMBERED - 1).as_deref(), Some("api"));
        assert_eq!(named(&registry, 130 + REMEMBERED), None);
        assert!(renewed(&mut registry, other, 200));
        assert_eq!(in_force(&registry, 229), [other]);
        // Another service takes an endpoint that has expired, and not one that is in force.
        let refused =
            registry.register(at("new", &[other]), 229).expect_err("in force").to_string();
        assert!(refused.contains("is registered as api"), "{refused}");
        registry.register(at("new", &[other]), 230).expect("it is over");
        assert!(!renewed(&mut registry, other, 231), "it is another's");
        assert_eq!(in_force(&registry, 231), [other]);
        registry.expire(150 + REMEMBERED - 1);
        assert_eq!(registry.iter().count(), 2);
        registry.expire(150 + REMEMBERED);
        let left: Vec<_> = registry.iter().map(|one| one.service.to_string()).collect();
        assert_eq!(left, ["new"]);
        assert!(
            !registry.renew(&"new".parse().expect("a name"), &other.parse().unwrap(), 0),
            "no TTL"
        );
    }

    #[test]
    fn only_sockets_are_checked_and_times_to_live_have_bounds() {
        let refused = |one: Registration| {
            Registry::default().register(one, 0).expect_err("refused").to_string()
        };
        for nowhere in ["10.0.0.0/8:80", "10.0.0.1", "80"] {
            let one =
                Registration { check: Some(Check::Tcp), ..at("api", &["10.0.0.1:80", nowhere]) };
            let why = refused(one);
            assert!(
                why.contains(&format!("api cannot be checked at {nowhere}; a check needs")),
                "{why}"
            );
        }
        for ttl in [0, LEAST_TTL - 1, MOST_TTL + 1] {
            let why = refused(for_seconds(ttl, 0, "api", &["10.0.0.1"]));
            assert!(why.contains("write one from 5s to 365d"), "{why}");
        }
        let one = Registration {
            check: Some(Check::Tcp),
            ..for_seconds(LEAST_TTL, 0, "api", &["10.0.0.1:80", "[fd00::1]:80"])
        };
        Registry::default().register(one, 0).expect("both can be");
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
                let one = Registration::new(name.parse().expect("a name"), vec![endpoint]);
                if registry.register(one, 0).is_ok() {
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
            let found = registry.at(0).name(ip, port).map(|service| &*service.name);
            prop_assert_eq!(found, best);
        }
    }
}
