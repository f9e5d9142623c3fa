//! Takes in a list of connections, for both ends, and finds the clients of connections without a
//! note.

use linux::conntrack::End;

use super::{
    Callers, ClientEdge, Clients, MAX_OF_NAMESPACE, ServerEdge, Translated, Unexplained, Way,
};
use crate::connections::Route;

/// Maximum number of unknown clients that are kept apart per server's address.
const MAX_UNKNOWN: usize = 16;

impl Translated {
    pub(super) fn take(&mut self, route: &Route, clients: &impl Clients) {
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
        // A server that sees the client's own address knows it from the client's note.
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

    /// Finds the clients of connections in earlier lists: those from before the agent's start,
    /// whose edges came later.
    pub(super) fn explain_earlier(&mut self, clients: &impl Clients) {
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
}
