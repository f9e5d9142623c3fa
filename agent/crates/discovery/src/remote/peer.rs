//! The client that has connected to a server of this host.

use std::sync::Arc;

use agent_common::edge::EdgeKey;

use super::Remotes;
use super::clients::Caller;
use crate::found::{Found, agreed, as_client};
use crate::inventory::Inventory;
use crate::rules::Rules;
use model::service::{Entity, Source};

// === impl Remotes ===

impl Remotes {
    /// The client that has connected to a server.
    pub(super) fn peer(
        &mut self,
        netns: u32,
        key: &EdgeKey,
        preexisting: bool,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Found {
        let remote = key.remote;
        if let Some(service) = rules.address(remote) {
            return Found::new(service);
        }
        if let Some(workload) =
            inventories.iter().find_map(|inventory| self.container(netns, remote, inventory))
        {
            return Found::workload(workload, Source::ContainerAddress, rules);
        }
        match self.caller(netns, key, preexisting) {
            Caller::One(found) => return found,
            Caller::Several => {
                let found = self.unknown_peer(None, remote, 0, rules);
                return Found { entity: Entity::SEVERAL, ..found };
            }
            Caller::Unknown => {}
        }
        if let Some(workload) = inventories.iter().find_map(|inventory| inventory.endpoint(remote))
        {
            return Found::workload(workload, Source::ServiceAddress, rules);
        }
        // DNS names belong to servers, not to the clients at the same address.
        self.unknown_peer(None, remote, 0, rules)
    }

    /// The client of this host whose connections a server sees under an address. A new connection
    /// whose addresses are not translated has its client's owner for a key, so it is not in this
    /// row; other programs that connect there are not candidates.
    fn caller(&mut self, netns: u32, key: &EdgeKey, preexisting: bool) -> Caller {
        let Self { translated, clients, addresses, .. } = self;
        let direct = match addresses.namespace_of(netns, key.remote).filter(|_| preexisting) {
            Some(client) => clients.direct(client, netns, key),
            None => Caller::Unknown,
        };
        let Some(callers) = translated.callers(netns, key.port, key.remote) else {
            return match direct {
                Caller::One(found) => Caller::One(as_client(&found, Source::LocalClient)),
                direct => direct,
            };
        };
        // A client that no longer has an edge keeps its last name.
        for (owner, last) in &mut callers.known {
            if let Some(now) = clients.found(*owner).filter(|now| **now != *last) {
                last.clone_from(now);
            }
        }
        let mut all: Vec<Found> = callers.known.values().cloned().collect();
        match direct {
            Caller::One(found) => all.push(found),
            Caller::Several => return Caller::Several,
            Caller::Unknown => {}
        }
        all.sort_unstable_by(|one, other| one.service.cmp(&other.service));
        match agreed(all.into_iter().map(Some)).filter(|_| !callers.has_others()) {
            Some(found) => Caller::One(as_client(&found, Source::Conntrack)),
            None => Caller::Several,
        }
    }
}
