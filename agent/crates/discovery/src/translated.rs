//! Where the connections of clients went, as connection tracking has shown it so far.
//!
//! An edge keeps no ports of clients, so a connection is found in the list of the kernel
//! ([`Routes`]) and attributed to its client: the owner whose note has its port, else the only
//! client of that namespace that connects there. A connection leaves the kernel's list some minutes
//! after its end, but its edge stays; so what was seen is kept as long as an edge needs it, up to a
//! share for each namespace.
//!
//! For the server's side, the same connections show which client is behind an address that a
//! backend sees.

mod intake;
mod room;

use agent_common::address::Address;
use hashbrown::{HashMap, HashSet};

use super::connections::{Route, Routes};
use super::found::Found;
use linux::conntrack::End;
use model::service::Entity;

/// Entries of one namespace at most.
pub const MAX_OF_NAMESPACE: usize = 4096;
/// Entries at most.
pub const MAX_ENTRIES: usize = 65_536;

/// A client's edge: its owner row, namespace, remote address and port.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ClientEdge {
    netns: u32,
    requested: End,
}

/// A server's row of an address: the server's namespace and port, and the client's address there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ServerEdge {
    netns: u32,
    port: u16,
    client: Address,
}

/// A place that connections of a client went to.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The client, if it is known.
    owner: Option<u32>,
    /// The address and port that answered.
    pub backend: End,
    /// The namespace in which the connection was tracked last.
    pub netns: u32,
    /// The service found there last.
    pub found: Option<Found>,
    /// Different services were found there.
    pub several: bool,
    /// The last list with such a connection.
    seen: u64,
    /// The collection in which an edge or a connection needed it last.
    needed: u64,
}

/// Where a client's connections to an address went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No known translation: to the address itself.
    Untranslated,
    /// To these places, by their positions in [`Translated::ways_mut`].
    Ways(Vec<usize>),
    /// Some connections to it are translated, but not where this client's went.
    Unknown,
}

/// What is known of the clients at a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Callers {
    /// Known ones, by owner row, with their last names.
    pub known: HashMap<u32, Found>,
    /// Connections of unknown clients.
    unknown: HashSet<Unexplained>,
    /// Whether there are more unknown ones.
    has_many: bool,
    needed: u64,
}

/// A connection of an unknown client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Unexplained {
    /// The namespace in which it was tracked, and the client's address there: which namespace that
    /// belongs to may be known later.
    tracked_in: u32,
    client: Address,
    requested: End,
    backend: End,
}

/// What the core knows of clients of this host.
pub(super) trait Clients {
    /// The namespace and the name of an owner that has edges as a client.
    fn of_row(&self, owner: u32) -> Option<(u32, &Found)>;

    /// All owners of a namespace that connect to an address and port, if they are few.
    fn all(&self, netns: u32, requested: End) -> Option<&[u32]>;

    /// The namespace that an address belongs to, seen from another one.
    fn namespace_of(&self, netns: u32, address: Address) -> Option<u32>;

    /// Whether any user may have made a network namespace.
    fn is_tenants(&self, netns: u32) -> bool;
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Translated {
    number: u64,
    /// Collections so far.
    round: u64,
    ways: HashMap<ClientEdge, Vec<Way>>,
    callers: HashMap<ServerEdge, Callers>,
    of_namespace: HashMap<u32, usize>,
    entries: usize,
    /// Namespaces with entries that did not fit.
    incomplete: HashSet<u32>,
    fronts: HashSet<End>,
    dropped: u64,
}

// === impl Translated ===

impl Translated {
    /// Begins a collection: takes in the last list, unless that was done before.
    pub(super) fn learn(&mut self, routes: &Routes, clients: &impl Clients) {
        self.round += 1;
        if routes.number == self.number {
            return;
        }
        self.number = routes.number;
        self.forget();
        // Known connections explain the others.
        let is_known = |route: &&Route| route.owner.is_some_and(|of| clients.of_row(of).is_some());
        let (known, rest): (Vec<_>, Vec<_>) = routes.routes.iter().partition(is_known);
        for route in known.into_iter().chain(rest) {
            self.take(route, clients);
        }
        self.explain_earlier(clients);
        self.fronts = self
            .ways
            .iter()
            .filter(|(edge, ways)| ways.iter().any(|way| way.backend != edge.requested))
            .map(|(edge, _)| edge.requested)
            .collect();
    }

    /// The number of the last list.
    pub(super) fn last_list(&self) -> u64 {
        self.number
    }

    /// Whether connections to this address and port were translated anywhere.
    pub(super) fn is_front(&self, requested: End) -> bool {
        self.fronts.contains(&requested)
    }

    /// Where connections of an owner in a namespace went.
    pub(super) fn answer(&mut self, netns: u32, owner: u32, requested: End) -> Answer {
        let round = self.round;
        let Some(ways) = self.ways.get_mut(&ClientEdge { netns, requested }) else {
            let is_incomplete = self.incomplete.contains(&netns) && self.is_front(requested);
            return if is_incomplete { Answer::Unknown } else { Answer::Untranslated };
        };
        for way in ways.iter_mut() {
            way.needed = round;
        }
        if ways.iter().all(|way| way.backend == requested) {
            return Answer::Untranslated;
        }
        let of = |wanted: fn(Option<u32>, u32) -> bool| {
            ways.iter().enumerate().filter(move |(_, way)| wanted(way.owner, owner))
        };
        let own: Vec<_> = of(|of, owner| of == Some(owner)).collect();
        let unknown: Vec<_> = of(|of, _| of.is_none()).collect();
        let others: Vec<_> = of(|of, owner| of.is_some_and(|of| of != owner)).collect();
        // A connection without a known client may be one of another client that was seen to go
        // there.
        let is_another = |way: &Way| others.iter().any(|(_, other)| other.backend == way.backend);
        let relevant: Vec<usize> = if !own.is_empty() {
            let unexplained = unknown.into_iter().filter(|(_, way)| !is_another(way));
            own.into_iter().chain(unexplained).map(|(at, _)| at).collect()
        } else if !unknown.is_empty() {
            (0..ways.len()).collect()
        } else {
            return Answer::Unknown;
        };
        let is_direct = |at: &usize| ways.get(*at).is_some_and(|way| way.backend == requested);
        if relevant.iter().all(is_direct) {
            return Answer::Untranslated;
        }
        Answer::Ways(relevant)
    }

    /// The places of a namespace's connections to an address.
    pub(super) fn ways(&self, netns: u32, requested: End) -> &[Way] {
        self.ways.get(&ClientEdge { netns, requested }).map_or(&[], Vec::as_slice)
    }

    /// The same.
    pub(super) fn ways_mut(&mut self, netns: u32, requested: End) -> &mut [Way] {
        self.ways.get_mut(&ClientEdge { netns, requested }).map_or(&mut [], Vec::as_mut_slice)
    }

    /// An owner's row was freed; its next owner is a different one.
    pub(super) fn forget_owner(&mut self, owner: u32) {
        self.ways.retain(|_, ways| {
            ways.retain(|way| way.owner != Some(owner));
            !ways.is_empty()
        });
        self.callers.retain(|_, callers| {
            callers.known.remove(&owner);
            callers.has_others() || !callers.known.is_empty()
        });
    }

    /// The clients that a server in a namespace sees at an address.
    pub(super) fn callers(
        &mut self,
        netns: u32,
        port: u16,
        client: Address,
    ) -> Option<&mut Callers> {
        let round = self.round;
        let callers = self.callers.get_mut(&ServerEdge { netns, port, client })?;
        callers.needed = round;
        Some(callers)
    }

    /// Number of entries that did not fit.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

// === impl Callers ===

impl Callers {
    /// Whether there are unknown ones.
    pub(super) fn has_others(&self) -> bool {
        self.has_many || !self.unknown.is_empty()
    }
}

// === impl Way ===

impl Way {
    /// Takes in the service found at the backend now. Without recent connections only a better name
    /// of the same service counts, because another one may have the address by now. A provisional
    /// name of another service never replaces an earlier one.
    pub(super) fn update(&mut self, last_list: u64, found: Option<Found>) {
        let Some(found) = found else { return };
        let is_same = |known: &Found| {
            known.service.is_called_as(&found.service)
                || (known.entity != Entity::UNKNOWN && known.entity == found.entity)
        };
        match &self.found {
            Some(known) if is_same(known) => {}
            Some(_) if !found.stable || self.seen != last_list => return,
            Some(known) => self.several |= known.entity.differs(found.entity),
            None => {}
        }
        self.found = Some(found);
    }

    /// The service that answered, if it was a single one.
    pub(super) fn one(&self) -> Option<&Found> {
        self.found.as_ref().filter(|_| !self.several)
    }
}
