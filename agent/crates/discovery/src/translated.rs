//! Where the connections of clients went, as connection tracking has shown it so far.
//!
//! An edge keeps no ports of clients, so a connection is found in the list of the kernel
//! ([`Routes`]) and counted for its client: for the owner whose note is under its port, else for the
//! only client of that namespace that connects there. A connection leaves the kernel's list some
//! minutes after its end, but its edge stays; so what was seen is kept as long as an edge needs it,
//! up to a share for each namespace.
//!
//! For the other end the same connections say which client is behind an address that a backend sees.
//!
//! Long because what one list says of both ends is taken in, explained and forgotten together.

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
/// Unknown clients of a server's address that are kept apart.
const MAX_UNKNOWN: usize = 16;
/// After this many collections without an edge or a connection an entry is forgotten.
const KEPT_ROUNDS: u64 = 2;

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
    /// Who was found there last.
    pub found: Option<Found>,
    /// Different ones were found there.
    pub several: bool,
    /// The list that had such a connection last.
    seen: u64,
    /// The collection in which an edge or a connection needed it last.
    needed: u64,
}

/// Where a client's connections to an address went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No translation is known of: to the address itself.
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
    /// Connections of unknown ones.
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

/// The memory.
#[derive(Default)]
pub(super) struct Translated {
    number: u64,
    /// Collections so far.
    round: u64,
    ways: HashMap<ClientEdge, Vec<Way>>,
    callers: HashMap<ServerEdge, Callers>,
    of_namespace: HashMap<u32, usize>,
    entries: usize,
    /// Namespaces of which something found no room.
    incomplete: HashSet<u32>,
    fronts: HashSet<End>,
    dropped: u64,
}

// === impl Translated ===

impl Translated {
    /// A collection begins; takes in the last list, unless it did before.
    pub(super) fn learn(&mut self, routes: &Routes, clients: &impl Clients) {
        self.round += 1;
        if routes.number == self.number {
            return;
        }
        self.number = routes.number;
        self.forget();
        // What is known explains the rest.
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
        // A connection of nobody known is one of another client that was seen to go there.
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

    /// An owner's row was given back: the next owner of it is another.
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

    /// Entries that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn take(&mut self, route: &Route, clients: &impl Clients) {
        let of_owner = route.owner.and_then(|owner| Some((owner, clients.of_row(owner)?.0)));
        // The owner of a namespace can leave notes there for any addresses.
        let of_owner = of_owner.filter(|(_, netns)| {
            !clients.is_tenants(*netns)
                || clients.namespace_of(route.netns, route.client) == Some(*netns)
        });
        let netns = match of_owner {
            Some((_, netns)) => Some(netns),
            None => clients.namespace_of(route.netns, route.client),
        };
        let owner = match (of_owner, netns) {
            (Some((owner, _)), _) => Some(owner),
            (None, Some(netns)) => self.explain(netns, route.requested, route.backend, clients),
            (None, None) => None,
        };
        if let Some(netns) = netns {
            self.take_way(ClientEdge { netns, requested: route.requested }, owner, route);
        }
        let Some(server) = clients.namespace_of(route.backend_netns, route.backend.0) else {
            return;
        };
        // Who sees the client's own address is told by the client's note.
        if route.differs_at_the_backend() {
            let edge = ServerEdge { netns: server, port: route.backend.1, client: route.seen_as };
            let is_own = clients.namespace_of(route.backend_netns, route.seen_as).is_some();
            let unknown = Unexplained {
                tracked_in: route.netns,
                client: route.client,
                requested: route.requested,
                backend: route.backend,
            };
            self.take_caller(edge, owner, unknown, is_own, clients);
        }
    }

    fn take_way(&mut self, edge: ClientEdge, owner: Option<u32>, route: &Route) {
        let (number, round) = (self.number, self.round);
        let (backend, netns) = (route.backend, route.backend_netns);
        let is_it = |way: &&mut Way| way.owner == owner && way.backend == backend;
        if let Some(way) = self.ways.get_mut(&edge).and_then(|ways| ways.iter_mut().find(is_it)) {
            (way.seen, way.needed, way.netns) = (number, round, netns);
            return;
        }
        if !self.has_room(edge.netns) {
            self.incomplete.insert(edge.netns);
            return;
        }
        let way =
            Way { owner, backend, netns, found: None, several: false, seen: number, needed: round };
        self.ways.entry(edge).or_default().push(way);
    }

    /// `is_own`: the server sees an address of this host.
    fn take_caller(
        &mut self,
        edge: ServerEdge,
        owner: Option<u32>,
        unknown: Unexplained,
        is_own: bool,
        clients: &impl Clients,
    ) {
        let known = owner.and_then(|owner| Some((owner, clients.of_row(owner)?.1.clone())));
        // An unknown client at an address of its own is named by that anyway.
        let is_new = !self.callers.contains_key(&edge);
        if is_new && ((known.is_none() && !is_own) || !self.has_room(edge.netns)) {
            return;
        }
        let callers = self.callers.entry(edge).or_default();
        callers.needed = self.round;
        match known {
            Some((owner, found)) if callers.known.len() < MAX_OF_NAMESPACE => {
                callers.known.insert(owner, found);
            }
            _ if callers.unknown.len() < MAX_UNKNOWN || callers.unknown.contains(&unknown) => {
                callers.unknown.insert(unknown);
            }
            _ => callers.has_many = true,
        }
    }

    /// The client of a connection without a note: the only one of its namespace that connects
    /// there; or the only one that was seen to go to that backend, if it is known of all where
    /// they go.
    fn explain(
        &self,
        netns: u32,
        requested: End,
        backend: End,
        clients: &impl Clients,
    ) -> Option<u32> {
        let owners = clients.all(netns, requested)?;
        if let [only] = owners {
            return Some(*only);
        }
        let ways = self.ways(netns, requested);
        let of = |owner: u32| ways.iter().filter(move |way| way.owner == Some(owner));
        if owners.iter().any(|owner| of(*owner).next().is_none()) {
            return None;
        }
        let mut there = owners.iter().filter(|owner| of(**owner).any(|way| way.backend == backend));
        there.next().copied().filter(|_| there.next().is_none())
    }

    /// Explains connections of earlier lists: of before the agent, whose edges came later.
    fn explain_earlier(&mut self, clients: &impl Clients) {
        let unknown = |(edge, ways): (&ClientEdge, &Vec<Way>)| {
            let unknown = ways.iter().filter(|way| way.owner.is_none());
            unknown.map(|way| (*edge, way.backend)).collect::<Vec<_>>()
        };
        let unknown: Vec<_> = self.ways.iter().flat_map(unknown).collect();
        for (edge, backend) in unknown {
            let Some(owner) = self.explain(edge.netns, edge.requested, backend, clients) else {
                continue;
            };
            let Some(ways) = self.ways.get_mut(&edge) else { continue };
            let is_there =
                ways.iter().any(|way| way.owner == Some(owner) && way.backend == backend);
            ways.retain(|way| !(is_there && way.owner.is_none() && way.backend == backend));
            for way in ways.iter_mut().filter(|way| way.owner.is_none() && way.backend == backend) {
                way.owner = Some(owner);
            }
        }
        let mut callers = std::mem::take(&mut self.callers);
        for callers in callers.values_mut() {
            let Callers { known, unknown, .. } = callers;
            unknown.retain(|one| {
                let netns = clients.namespace_of(one.tracked_in, one.client);
                let owner = netns
                    .and_then(|netns| self.explain(netns, one.requested, one.backend, clients));
                let found = owner.and_then(|owner| Some((owner, clients.of_row(owner)?.1.clone())));
                let is_unknown = found.is_none();
                known.extend(found);
                is_unknown
            });
        }
        self.callers = callers;
    }

    /// Counts an entry, if there is room.
    fn has_room(&mut self, netns: u32) -> bool {
        let of_namespace = self.of_namespace.entry(netns).or_default();
        if *of_namespace >= MAX_OF_NAMESPACE || self.entries >= MAX_ENTRIES {
            self.dropped += 1;
            return false;
        }
        *of_namespace += 1;
        self.entries += 1;
        true
    }

    /// Makes room: for what no edge and no connection has needed for some time, and for places of
    /// which the same is known as of later ones, as a Service changes its pods.
    fn forget(&mut self) {
        let oldest = self.round.saturating_sub(KEPT_ROUNDS);
        self.ways.retain(|_, ways| {
            ways.retain(|way| way.needed >= oldest);
            ways.sort_by_key(|way| std::cmp::Reverse(way.seen));
            let latest = ways.first().map_or(0, |way| way.seen);
            let mut known = HashSet::new();
            ways.retain(|way| {
                let name = way.found.as_ref().filter(|_| !way.several);
                let name = name.map(|found| (way.owner, way.netns, found.service.clone()));
                let is_new = name.is_none_or(|name| known.insert(name));
                is_new || way.seen == latest
            });
            !ways.is_empty()
        });
        self.callers.retain(|_, callers| callers.needed >= oldest);
        self.of_namespace.clear();
        for (edge, ways) in &self.ways {
            *self.of_namespace.entry(edge.netns).or_default() += ways.len();
        }
        for edge in self.callers.keys() {
            *self.of_namespace.entry(edge.netns).or_default() += 1;
        }
        self.entries = self.of_namespace.values().sum();
        // What is left out of this list is found out again.
        self.incomplete.clear();
        self.dropped = 0;
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
    /// Takes in who is found at the backend now. Of one without connections of late only the same
    /// under a better name, as another may have its address by now; and nobody's provisional name
    /// instead of a former one.
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

    /// Who answered, if that was one.
    pub(super) fn one(&self) -> Option<&Found> {
        self.found.as_ref().filter(|_| !self.several)
    }
}
