//! The server that a client has connected to: the service at an address and port.

use std::sync::Arc;

use agent_common::address::Address;
use agent_common::edge::EdgeKey;

use super::Remotes;
use crate::addresses::by_address;
use crate::found::{Found, agreed, found_by};
use crate::inventory::{Inventory, Workload};
use crate::listener::Listener;
use crate::rules::Rules;
use crate::translated::Answer;
use model::service::{Entity, Service, Source};

// === impl Remotes ===

impl Remotes {
    /// The server that a client has connected to.
    pub(super) fn server(
        &mut self,
        netns: u32,
        key: &EdgeKey,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Found {
        let (remote, port) = (key.remote, key.port);
        if let Some(service) = rules.address(remote) {
            return Found::new(service);
        }
        let frontend = inventories.iter().find_map(|inventory| inventory.frontend(remote, port));
        let answer = self.translated.answer(netns, key.owner, (remote, port));
        let answered = match &answer {
            Answer::Ways(ways) => self.answered(netns, (remote, port), ways, rules, inventories),
            Answer::Untranslated | Answer::Unknown => None,
        };
        if let Some(frontend) = frontend {
            let virtual_service = Some(frontend.service.clone());
            if let Some(found) = answered {
                return Found { virtual_service, ..found_by(&found, Source::Conntrack) };
            }
            let endpoints = frontend.backends.iter();
            if let Some(found) =
                agreed(endpoints.map(|at| self.direct(netns, *at, port, rules, inventories)))
            {
                return Found { virtual_service, ..found_by(&found, Source::ServiceAddress) };
            }
            // Several services are behind it; the one that answered may be known later.
            let is_known = matches!(answer, Answer::Ways(_));
            let stable = is_known || !self.request_lookup(remote, port);
            let entity = if is_known { Entity::SEVERAL } else { Entity::UNKNOWN };
            return Found { entity, stable, ..Found::new(frontend.service.clone()) };
        }
        if let Some(found) = answered {
            let virtual_service =
                self.direct(netns, remote, port, rules, inventories).map(|found| found.service);
            let by_name = || self.resolved.name(netns, remote).map(|(service, _)| service);
            let virtual_service =
                virtual_service.or_else(by_name).or_else(|| Some(by_address(remote)));
            let virtual_service = virtual_service
                .filter(|virtual_service| !virtual_service.is_called_as(&found.service));
            return Found { virtual_service, ..found_by(&found, Source::Conntrack) };
        }
        if answer != Answer::Untranslated {
            let found = self.unknown_peer(Some(netns), remote, port, rules);
            return Found { entity: Entity::SEVERAL, ..found };
        }
        match self.direct(netns, remote, port, rules, inventories) {
            Some(found) => found,
            None => self.unknown_peer(Some(netns), remote, port, rules),
        }
    }

    /// The service that answered at all of these places, if it was one.
    fn answered(
        &mut self,
        netns: u32,
        requested: (Address, u16),
        ways: &[usize],
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Option<Found> {
        let last_list = self.translated.last_list();
        let wanted = |at: &usize| self.translated.ways(netns, requested).get(*at);
        let places: Vec<_> =
            ways.iter().filter_map(wanted).map(|way| (way.netns, way.backend)).collect();
        let found: Vec<_> = places
            .into_iter()
            .map(|(from, (at, port))| self.direct(from, at, port, rules, inventories))
            .collect();
        let all = self.translated.ways_mut(netns, requested);
        for (at, found) in ways.iter().zip(found) {
            if let Some(way) = all.get_mut(*at) {
                way.update(last_list, found);
            }
        }
        agreed(ways.iter().map(|at| all.get(*at)?.one().cloned()))
    }

    /// The service at an address and port, from any namespace.
    pub(crate) fn at(
        &self,
        remote: Address,
        port: u16,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Option<Service> {
        // No namespace has the number 0.
        let direct = || self.direct(0, remote, port, rules, inventories).map(|found| found.service);
        rules.address(remote).or_else(direct).or_else(|| rules.network(remote))
    }

    /// The service at an address and port, without translation.
    pub(super) fn direct(
        &self,
        netns: u32,
        remote: Address,
        port: u16,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Option<Found> {
        if let Some(namespace) = self.addresses.namespace_of(netns, remote) {
            let published = inventories
                .iter()
                .find_map(|inventory| inventory.published(namespace, Some(remote), port));
            if let Some(workload) = published {
                return Some(Found::workload(workload, Source::PublishedPort, rules));
            }
            if let Some(listener) = self.listener(namespace, remote, port) {
                return Some(listener.found());
            }
        }
        let at = |inventory: &Arc<Inventory>| {
            Some(Found::workload(
                self.container(netns, remote, inventory)?,
                Source::ContainerAddress,
                rules,
            ))
        };
        let endpoint = |inventory: &Arc<Inventory>| {
            Some(Found::workload(inventory.endpoint(remote)?, Source::ServiceAddress, rules))
        };
        inventories.iter().find_map(at).or_else(|| inventories.iter().find_map(endpoint))
    }

    /// The container that has an address. Two runtimes may use the same networks: then the address
    /// is ambiguous and names nothing.
    pub(super) fn container<'a>(
        &self,
        netns: u32,
        remote: Address,
        inventory: &'a Inventory,
    ) -> Option<&'a Workload> {
        if self.addresses.is_ambiguous(netns, remote) { None } else { inventory.at(remote) }
    }

    /// The service that listens on a port of a namespace, if it is the only one.
    pub(crate) fn listening(&self, netns: u32, port: u16) -> Option<&Service> {
        let (first, others) = self.listeners.get(&(netns, port))?.split_first()?;
        let alone = others.iter().all(|other| other.service.is_called_as(&first.service));
        alone.then_some(&first.service)
    }

    /// The listener that a connection to this address and port reaches.
    fn listener(&self, netns: u32, address: Address, port: u16) -> Option<&Listener> {
        let candidates = self.listeners.get(&(netns, port))?;
        candidates
            .iter()
            .filter_map(|listener| Some((listener.score(address)?, listener)))
            // Of several services on one port (SO_REUSEPORT) always the same one.
            .max_by(|(score, listener), (other_score, other)| {
                score.cmp(other_score).then_with(|| other.service.cmp(&listener.service))
            })
            .map(|(_, listener)| listener)
    }
}
