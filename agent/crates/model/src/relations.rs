//! Relations between services by backend, from which balance and map are computed.
//!
//! A relation is a pair of services, the server's port, the side that counted, and the backend: the
//! address behind the server's name that was really connected to. Edges add their growth since the
//! last collection ([`Delta`]); late names and several edges of the same name neither lose nor
//! repeat anything ([`Attributed`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent_common::address::{self, INTERNET, UNSPECIFIED};
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER, ROLE_UNKNOWN};
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use super::attributed::{Attributed, Counted, Counts, Name};
use super::delta::{Delta, EdgeId};
use super::hashed::HashedMap;
use super::service::{Service, Source};
use super::snapshot::{EdgeLabels, Role};
use super::tally::{History, Merge as _, Tally};

/// Relations at most.
const MAX_RELATIONS: usize = 16_384;
/// Maximum number of backends of one server for one client; further ones share `other`.
pub(super) const MAX_BACKENDS: usize = 64;

/// A service's name, without how it was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceName {
    /// Where the name is unique; empty on a plain host.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// Client and server, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ends {
    /// The client.
    pub client: Arc<str>,
    /// Where that name is unique; empty on a plain host.
    pub client_namespace: Arc<str>,
    /// The server.
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
    /// Backends beyond the cap, and connections of overflow rows.
    Other,
}

/// The key of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relation {
    /// The client.
    pub client: ServiceName,
    /// The server.
    pub server: ServiceName,
    /// The server's port; 0 for those that found no row.
    pub port: u16,
    /// Which side saw it.
    pub role: Role,
    /// Whether its connections are counted on this side, and not on the other one of this host.
    pub counts: bool,
    /// Whether the server has a name of its own, and so may have several backends.
    pub named: bool,
    /// Which backend.
    pub backend: Backend,
}

/// All relations at one time.
#[derive(Clone, Debug, Default)]
pub struct RelationsView {
    /// Time in seconds of the clock of histories.
    pub now: u64,
    /// Since when totals count, by the same clock.
    pub since: u64,
    /// Every relation in which something happened, in no order.
    pub rows: Vec<(Relation, Arc<History>)>,
    /// Edges, over time, whose relation did not fit into the table.
    pub folded: u64,
}

/// Updates the relations.
pub struct Relations {
    started_us: u64,
    since_us: u64,
    rows: Attributed<Relation, Arc<History>>,
    backends: Backends,
    /// Whether no drain was taken in yet.
    is_first: bool,
}

/// Backends of each server for each client.
#[derive(Default)]
struct Backends(HashedMap<Group, HashSet<Backend>>);

/// The growth that an edge adds to a history.
pub(crate) struct Done {
    tally: Tally,
    /// Time in seconds; `None` for events before the agent started.
    at: Option<u64>,
}

/// The key of a cap on backends.
type Group = (ServiceName, ServiceName, u16, Role);

// === impl Relations ===

impl Relations {
    /// Nothing seen yet; the agent started at `now_us` (CLOCK_MONOTONIC).
    pub fn new(now_us: u64) -> Self {
        Self {
            started_us: now_us,
            since_us: now_us,
            rows: Attributed::new(MAX_RELATIONS, MAX_RELATIONS),
            backends: Backends::default(),
            is_first: true,
        }
    }

    /// Takes in a drain at `now_us`.
    pub fn update<'a>(
        &mut self,
        now_us: u64,
        closed: &[EdgeId],
        deltas: impl IntoIterator<Item = &'a Delta>,
    ) {
        let Self { started_us, since_us, rows, backends, is_first } = self;
        let now = now_us / 1_000_000;
        let counted = deltas.into_iter().filter_map(|delta| {
            let mut name = Relation::new(delta)?;
            backends.cap(&mut name);
            // Rows that an earlier agent left pinned: the time of their events is unknown.
            // (Overflow rows have no `born_us`; they are empty at a fresh start.)
            let is_earlier = *is_first && delta.is_new && delta.born_us < *started_us;
            if is_earlier && !delta.is_overflow {
                *since_us = delta.born_us.min(*since_us);
            }
            let done = Done { tally: Tally::of(&delta.grown), at: (!is_earlier).then_some(now) };
            let is_another = delta.is_another();
            Some(Counted { edge: delta.id, name, is_another, growth: done })
        });
        let is_other_set = rows.update(now, closed, counted);
        *is_first = false;
        if is_other_set {
            backends.0.clear();
            for (relation, _) in rows.iter() {
                backends.insert(relation);
            }
        }
    }

    /// The current relations for readers.
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
}

// === impl Backends ===

impl Backends {
    /// Replaces a backend by `other` if its server has too many for this client.
    fn cap(&mut self, relation: &mut Relation) {
        let known = self.0.get(&relation.group());
        if known
            .is_some_and(|known| known.len() >= MAX_BACKENDS && !known.contains(&relation.backend))
        {
            relation.backend = Backend::Other;
        }
        self.insert(relation);
    }

    fn insert(&mut self, relation: &Relation) {
        self.0.or_default(relation.group()).insert(relation.backend);
    }
}

// === impl Relation ===

impl Relation {
    /// `None` for an edge without connections, and one that a user can have made up.
    fn new(delta: &Delta) -> Option<Self> {
        let is_connection = match delta.role {
            ROLE_UNKNOWN => delta.is_overflow,
            ROLE_CLIENT | ROLE_SERVER => delta.is_overflow || delta.key.remote != UNSPECIFIED,
            _ => false,
        };
        if !is_connection || delta.labels.unverified_user.is_some() {
            return None;
        }
        let EdgeLabels { client, server, port, role, virtual_service: _, unverified_user: _ } =
            &*delta.labels;
        let server_address = match delta.role {
            ROLE_CLIENT => delta.key.remote,
            _ => delta.local,
        };
        let named = match server.source {
            Source::Address | Source::Internet => false,
            // The row of those that found none is a name, too: sums need it.
            _ => true,
        };
        Some(Self {
            client: ServiceName::from(client),
            server: ServiceName::from(server),
            port: *port,
            role: *role,
            counts: delta.counts,
            named,
            backend: if delta.is_overflow {
                Backend::Other
            } else {
                Backend::new(server_address, *port)
            },
        })
    }

    fn group(&self) -> Group {
        (self.client.clone(), self.server.clone(), self.port, self.role)
    }
}

impl Name for Relation {
    fn other(&self) -> Self {
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

// === impl Done ===

impl Counts for Arc<History> {
    type Growth = Done;
    type Left = ();

    fn grow(&mut self, Done { tally, at }: Done) {
        if tally.is_empty() {
            return;
        }
        let history = Arc::make_mut(self);
        match at {
            Some(now) => history.add(now, &tally),
            None => history.add_earlier(&tally),
        }
    }

    fn merge(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else {
            Arc::make_mut(self).merge(&other);
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
