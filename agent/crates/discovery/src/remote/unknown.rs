//! Remote ends that no source knows: a network, a name from DNS or the address, up to a limit.

use agent_common::address::{self, Address};

use super::admitted::network;
use super::{MAX_ENTRIES, Remotes};
use crate::addresses::{by_address, is_internal};
use crate::found::Found;
use crate::rules::Rules;
use model::service::{Service, is_loopback};

/// How often a refresh of the sources is requested for a peer without a name.
const MAX_LOOKUPS: u8 = 3;

// === impl Remotes ===

impl Remotes {
    /// A peer that no source knows; by its DNS name if namespace `resolved_in` has resolved one. A
    /// server's client has no such name, and counts against the share of its network, too.
    pub(super) fn unknown_peer(
        &mut self,
        resolved_in: Option<u32>,
        remote: Address,
        port: u16,
        rules: &Rules,
    ) -> Found {
        let stable = !self.request_lookup(remote, port);
        if let Some(service) = rules.network(remote) {
            return Found { stable, ..Found::new(service) };
        }
        let network = if resolved_in.is_none() { network(remote) } else { None };
        if !self.admitted.admit(remote, self.tenant, network, self.round) {
            let is_private = is_internal(address::to_ip(remote));
            let rest = if is_private { Service::other() } else { Service::internet() };
            return Found { stable, ..Found::new(rest) };
        }
        // A name that leads to a loopback address does not identify the server there.
        let resolved_in = resolved_in.filter(|_| !is_loopback(address::to_ip(remote)));
        match resolved_in.and_then(|netns| self.resolved.name(netns, remote)) {
            Some((service, entity)) => Found { entity, stable, ..Found::new(service) },
            None => Found { stable, ..Found::new(by_address(remote)) },
        }
    }

    /// Requests a refresh of the sources, a few times for each peer; returns whether it may help.
    pub(super) fn request_lookup(&mut self, remote: Address, port: u16) -> bool {
        if self.lookups.len() >= MAX_ENTRIES {
            self.lookups.clear();
        }
        let lookups = self.lookups.entry((remote, port)).or_default();
        let goes_on = *lookups < MAX_LOOKUPS;
        *lookups += u8::from(goes_on);
        self.missing |= goes_on;
        self.unknown_namespaces
    }
}
