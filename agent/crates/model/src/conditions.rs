//! Conditions of network namespaces by the service that acts in them: connection tracking,
//! interfaces, memory of TCP.
//!
//! Counters of the kernel belong to a namespace or an interface, and end with it. Here they are
//! totals of a name: what a counter grew by since the reading before, so that a total never
//! decreases, whatever namespaces come and go. The first reading of a namespace or an interface is
//! where its counts begin.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

/// What has not been read for so long is forgotten.
const KEEP_US: u64 = 3_600_000_000;
/// Rows that are kept, at most. More than namespaces are read at a time, so none that is there is
/// forgotten.
const MOST_ROWS: usize = 512;
/// Interfaces of a row by name; the rest is [`OTHER`].
const MOST_INTERFACES: usize = 16;
/// Interfaces beyond that.
const OTHER: &str = "other";

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Entries.
    pub used: u64,
    /// Entries at most.
    pub limit: u64,
}

/// Counters of interfaces, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets.
    pub packets: u64,
    /// Packets that were dropped.
    pub drops: u64,
    /// Packets with an error.
    pub errors: u64,
}

/// What TCP did when it was short of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounters {
    /// It went into the state in which it saves memory.
    pub pressures: u64,
    /// It gave up connections.
    pub aborted: u64,
    /// It dropped what sockets had received.
    pub pruned: u64,
}

/// A network namespace as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its inode and its cookie: which one it is.
    pub identity: (u32, Option<u64>),
    /// The service that acts in it.
    pub netns_of: Arc<str>,
    /// Connection tracking, if it is in use there.
    pub conntrack: Option<Fill>,
    /// Interfaces: number, name and counters since the interface was made.
    pub interfaces: Vec<(u32, String, InterfaceCounters)>,
    /// Since the namespace was made.
    pub memory: Option<MemoryCounters>,
}

/// How many namespaces were read, and how many were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Read.
    pub read: u64,
    /// They cannot be entered.
    pub denied: u64,
    /// A user made them who is not trusted.
    pub untrusted: u64,
    /// Beyond the share of a trusted user.
    pub over_share: u64,
    /// Beyond what is read at all.
    pub over_limit: u64,
}

/// The conditions of a service's namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Connection tracking of the fullest of its namespaces.
    pub conntrack: Option<Fill>,
    /// Totals by interface.
    pub interfaces: BTreeMap<String, InterfaceCounters>,
    /// Totals; `None` if no namespace shows them.
    pub memory: Option<MemoryCounters>,
}

/// All rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionsView {
    /// By service.
    pub rows: BTreeMap<Arc<str>, Row>,
    /// Of the last reading; `None` before the first.
    pub coverage: Option<Coverage>,
}

/// The conditions so far.
#[derive(Debug, Default)]
pub struct Conditions {
    namespaces: HashMap<(u32, Option<u64>), Known>,
    rows: HashMap<Arc<str>, (u64, Row)>,
    view: Arc<ConditionsView>,
}

/// What the last reading of a namespace was.
#[derive(Debug, Default)]
struct Known {
    /// When, microseconds.
    at_us: u64,
    interfaces: HashMap<u32, InterfaceCounters>,
    memory: Option<MemoryCounters>,
}

// === impl Fill ===

impl Fill {
    /// The share that is in use.
    pub fn ratio(self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64
    }
}

// === impl InterfaceCounters ===

impl InterfaceCounters {
    /// The growth since an earlier reading.
    fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            drops: self.drops.saturating_sub(earlier.drops),
            errors: self.errors.saturating_sub(earlier.errors),
        }
    }
}

impl AddAssign for InterfaceCounters {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.drops = self.drops.saturating_add(other.drops);
        self.errors = self.errors.saturating_add(other.errors);
    }
}

// === impl MemoryCounters ===

impl MemoryCounters {
    /// The growth since an earlier reading.
    fn since(self, earlier: Self) -> Self {
        Self {
            pressures: self.pressures.saturating_sub(earlier.pressures),
            aborted: self.aborted.saturating_sub(earlier.aborted),
            pruned: self.pruned.saturating_sub(earlier.pruned),
        }
    }
}

impl AddAssign for MemoryCounters {
    fn add_assign(&mut self, other: Self) {
        self.pressures = self.pressures.saturating_add(other.pressures);
        self.aborted = self.aborted.saturating_add(other.aborted);
        self.pruned = self.pruned.saturating_add(other.pruned);
    }
}

// === impl ConditionsView ===

impl ConditionsView {
    /// Conditions of the host's network namespace, and of a container's.
    #[cfg(any(test, feature = "fixture"))]
    pub(super) fn example() -> Self {
        let counters = |packets, drops, errors| InterfaceCounters { packets, drops, errors };
        let host = Row {
            conntrack: Some(Fill { used: 196_608, limit: 262_144 }),
            interfaces: [
                ("eth0".to_owned(), counters(2_000_000, 70, 4)),
                ("veth".to_owned(), counters(1_500_000, 0, 0)),
            ]
            .into(),
            memory: Some(MemoryCounters { pressures: 2, aborted: 1, pruned: 30 }),
        };
        let shop = Row {
            conntrack: None,
            interfaces: [("veth".to_owned(), counters(900, 3, 0))].into(),
            memory: Some(MemoryCounters::default()),
        };
        let coverage = Coverage { read: 2, denied: 1, untrusted: 3, over_share: 0, over_limit: 0 };
        Self {
            rows: [("host".into(), host), ("shop".into(), shop)].into(),
            coverage: Some(coverage),
        }
    }
}

// === impl Conditions ===

impl Conditions {
    /// Takes in what was read at `now_us` (any epoch).
    pub fn update(&mut self, now_us: u64, readings: Vec<Reading>, coverage: Coverage) {
        // A gauge is of now.
        self.rows.values_mut().for_each(|(_, row)| row.conntrack = None);
        for reading in readings {
            self.take(now_us, reading);
        }
        let is_recent = |at_us: u64| now_us.saturating_sub(at_us) < KEEP_US;
        self.namespaces.retain(|_, known| is_recent(known.at_us));
        self.rows.retain(|_, (at_us, _)| is_recent(*at_us));
        let at = self.namespaces.iter().map(|(identity, known)| (known.at_us, *identity));
        for identity in longest_ago(at) {
            self.namespaces.remove(&identity);
        }
        let at = self.rows.iter().map(|(name, (at_us, _))| (*at_us, Arc::clone(name)));
        for name in longest_ago(at) {
            self.rows.remove(&name);
        }
        let rows = self.rows.iter().map(|(name, (_, row))| (Arc::clone(name), row.clone()));
        self.view = Arc::new(ConditionsView { rows: rows.collect(), coverage: Some(coverage) });
    }

    /// All rows.
    pub fn view(&self) -> Arc<ConditionsView> {
        Arc::clone(&self.view)
    }

    fn take(&mut self, now_us: u64, reading: Reading) {
        let Reading { identity, netns_of, conntrack, interfaces, memory } = reading;
        let known = self.namespaces.entry(identity).or_default();
        let (at_us, row) = self.rows.entry(netns_of).or_default();
        (*at_us, known.at_us) = (now_us, now_us);
        let ratio = |fill: Option<Fill>| fill.map_or(-1.0, Fill::ratio);
        if ratio(conntrack) > ratio(row.conntrack) {
            row.conntrack = conntrack;
        }
        let there: HashSet<u32> = interfaces.iter().map(|(index, ..)| *index).collect();
        known.interfaces.retain(|index, _| there.contains(index));
        for (index, name, now) in interfaces {
            let earlier = known.interfaces.insert(index, now).unwrap_or(now);
            row.add(name, now.since(earlier));
        }
        if let Some(now) = memory {
            let earlier = known.memory.replace(now).unwrap_or(now);
            *row.memory.get_or_insert_default() += now.since(earlier);
        }
    }
}

// === impl Row ===

impl Row {
    fn add(&mut self, name: String, growth: InterfaceCounters) {
        let has_room = self.interfaces.len() < MOST_INTERFACES;
        let is_named = has_room || self.interfaces.contains_key(&name);
        let name = if is_named { name } else { OTHER.to_owned() };
        *self.interfaces.entry(name).or_default() += growth;
    }
}

/// What is beyond [`MOST_ROWS`], longest ago first.
fn longest_ago<T: Ord>(all: impl Iterator<Item = (u64, T)>) -> Vec<T> {
    let mut all: Vec<(u64, T)> = all.collect();
    let beyond = all.len().saturating_sub(MOST_ROWS);
    all.sort_unstable();
    all.truncate(beyond);
    all.into_iter().map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE_US: u64 = 60_000_000;

    fn reading(netns: u32, netns_of: &str) -> Reading {
        Reading {
            identity: (netns, Some(u64::from(netns))),
            netns_of: netns_of.into(),
            conntrack: None,
            interfaces: Vec::new(),
            memory: None,
        }
    }

    fn counters(packets: u64, drops: u64, errors: u64) -> InterfaceCounters {
        InterfaceCounters { packets, drops, errors }
    }

    fn drops(conditions: &Conditions, netns_of: &str, interface: &str) -> Option<u64> {
        let view = conditions.view();
        Some(view.rows.get(netns_of)?.interfaces.get(interface)?.drops)
    }

    #[test]
    fn totals_begin_with_the_first_reading_and_outlive_interfaces_and_namespaces() {
        let mut all = Conditions::default();
        let mut at = 0;
        let mut see = |netns: u32, index: u32, dropped: u64, expected: u64| {
            let eth0 = (index, "eth0".to_owned(), counters(1000, dropped, 0));
            let shop = Reading { interfaces: vec![eth0], ..reading(netns, "shop") };
            at += MINUTE_US;
            all.update(at, vec![shop], Coverage::default());
            assert_eq!(drops(&all, "shop", "eth0"), Some(expected), "{netns} {index} {dropped}");
        };
        see(7, 2, 100, 0);
        see(7, 2, 103, 3);
        see(7, 2, 103, 3);
        // Another interface, another namespace of the service: each begins anew, the total stays.
        see(7, 3, 50, 3);
        see(7, 3, 51, 4);
        see(8, 3, 9, 4);
        see(8, 3, 10, 5);
        // It was counted before; meanwhile it dropped one.
        see(7, 3, 52, 6);
        // A counter that the kernel has set back.
        see(7, 3, 0, 6);
        see(7, 3, 1, 7);
    }

    #[test]
    fn another_namespace_with_the_same_number_is_another_one() {
        let mut all = Conditions::default();
        let eth0 = |dropped| vec![(2, "eth0".to_owned(), counters(0, dropped, 0))];
        let first = Reading { interfaces: eth0(5), ..reading(7, "shop") };
        let second =
            Reading { identity: (7, Some(99)), interfaces: eth0(900), ..reading(7, "shop") };
        all.update(1, vec![first], Coverage::default());
        all.update(2, vec![second], Coverage::default());
        assert_eq!(drops(&all, "shop", "eth0"), Some(0));
    }

    #[test]
    fn namespaces_of_a_service_are_one_row_with_the_fullest_table_of_now() {
        let fill = |used| Some(Fill { used, limit: 100 });
        let check = |now: &[(u32, Option<Fill>)], expected: Option<Fill>| {
            let mut all = Conditions::default();
            let full = Reading { conntrack: fill(99), ..reading(9, "shop") };
            all.update(1, vec![full], Coverage::default());
            let one = |(netns, conntrack): &(u32, Option<Fill>)| Reading {
                conntrack: *conntrack,
                ..reading(*netns, "shop")
            };
            all.update(2, now.iter().map(one).collect(), Coverage::default());
            assert_eq!(all.view().rows["shop"].conntrack, expected, "{now:?}");
        };
        check(&[(7, fill(80)), (8, fill(20))], fill(80));
        check(&[(7, fill(0)), (8, None)], fill(0));
        check(&[(7, None)], None);
        // The namespace has ended.
        check(&[], None);
    }

    #[test]
    fn memory_is_counted_from_the_first_reading_that_shows_it() {
        let mut all = Conditions::default();
        let memory = |pruned| Some(MemoryCounters { pruned, ..MemoryCounters::default() });
        for (at, read, expected) in [
            (1, None, None),
            (2, memory(10), memory(0)),
            (3, None, memory(0)),
            (4, memory(12), memory(2)),
        ] {
            let shop = Reading { memory: read, ..reading(7, "shop") };
            all.update(at, vec![shop], Coverage::default());
            assert_eq!(all.view().rows["shop"].memory, expected, "{at}");
        }
    }

    #[test]
    fn what_is_gone_for_an_hour_is_forgotten_and_the_longest_gone_beyond_the_cap() {
        let mut all = Conditions::default();
        all.update(0, vec![reading(1, "gone")], Coverage::default());
        all.update(KEEP_US - 1, vec![reading(2, "here")], Coverage::default());
        assert_eq!(all.view().rows.len(), 2);
        all.update(KEEP_US, vec![reading(2, "here")], Coverage::default());
        let names: Vec<_> = all.view().rows.keys().cloned().collect();
        assert_eq!((names, all.namespaces.len()), (vec!["here".into()], 1));
        for at in 0..2 * MOST_ROWS as u32 {
            let name = format!("pod-{at}");
            all.update(KEEP_US + u64::from(at), vec![reading(at + 3, &name)], Coverage::default());
        }
        assert_eq!((all.view().rows.len(), all.namespaces.len()), (MOST_ROWS, MOST_ROWS));
        let last = format!("pod-{}", 2 * MOST_ROWS - 1);
        assert!(all.view().rows.contains_key(last.as_str()));
        assert!(!all.view().rows.contains_key("here"));
    }

    #[test]
    fn interfaces_beyond_the_cap_are_others_and_their_sum_is_exact() {
        let mut all = Conditions::default();
        let many = |dropped| {
            let one = |index| (index, format!("eth{index}"), counters(0, dropped, 0));
            let interfaces = (0..40).map(one).collect();
            vec![Reading { interfaces, ..reading(7, "host") }]
        };
        all.update(1, many(0), Coverage::default());
        all.update(2, many(2), Coverage::default());
        let view = all.view();
        let interfaces = &view.rows["host"].interfaces;
        assert_eq!(interfaces.len(), MOST_INTERFACES + 1);
        assert_eq!(interfaces.values().map(|one| one.drops).sum::<u64>(), 80);
        assert_eq!(interfaces[OTHER].drops, 2 * (40 - MOST_INTERFACES as u64));
    }

    proptest! {
        /// Whatever is read in which order, no total decreases while its row is there.
        #[test]
        fn totals_never_decrease(
            steps in prop::collection::vec((0u32..3, 0u32..3, 0u64..100, 0u8..2), 1..60),
        ) {
            let mut all = Conditions::default();
            let mut before = (0, 0);
            for (at, (netns, index, value, name)) in steps.into_iter().enumerate() {
                let one = (index, format!("eth{name}"), counters(value, value, value));
                let memory = MemoryCounters { pressures: value, aborted: value, pruned: value };
                let shop = Reading {
                    interfaces: vec![one],
                    memory: Some(memory),
                    ..reading(netns, "shop")
                };
                all.update(at as u64, vec![shop], Coverage::default());
                let view = all.view();
                let row = &view.rows["shop"];
                let packets = row.interfaces.values().map(|one| one.packets).sum::<u64>();
                let now = (packets, row.memory.map_or(0, |memory| memory.aborted));
                prop_assert!(now.0 >= before.0 && now.1 >= before.1);
                before = now;
            }
        }
    }
}
