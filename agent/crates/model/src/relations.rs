//! Who did what with whom, by backend: what balance and map are made from.
//!
//! A relation is a pair of services, the server's port, the side that saw it, and the backend: the
//! one address behind the server's name that was really connected to. Slots feed relations by what
//! they grew since the last drain, so a late name, a slot used again or a second slot of the same
//! name neither lose nor repeat anything ([`Attributed`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent_common::address::{self, INTERNET, UNSPECIFIED};
use agent_common::edge::{EdgeCounters, FIRST_FREE_SLOT, ROLE_CLIENT, ROLE_SERVER, ROLE_UNKNOWN};
use agent_common::wire::Wire as _;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::attributed::{Attributed, Name};
use super::hashed::{Hashed, Sought};
use super::per_slot::PerSlot;
use super::service::{Service, Source};
use super::sides::Sides;
use super::slot::Told;
use super::snapshot::{EdgeLabels, Role};
use super::tally::{History, Tally};
use agent_common::drained::Edge;

/// Relations at most.
const MAX_RELATIONS: usize = 16_384;
/// Backends of one server for one client at most; further ones are one, `other`.
pub(super) const MAX_BACKENDS: usize = 64;

/// A service's name, without how it was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceName {
    /// Where the name is unique; empty on a plain host.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// Who connects to whom, by names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ends {
    /// Who connects.
    pub client: Arc<str>,
    /// Where that name is unique; empty on a plain host.
    pub client_namespace: Arc<str>,
    /// Who is connected to.
    pub server: Arc<str>,
    /// Where that name is unique; empty on a plain host.
    pub server_namespace: Arc<str>,
    /// The server's port.
    pub port: u16,
}

/// The address behind a server's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// The server's address and port.
    Address(SocketAddr),
    /// Those beyond the cap, and connections that found no row.
    Other,
}

/// What makes a relation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relation {
    /// Who connects.
    pub client: ServiceName,
    /// Who is connected to.
    pub server: ServiceName,
    /// The server's port; 0 for those that found no row.
    pub port: u16,
    /// Which side saw it.
    pub role: Role,
    /// Whether its connections are counted here, and not by the other side on this host.
    pub counts: bool,
    /// Whether the server is a service with a name of its own, which may have several backends.
    pub named: bool,
    /// Which backend.
    pub backend: Backend,
}

/// All relations at one moment.
#[derive(Clone, Debug, Default)]
pub struct RelationsView {
    /// When, in seconds of the clock that histories are kept by.
    pub now: u64,
    /// Since when totals count, by the same clock.
    pub since: u64,
    /// Every relation in which something happened, in no order.
    pub rows: Vec<(Relation, Arc<History>)>,
    /// Slots, over time, whose relation found no row of its own.
    pub folded: u64,
}

/// Keeps relations up to date.
pub struct Relations {
    started_us: u64,
    since_us: u64,
    slots: PerSlot<Slot>,
    rows: Attributed<Relation, History>,
    backends: HashMap<Hashed<Group>, HashSet<Backend>>,
    generation: u64,
    /// Whether rows may have ended, so that `backends` must be made anew.
    renamed: bool,
}

/// Whose backends are capped together.
type Group = (ServiceName, ServiceName, u16, Role);

struct Slot {
    born_us: u64,
    labels: Arc<EdgeLabels>,
    counters: Arc<EdgeCounters>,
    counts: bool,
    others: u32,
    generation: u64,
}

// === impl Relations ===

impl Relations {
    /// Nothing seen yet; the agent started at `now_us` (CLOCK_MONOTONIC).
    pub fn new(now_us: u64) -> Self {
        Self {
            started_us: now_us,
            since_us: now_us,
            slots: PerSlot::default(),
            rows: Attributed::new(MAX_RELATIONS),
            backends: HashMap::new(),
            generation: 0,
            renamed: false,
        }
    }

    /// Takes in the edges of a drain at `now_us`; `told` is what a slot has told so far.
    pub fn update<'a>(
        &mut self,
        now_us: u64,
        edges: &[Edge],
        sides: &Sides,
        told: impl Fn(u32) -> Option<Told<'a>>,
    ) {
        self.generation += 1;
        self.rows.advance(now_us / 1_000_000);
        for edge in edges {
            if let Some(told) = told(edge.slot) {
                self.take(now_us, edge, sides, told);
            }
        }
        let Self { slots, rows, backends, generation, renamed, .. } = self;
        slots.retain(|slot, known| {
            let stays = known.generation == *generation;
            if !stays {
                rows.release(slot);
                *renamed = true;
            }
            stays
        });
        if std::mem::take(renamed) {
            backends.clear();
            for (relation, _) in rows.iter() {
                backends.entry(Hashed::new(relation.group())).or_default().insert(relation.backend);
            }
        }
    }

    /// What is known now.
    pub fn view(&self, now_us: u64) -> RelationsView {
        let moved = self.rows.iter().filter(|(_, history)| !history.total.is_empty());
        let rows = moved.map(|(relation, history)| (relation.clone(), Arc::clone(history)));
        RelationsView {
            now: now_us / 1_000_000,
            since: self.since_us / 1_000_000,
            rows: rows.collect(),
            folded: self.rows.folded(),
        }
    }

    fn take(&mut self, now_us: u64, edge: &Edge, sides: &Sides, told: Told<'_>) {
        let Told { labels, counters, others } = told;
        let is_overflow = edge.slot < FIRST_FREE_SLOT;
        let role = if is_overflow { edge.slot as u8 } else { edge.key.role };
        let connects = match role {
            ROLE_UNKNOWN => is_overflow,
            ROLE_CLIENT | ROLE_SERVER => is_overflow || edge.key.remote != UNSPECIFIED,
            _ => false,
        };
        if !connects {
            return;
        }
        // A server's overflow row may repeat what a client's row has.
        let counts = if is_overflow { role != ROLE_SERVER } else { sides.counts(edge) };
        let before = self.slots.get_mut(edge.slot).filter(|slot| slot.born_us == edge.born_us);
        let known = before.is_some();
        let is_another = before.as_ref().is_some_and(|slot| slot.others != others);
        let tally = match before {
            // The same values as long as nothing has changed.
            Some(slot) if Arc::ptr_eq(&slot.counters, counters) => {
                if Arc::ptr_eq(&slot.labels, labels) && slot.counts == counts {
                    slot.generation = self.generation;
                    return;
                }
                Tally::default()
            }
            Some(slot) => Tally::between(&slot.counters, counters),
            None => Tally::between(&EdgeCounters::zeroed(), counters),
        };
        if !known {
            self.rows.release(edge.slot);
        }
        let mut relation = Relation::new(edge, counts, labels);
        if is_overflow {
            relation.backend = Backend::Other;
        }
        self.cap(&mut relation);
        if self.rows.assign(edge.slot, &relation, is_another) {
            self.renamed = true;
            // Those that found no row are no backends: the table of these is bounded by that of rows.
            if self.rows.contains(&relation) {
                self.backends
                    .entry(Hashed::new(relation.group()))
                    .or_default()
                    .insert(relation.backend);
            }
        }

        // Rows that an earlier agent left pinned: nobody knows when that happened. (Overflow rows
        // are not born; they are empty at a fresh start.)
        let is_earlier = !known && edge.born_us < self.started_us && self.generation == 1;
        if is_earlier && !is_overflow {
            self.since_us = self.since_us.min(edge.born_us);
        }
        if !tally.is_empty()
            && let Some(history) = self.rows.value_mut(edge.slot)
        {
            if is_earlier {
                history.add_earlier(&tally);
            } else {
                history.add(now_us / 1_000_000, &tally);
            }
        }
        let slot = Slot {
            born_us: edge.born_us,
            labels: Arc::clone(labels),
            counters: Arc::clone(counters),
            counts,
            others,
            generation: self.generation,
        };
        self.slots.insert(edge.slot, slot);
    }

    /// Folds a backend into `other` if its server has too many for this client.
    fn cap(&self, relation: &mut Relation) {
        let is_full = self.backends.get(&Sought::new(&relation.group())).is_some_and(|backends| {
            backends.len() >= MAX_BACKENDS && !backends.contains(&relation.backend)
        });
        if is_full {
            relation.backend = Backend::Other;
        }
    }
}

// === impl Relation ===

impl Relation {
    fn new(edge: &Edge, counts: bool, labels: &EdgeLabels) -> Self {
        let EdgeLabels { client, server, port, role, asked: _ } = labels;
        let server_address = match edge.key.role {
            ROLE_CLIENT => edge.key.remote,
            _ => edge.local,
        };
        let named = match server.source {
            Source::Address | Source::Internet => false,
            // The row of those that found none is a name, too: sums need it.
            _ => true,
        };
        Self {
            client: ServiceName::from(client),
            server: ServiceName::from(server),
            port: *port,
            role: *role,
            counts,
            named,
            backend: Backend::new(server_address, *port),
        }
    }

    fn group(&self) -> Group {
        (self.client.clone(), self.server.clone(), self.port, self.role)
    }
}

impl Name for Relation {
    fn other() -> Self {
        let other = ServiceName::from(&Service::other());
        Self {
            client: other.clone(),
            server: other,
            port: 0,
            role: Role::Unknown,
            counts: true,
            named: true,
            backend: Backend::Other,
        }
    }
}

// === impl Backend ===

impl Backend {
    fn new(server: address::Address, port: u16) -> Self {
        if server == UNSPECIFIED || server == INTERNET {
            return Self::Other;
        }
        Self::Address(SocketAddr::new(address::to_ip(server), port))
    }

    /// Its address and port, if it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Other => None,
        }
    }

    /// Its address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()),
            Self::Other => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Other => f.write_str("other"),
        }
    }
}

// === impl ServiceName ===

impl From<&Service> for ServiceName {
    fn from(service: &Service) -> Self {
        Self { namespace: Arc::clone(&service.namespace), name: Arc::clone(&service.name) }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

// === impl Ends ===

impl Ends {
    /// From two names.
    pub fn new(client: ServiceName, server: ServiceName, port: u16) -> Self {
        Self {
            client: client.name,
            client_namespace: client.namespace,
            server: server.name,
            server_namespace: server.namespace,
            port,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
