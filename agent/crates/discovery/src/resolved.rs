//! Names that programs of this host have resolved by DNS, by address.
//!
//! A name belongs to the network namespace that resolved it: others may have other servers. It is
//! the queried name, not the target of a CNAME. Names expire with their time to live, but not
//! before [`FLOOR_SECONDS`], as programs keep addresses for longer, and not while an edge leads
//! there. An address with several names keeps the first until that expires, so that labels do not
//! alternate.

use std::net::IpAddr;
use std::sync::Arc;

use agent_common::address::{self, Address};
use hashbrown::HashMap;

use agent_common::decode::dns::Answer;
use model::service::{Entity, Service, Source};
use model::snapshot::{SourceState, SourceView};

/// Addresses with names at most, of all namespaces.
pub const MAX_NAMES: usize = 16_384;
/// Addresses of one namespace at most.
pub const MAX_OF_NAMESPACE: usize = MAX_NAMES / 4;
/// Shortest lifetime of a name: Java caches addresses for this long by default.
const FLOOR_SECONDS: u64 = 30;
/// Longest lifetime of a name that is not resolved again.
const CEILING_SECONDS: u64 = 24 * 60 * 60;

/// The resolved names.
#[derive(Default)]
pub(super) struct Resolved {
    names: HashMap<(u32, Address), Name>,
    of_namespace: HashMap<u32, usize>,
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
        let counts = &mut self.of_namespace;
        self.names.retain(|(netns, _), name| {
            let stays = now < name.until_us || name.needed + 1 >= round;
            if !stays {
                release(counts, *netns);
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
                    self.put((answer.netns, address::from_ip(*ip)), &name, until_us);
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

    fn put(&mut self, key: (u32, Address), name: &Arc<str>, until_us: u64) {
        if let Some(known) = self.names.get_mut(&key) {
            if known.text == *name {
                known.until_us = known.until_us.max(until_us);
            } else if self.now_us >= known.until_us {
                known.text = name.clone();
                known.until_us = until_us;
            }
            return;
        }
        let of_namespace = self.of_namespace.get(&key.0).copied().unwrap_or_default();
        if self.names.len() >= MAX_NAMES || of_namespace >= MAX_OF_NAMESPACE {
            self.dropped += 1;
            return;
        }
        self.of_namespace.insert(key.0, of_namespace + 1);
        self.names.insert(key, Name { text: name.clone(), until_us, needed: 0 });
    }
}

fn release(counts: &mut HashMap<u32, usize>, netns: u32) {
    if let Some(count) = counts.get_mut(&netns) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&netns);
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

    const SECOND_US: u64 = 1_000_000;

    fn ip(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().unwrap())
    }

    /// A response for `name` that namespace `netns` got at `second`.
    fn answer_of(netns: u32, second: u64, name: &str, addresses: &[(&str, u32)]) -> Answer {
        let addresses = addresses.iter().map(|(ip, ttl)| (ip.parse().unwrap(), *ttl)).collect();
        let resolution = Resolution { name: name.to_owned(), addresses };
        Answer { netns, time_ns: second * 1_000_000_000, resolution }
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
        assert!(resolved.of_namespace.is_empty());
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

    #[test]
    fn one_namespace_that_asks_for_everything_leaves_room_for_others() {
        let mut resolved = Resolved::default();
        let flood: Vec<_> = (0..1_000_000_u32)
            .map(|n| {
                answer_of(
                    1,
                    0,
                    &format!("n{n}"),
                    &[(&std::net::Ipv4Addr::from(0x0b00_0000 + n).to_string(), 60)],
                )
            })
            .collect();
        learn(&mut resolved, &flood, 0);
        assert_eq!(resolved.names.len(), MAX_OF_NAMESPACE);
        assert_eq!(resolved.dropped, 1_000_000 - MAX_OF_NAMESPACE as u64);
        learn(&mut resolved, &[answer_of(2, 0, "db", &[("10.0.0.1", 60)])], 0);
        assert_eq!(name(&mut resolved, 2, "10.0.0.1").as_deref(), Some("db"));
    }
}
