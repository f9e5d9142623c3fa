//! Names that programs of this host have resolved by DNS, by address.
//!
//! A name belongs to the network namespace that resolved it: others may have other servers. It is
//! the queried name, not the target of a CNAME. Names expire with their time to live, but not
//! before [`FLOOR_SECONDS`], as programs keep addresses for longer, and not while an edge leads
//! there. An address with several names keeps the first until that expires, so that labels do not
//! alternate.
//!
//! Every tenant has a share: the network namespaces that one user has made, or one namespace of the
//! host ([`agent_common::share`]). Who fills it loses the own names that were resolved longest ago; when all shares together
//! fill the table, the largest one gives way.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use agent_common::address::{self, Address};
use hashbrown::{HashMap, HashSet};

use agent_common::decode::dns::Answer;
use model::service::{Entity, Service, Source};
use model::snapshot::{SourceState, SourceView};

/// Addresses with names at most, of all tenants.
pub const MAX_NAMES: usize = 16_384;
/// Addresses of one tenant at most.
pub const MAX_OF_TENANT: usize = MAX_NAMES / 4;
/// So many of the oldest names are looked through for one that no edge needs.
const SPARED: usize = 16;
/// Shortest lifetime of a name: Java caches addresses for this long by default.
const FLOOR_SECONDS: u64 = 30;
/// Longest lifetime of a name that is not resolved again.
const CEILING_SECONDS: u64 = 24 * 60 * 60;

/// The resolved names.
#[derive(Default)]
pub(super) struct Resolved {
    names: HashMap<(u32, Address), Name>,
    /// The same by tenant, those first that were resolved longest ago.
    shares: HashMap<u64, BTreeSet<(u64, u32, Address)>>,
    /// How many names there were so far: it orders them.
    latest: u64,
    round: u64,
    now_us: u64,
    answers: u64,
    malformed: u64,
    dropped: u64,
}

struct Name {
    text: Arc<str>,
    until_us: u64,
    /// The round in which an edge led there.
    needed: u64,
    tenant: u64,
    /// When it was resolved last, in the order of all.
    order: u64,
    /// The same, CLOCK_MONOTONIC microseconds.
    at_us: u64,
}

// === impl Resolved ===

impl Resolved {
    /// Adds the DNS responses since the last call; `now_us` is the current time.
    pub(super) fn learn(&mut self, answers: &[Answer], malformed: u64, now_us: u64) {
        self.malformed += malformed;
        self.now_us = now_us;
        self.round += 1;
        // An edge that used a name in the last round is taken to be still there.
        let (now, round) = (self.now_us, self.round);
        let shares = &mut self.shares;
        self.names.retain(|key, name| {
            let stays = now < name.until_us || name.needed + 1 >= round;
            if !stays {
                release(shares, *key, name);
            }
            stays
        });
        for answer in answers {
            self.answers += 1;
            let name: Arc<str> = answer.resolution.name.as_str().into();
            for (ip, ttl) in &answer.resolution.addresses {
                if is_host_address(*ip) {
                    let seconds = u64::from(*ttl).clamp(FLOOR_SECONDS, CEILING_SECONDS);
                    let until_us = answer.time_ns / 1000 + seconds * 1_000_000;
                    let key = (answer.netns, address::from_ip(*ip));
                    self.put(key, &name, (answer.time_ns / 1000, until_us), answer.origin);
                }
            }
        }
    }

    /// The name of an address, as namespace `netns` has resolved it.
    pub(super) fn name(&mut self, netns: u32, address: Address) -> Option<(Service, Entity)> {
        let known = self.names.get_mut(&(netns, address))?;
        known.needed = self.round;
        Some((Service::new(&known.text, Source::Dns), Entity::of(&known.text)))
    }

    /// Another namespace has the number of each of these, since `since_us` (microseconds) at the
    /// earliest: what was resolved before was resolved in the former one.
    pub(super) fn forget(&mut self, namespaces: &HashSet<u32>, since_us: u64) {
        if namespaces.is_empty() {
            return;
        }
        let shares = &mut self.shares;
        self.names.retain(|key, name| {
            let stays = !namespaces.contains(&key.0) || name.at_us >= since_us;
            if !stays {
                release(shares, *key, name);
            }
            stays
        });
    }

    /// Counters and size, for the status.
    pub(super) fn view(&self) -> SourceView {
        SourceView {
            name: "dns".to_owned(),
            state: SourceState::Up,
            detail: None,
            entries: self.names.len() as u64,
            dropped: self.dropped,
            lookups: self.answers + self.malformed,
            errors: self.malformed,
        }
    }

    fn put(&mut self, key: (u32, Address), name: &Arc<str>, valid_us: (u64, u64), tenant: u64) {
        let (at_us, until_us) = valid_us;
        self.latest += 1;
        let Self { names, shares, latest, now_us, .. } = self;
        if let Some(known) = names.get_mut(&key) {
            if known.text == *name {
                known.until_us = known.until_us.max(until_us);
            } else if *now_us >= known.until_us {
                known.text = name.clone();
                known.until_us = until_us;
            } else {
                return;
            }
            release(shares, key, known);
            (known.tenant, known.order, known.at_us) = (tenant, *latest, at_us);
            shares.entry(tenant).or_default().insert((*latest, key.0, key.1));
            return;
        }
        let share = shares.get(&tenant).map_or(0, BTreeSet::len);
        if share >= MAX_OF_TENANT {
            self.evict(tenant);
        } else if names.len() >= MAX_NAMES {
            let others = shares.iter().map(|(tenant, names)| (names.len(), *tenant));
            let largest = others.max().filter(|(largest, _)| *largest > share);
            self.evict(largest.map_or(tenant, |(_, largest)| largest));
        }
        let Self { names, shares, latest, .. } = self;
        shares.entry(tenant).or_default().insert((*latest, key.0, key.1));
        let (text, order) = (name.clone(), *latest);
        names.insert(key, Name { text, until_us, needed: 0, tenant, order, at_us });
    }

    /// Forgets the name of a tenant that was resolved longest ago, if possible one that no edge
    /// needs.
    fn evict(&mut self, tenant: u64) {
        let Some(share) = self.shares.get(&tenant) else { return };
        let key = |(_, netns, address): &(u64, u32, Address)| (*netns, *address);
        let is_free = |key: &(u32, Address)| {
            self.names.get(key).is_none_or(|name| name.needed + 1 < self.round)
        };
        let mut oldest = share.iter().take(SPARED).map(key);
        let first = share.first().map(key);
        let Some(key) = oldest.find(is_free).or(first) else { return };
        if let Some(name) = self.names.remove(&key) {
            release(&mut self.shares, key, &name);
            self.dropped += 1;
        }
    }
}

/// Takes a name out of its tenant's share.
fn release(
    shares: &mut HashMap<u64, BTreeSet<(u64, u32, Address)>>,
    (netns, address): (u32, Address),
    name: &Name,
) {
    if let Some(share) = shares.get_mut(&name.tenant) {
        share.remove(&(name.order, netns, address));
        if share.is_empty() {
            shares.remove(&name.tenant);
        }
    }
}

/// Whether an address can belong to a host. DNS filters answer with addresses that mean "blocked"
/// or "this host"; they name nothing.
fn is_host_address(ip: IpAddr) -> bool {
    let is_broadcast = ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::decode::dns::Resolution;
    use agent_common::share::BY_USER;

    const SECOND_US: u64 = 1_000_000;
    const USER: u64 = BY_USER + 1500;

    fn ip(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().unwrap())
    }

    /// A response for `name` that namespace `netns` got at `second`.
    /// Every namespace is of the host, but from 100 on one user has made all.
    fn answer_of(netns: u32, second: u64, name: &str, addresses: &[(&str, u32)]) -> Answer {
        let addresses = addresses.iter().map(|(ip, ttl)| (ip.parse().unwrap(), *ttl)).collect();
        let resolution = Resolution { name: name.to_owned(), addresses };
        let origin = if netns < 100 { netns.into() } else { USER };
        Answer { netns, origin, time_ns: second * 1_000_000_000, resolution }
    }

    fn learn(resolved: &mut Resolved, answers: &[Answer], now_us: u64) {
        resolved.learn(answers, 0, now_us);
    }

    fn name(resolved: &mut Resolved, netns: u32, address: &str) -> Option<String> {
        resolved.name(netns, ip(address)).map(|(service, _)| service.name.to_string())
    }

    #[test]
    fn a_name_belongs_to_the_namespace_that_asked() {
        let mut resolved = Resolved::default();
        let answers = [
            answer_of(1, 0, "db.example", &[("10.0.0.1", 60), ("2001:db8::1", 60)]),
            answer_of(2, 0, "other.example", &[("10.0.0.1", 60)]),
        ];
        learn(&mut resolved, &answers, 0);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("db.example"));
        assert_eq!(name(&mut resolved, 1, "2001:db8::1").as_deref(), Some("db.example"));
        assert_eq!(name(&mut resolved, 2, "10.0.0.1").as_deref(), Some("other.example"));
        assert_eq!(name(&mut resolved, 3, "10.0.0.1"), None);
        assert_eq!((resolved.names.len(), resolved.answers), (3, 2));
    }

    #[test]
    fn names_live_for_their_ttl_and_not_less_than_programs_keep_them() {
        let mut resolved = Resolved::default();
        learn(&mut resolved, &[answer_of(1, 0, "brief", &[("10.0.0.1", 0)])], 0);
        learn(&mut resolved, &[answer_of(1, 0, "long", &[("10.0.0.2", 100)])], 0);
        learn(&mut resolved, &[answer_of(1, 0, "ever", &[("10.0.0.3", u32::MAX)])], 0);
        for (second, expected) in [(29, 3), (30, 2), (99, 2), (100, 1), (86_399, 1), (86_400, 0)] {
            learn(&mut resolved, &[], second * SECOND_US);
            assert_eq!(resolved.names.len(), expected, "after {second} seconds");
        }
        assert!(resolved.shares.is_empty());
    }

    #[test]
    fn a_name_stays_while_an_edge_leads_there() {
        let mut resolved = Resolved::default();
        learn(&mut resolved, &[answer_of(1, 0, "db", &[("10.0.0.1", 1)])], 0);
        for second in 1..100 {
            learn(&mut resolved, &[], second * SECOND_US);
            assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("db"));
        }
        // Another service has the address now, and a program has resolved it.
        learn(&mut resolved, &[answer_of(1, 100, "next", &[("10.0.0.1", 1)])], 100 * SECOND_US);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("next"));
        learn(&mut resolved, &[], 131 * SECOND_US);
        learn(&mut resolved, &[], 132 * SECOND_US);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1"), None);
    }

    #[test]
    fn of_several_names_the_first_that_lives_counts() {
        let mut resolved = Resolved::default();
        learn(&mut resolved, &[answer_of(1, 0, "first", &[("10.0.0.1", 40)])], 0);
        learn(&mut resolved, &[answer_of(1, 1, "second", &[("10.0.0.1", 40)])], SECOND_US);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("first"));
        // Resolved again: its lifetime is extended.
        learn(&mut resolved, &[answer_of(1, 30, "first", &[("10.0.0.1", 40)])], 30 * SECOND_US);
        learn(&mut resolved, &[answer_of(1, 60, "second", &[("10.0.0.1", 40)])], 60 * SECOND_US);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("first"));
        learn(&mut resolved, &[answer_of(1, 71, "second", &[("10.0.0.1", 40)])], 71 * SECOND_US);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("second"));
    }

    #[test]
    fn addresses_that_mean_blocked_or_this_host_get_no_name() {
        let mut resolved = Resolved::default();
        let nowhere = ["0.0.0.0", "127.0.0.1", "::", "::1", "224.0.0.1", "255.255.255.255"];
        learn(&mut resolved, &[answer_of(1, 0, "ads.example", &nowhere.map(|ip| (ip, 60)))], 0);
        assert_eq!(resolved.names.len(), 0);
    }

    /// Answers for `count` addresses from `first` on, to namespaces from `netns` on in turn.
    fn flood(netns: std::ops::Range<u32>, first: u32, count: u32) -> Vec<Answer> {
        let answer = |n: u32| {
            let address = std::net::Ipv4Addr::from(first + n).to_string();
            let netns = netns.start + n % (netns.end - netns.start);
            answer_of(netns, 0, &format!("n{n}"), &[(&address, 60)])
        };
        (0..count).map(answer).collect()
    }

    #[test]
    fn who_asks_for_everything_loses_the_own_oldest_names_but_those_that_edges_need() {
        let mut resolved = Resolved::default();
        let own = [answer_of(1, 0, "own", &[("10.0.0.1", 60)])];
        learn(&mut resolved, &own, 0);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("own"));
        let count = 100_000;
        learn(&mut resolved, &flood(1..2, 0x0b00_0000, count), SECOND_US);
        assert_eq!(resolved.names.len(), MAX_OF_TENANT);
        assert_eq!(resolved.dropped, 1 + u64::from(count) - MAX_OF_TENANT as u64);
        assert_eq!(name(&mut resolved, 1, "10.0.0.1").as_deref(), Some("own"));
        assert_eq!(name(&mut resolved, 1, "11.0.0.1"), None);
        let newest = std::net::Ipv4Addr::from(0x0b00_0000 + count - 1).to_string();
        assert!(name(&mut resolved, 1, &newest).is_some());
    }

    #[test]
    fn floods_cost_no_other_tenant_a_name_however_many_namespaces_they_come_from() {
        let mut resolved = Resolved::default();
        let victims: Vec<_> = (0..50)
            .map(|n| answer_of(2, 0, &format!("db{n}"), &[(&format!("10.0.0.{n}"), 60)]))
            .collect();
        learn(&mut resolved, &victims, 0);
        // Six tenants with a namespace each fill the table; one with a thousand has one share.
        for netns in 10..16 {
            learn(&mut resolved, &flood(netns..netns + 1, 0x0b00_0000, 10_000), SECOND_US);
        }
        learn(&mut resolved, &flood(100..1100, 0x0c00_0000, 50_000), SECOND_US);
        assert_eq!(resolved.names.len(), MAX_NAMES);
        let shares: usize = resolved.shares.values().map(BTreeSet::len).sum();
        assert_eq!(shares, MAX_NAMES);
        for n in 0..50 {
            let expected = format!("db{n}");
            assert_eq!(name(&mut resolved, 2, &format!("10.0.0.{n}")), Some(expected));
        }
        assert!(resolved.shares.get(&USER).is_some_and(|share| share.len() > MAX_NAMES / 10));
    }
}
