//! Conflicts: failed binds and listens with their names, as counters and as a list of recent ones.
//!
//! Repetitions for the same reason are one entry with a count. Counters and list are capped:
//! further counters are in `other`, the oldest entries are removed, and a tenant that fills them uses
//! its own share of both: a network namespace, or all that a user has made.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use agent_common::share::{self, BY_USER};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::clash::Reason;
use super::port::{PortState, Protocol};
use super::service::{Service, Source};
use super::unverified::ByUser;

/// Counters at most.
const MAX_TOTALS: usize = 1000;
/// Entries at most.
const MAX_RECENT: usize = 1000;
/// A repetition within this time is the same entry, seconds.
const SAME_WITHIN_SECONDS: f64 = 300.0;

/// Labels of a counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConflictLabels {
    /// The port; 0 = any port was requested.
    pub port: u16,
    /// The protocol; `None` on the overflow row.
    pub protocol: Option<Protocol>,
    /// The service whose bind failed.
    pub claimant: Service,
    /// The service that holds it.
    pub holder: Service,
    /// Name of the errno.
    pub errno: &'static str,
}

/// A process that holds a port or failed to bind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its service.
    pub service: Service,
    /// Its pid on the host, 0 if unknown.
    pub pid: u32,
    /// Its command name; empty if unknown.
    pub command: String,
}

/// The holder of the port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    #[serde(flatten)]
    pub party: Party,
    /// Its address.
    pub address: IpAddr,
    /// How it holds the port.
    pub state: PortState,
    /// Since when, seconds since the Unix epoch; null if it was there before the agent.
    pub since_seconds: Option<f64>,
}

/// Failures of one kind, as one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// When it first happened, seconds since the Unix epoch.
    pub first_seconds: f64,
    /// When it last happened.
    pub last_seconds: f64,
    /// How often.
    pub count: u64,
    /// The service whose bind failed.
    pub claimant: Party,
    /// The port; 0 = any port was requested.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The address.
    pub address: IpAddr,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Whether it was listen that failed, not bind.
    pub by_listen: bool,
    /// Name of the errno.
    pub errno: String,
    /// Whether the errno is inferred.
    pub inferred: bool,
    /// Why.
    pub reason: Reason,
    /// The holder of the port, if it was found.
    pub holder: Option<Holder>,
    /// A free port nearby, as a fix.
    pub next_free: Option<u16>,
    /// The user who may have faked it ([`unverified`](super::unverified)).
    pub unverified_user: Option<u32>,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictTotal {
    /// Its labels.
    pub labels: ConflictLabels,
    /// Its value.
    pub count: u64,
}

/// All of them.
#[derive(Default)]
pub struct Conflicts {
    totals: BTreeMap<ConflictLabels, u64>,
    /// How many of them each network namespace, or user who makes such, has.
    shares: HashMap<u64, u64>,
    recent: VecDeque<Arc<Conflict>>,
    /// Entries that went because there were too many.
    pub dropped: u64,
    /// Failures that users can have made up, which are in no other counter.
    pub unverified: ByUser,
    /// Entries with failures since the last collection, and how many these are.
    grown: Vec<(Arc<Conflict>, u64)>,
}

impl Conflicts {
    /// Counts without an entry: only the fact is known.
    pub fn count_unknown(&mut self, count: u64) {
        *self.totals.entry(ConflictLabels::other()).or_default() += count;
    }

    /// Adds failures since the last collection; returns their entry.
    pub fn add(&mut self, conflict: Conflict, errno: &'static str) -> Arc<Conflict> {
        let count = conflict.count;
        let labels = ConflictLabels {
            port: conflict.port,
            protocol: Some(conflict.protocol),
            claimant: conflict.claimant.service.clone(),
            holder: conflict.holder.as_ref().map_or_else(nobody, |h| h.party.service.clone()),
            errno,
        };
        match conflict.unverified_user {
            Some(user) => self.unverified.add(user, conflict.count),
            None => self.count(labels, conflict.origin(), conflict.count),
        }

        let same = self.recent.iter().rposition(|known| known.takes(&conflict));
        if let Some(mut known) = same.and_then(|at| self.recent.remove(at)) {
            let entry = Arc::make_mut(&mut known);
            entry.count += conflict.count;
            entry.last_seconds = conflict.last_seconds;
            entry.claimant.pid = conflict.claimant.pid;
            entry.next_free = conflict.next_free;
            self.recent.push_back(Arc::clone(&known));
            self.grown.push((Arc::clone(&known), count));
            return known;
        }
        if self.recent.len() >= MAX_RECENT {
            self.drop_oldest();
        }
        let conflict = Arc::new(conflict);
        self.recent.push_back(Arc::clone(&conflict));
        self.grown.push((Arc::clone(&conflict), count));
        conflict
    }

    /// Adds to a counter; to that of all others if there is none yet, and no room in the share.
    fn count(&mut self, labels: ConflictLabels, origin: u64, count: u64) {
        let Self { totals, shares, .. } = self;
        if !totals.contains_key(&labels) {
            let (used, most) = (totals.len(), MAX_TOTALS as u64);
            let mine = shares.get(&origin).copied().unwrap_or_default();
            if used >= MAX_TOTALS || mine >= share::limit(most, used as u64) {
                return self.count_unknown(count);
            }
            shares.insert(origin, mine + 1);
        }
        *totals.entry(labels).or_default() += count;
    }

    /// Drops the oldest entry of the tenant that has most of them.
    fn drop_oldest(&mut self) {
        let mut by_origin: HashMap<u64, usize> = HashMap::new();
        for conflict in &self.recent {
            *by_origin.entry(conflict.origin()).or_default() += 1;
        }
        let most = by_origin.into_iter().max_by_key(|(origin, count)| (*count, *origin));
        let is_theirs =
            |conflict: &Arc<Conflict>| Some(conflict.origin()) == most.map(|(of, _)| of);
        if let Some(at) = self.recent.iter().position(is_theirs) {
            self.recent.remove(at);
            self.dropped += 1;
        }
    }

    /// The entries with failures since the last call, each with how many.
    pub fn take_grown(&mut self) -> Vec<(Arc<Conflict>, u64)> {
        std::mem::take(&mut self.grown)
    }

    /// The counters.
    pub fn totals(&self) -> Vec<ConflictTotal> {
        let totals = self.totals.iter();
        totals
            .map(|(labels, count)| ConflictTotal { labels: labels.clone(), count: *count })
            .collect()
    }

    /// The recent conflicts, in the order of their last occurrence.
    pub fn recent(&self) -> Vec<Arc<Conflict>> {
        self.recent.iter().cloned().collect()
    }
}

impl ConflictLabels {
    fn other() -> Self {
        Self {
            port: 0,
            protocol: None,
            claimant: Service::other(),
            holder: Service::other(),
            errno: "other",
        }
    }
}

impl Conflict {
    /// Whose share it counts against: the network namespace, or the user who makes such.
    pub(super) fn origin(&self) -> u64 {
        self.unverified_user.map_or(u64::from(self.netns), |user| BY_USER | u64::from(user))
    }

    /// Whether `next` is one more of these.
    fn takes(&self, next: &Self) -> bool {
        // By name, because the source of a name may have changed meanwhile.
        let who = |party: &Party| (party.service.name.clone(), party.service.namespace.clone());
        let holder = |conflict: &Self| {
            conflict.holder.as_ref().map(|h| (who(&h.party), h.party.pid, h.address, h.state))
        };
        next.first_seconds - self.last_seconds <= SAME_WITHIN_SECONDS
            && (self.port, self.protocol, self.address, self.netns, self.by_listen, self.reason)
                == (next.port, next.protocol, next.address, next.netns, next.by_listen, next.reason)
            && self.errno == next.errno
            && who(&self.claimant) == who(&next.claimant)
            && holder(self) == holder(next)
    }
}

/// The holder of a port that is free, or whose holder could not be found.
pub(super) fn nobody() -> Service {
    Service::new("none", Source::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(claimant: &str, port: u16, at: f64, count: u64) -> Conflict {
        Conflict {
            first_seconds: at,
            last_seconds: at,
            count,
            claimant: Party {
                service: Service::new(claimant, Source::Process),
                pid: at as u32,
                command: claimant.to_owned(),
            },
            port,
            protocol: Protocol::Tcp,
            address: "0.0.0.0".parse().unwrap(),
            netns: 1,
            by_listen: false,
            errno: "EADDRINUSE".to_owned(),
            inferred: true,
            reason: Reason::Gone,
            holder: None,
            next_free: None,
            unverified_user: None,
        }
    }

    #[test]
    fn quick_retries_are_one_entry_with_a_count() {
        let mut conflicts = Conflicts::default();
        conflicts.add(conflict("db", 5432, 1.0, 3), "EADDRINUSE");
        conflicts.add(conflict("other", 5432, 2.0, 1), "EADDRINUSE");
        conflicts.add(conflict("db", 5432, 3.0, 4), "EADDRINUSE");
        conflicts.add(conflict("db", 5432, 1000.0, 1), "EADDRINUSE");
        let entries: Vec<_> =
            conflicts.recent().iter().map(|c| (c.last_seconds, c.count)).collect();
        assert_eq!(entries, [(2.0, 1), (3.0, 7), (1000.0, 1)]);
        let totals: Vec<_> = conflicts.totals().iter().map(|total| total.count).collect();
        assert_eq!(totals, [8, 1]);
    }

    #[test]
    fn beyond_the_caps_counters_go_to_other_and_the_oldest_entries_go() {
        let mut conflicts = Conflicts::default();
        for port in 1..=1100 {
            // Eleven namespaces: none has more than its share.
            conflicts.add(Conflict { netns: port.into(), ..conflict("db", port, 1.0, 2) }, "E");
        }
        conflicts.count_unknown(5);
        let totals = conflicts.totals();
        assert_eq!(totals.len(), MAX_TOTALS + 1);
        assert_eq!(totals.iter().map(|total| total.count).sum::<u64>(), 2205);
        let other = totals.iter().find(|total| total.labels.protocol.is_none()).unwrap();
        assert_eq!(other.count, 205);
        assert_eq!((conflicts.recent().len(), conflicts.dropped), (MAX_RECENT, 100));
    }

    #[test]
    fn who_has_conflicts_at_every_port_leaves_others_their_counters_and_entries() {
        let mut conflicts = Conflicts::default();
        conflicts.add(conflict("victim", 5432, 1.0, 1), "EADDRINUSE");
        for port in 1..=5000 {
            let flood = Conflict { netns: 2, ..conflict("flood", port, 1.0, 1) };
            conflicts.add(flood, "EADDRINUSE");
        }
        conflicts.add(conflict("victim", 5433, 2.0, 3), "EADDRINUSE");
        let totals = conflicts.totals();
        let of = |name: &str| {
            let theirs = totals.iter().filter(|total| &*total.labels.claimant.name == name);
            theirs.map(|total| total.count).sum::<u64>()
        };
        assert_eq!((of("victim"), of("flood") + of("other")), (4, 5000));
        assert!(totals.len() <= MAX_TOTALS);
        let entries = conflicts.recent();
        let ports: Vec<_> =
            entries.iter().filter(|one| one.netns == 1).map(|one| one.port).collect();
        assert_eq!((ports.as_slice(), entries.len()), (&[5432, 5433][..], MAX_RECENT));
    }
}
