//! A listening socket of this host, and whether a connection reaches it.

use agent_common::address::{self, Address};
use agent_common::listener::ListenerRecord;

use super::found::Found;
use model::service::{Entity, Service, Source};

/// A listening socket.
pub(super) struct Listener {
    address: Address,
    accepts_v4: bool,
    accepts_v6: bool,
    /// Its owner's name.
    pub(super) service: Service,
    entity: Entity,
    stable: bool,
}

impl Listener {
    pub(super) fn new(record: &ListenerRecord, owner: &Found) -> Self {
        let is_v6 = i32::from(record.family) == libc::AF_INET6;
        Self {
            address: record.address,
            accepts_v4: !is_v6 || record.v6_only == 0,
            accepts_v6: is_v6,
            entity: Entity(u64::from(record.owner) + 1),
            service: owner.service.clone(),
            stable: owner.stable,
        }
    }

    /// The server of a connection that reaches it.
    pub(super) fn found(&self) -> Found {
        let service = self.service.found_by(Source::Listener);
        Found { entity: self.entity, stable: self.stable, ..Found::new(service) }
    }

    /// How well it matches an address; `None` if it does not. As in the kernel's lookup
    /// (`compute_score`, net/ipv4/inet_hashtables.c), a listener on the address beats one on all,
    /// and one of the address's own family beats a dual-stack one.
    pub(super) fn score(&self, address: Address) -> Option<u8> {
        if self.address == address {
            return Some(3);
        }
        if !address::to_ip(self.address).is_unspecified() {
            return None;
        }
        let is_v4 = address::to_ip(address).is_ipv4();
        let accepts = if is_v4 { self.accepts_v4 } else { self.accepts_v6 };
        accepts.then_some(if is_v4 && self.accepts_v6 { 1 } else { 2 })
    }
}
