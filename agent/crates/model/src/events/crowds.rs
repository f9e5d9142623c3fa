//! How many events go on of each cause, and of each client and tenant of it: a scan is not
//! thousands of events, and no client takes the room of others.

use agent_common::share::Tenant;
use hashbrown::HashMap;

use super::event::{Key, What};
use crate::relations::ServiceName;

/// Events of one cause and one client that go on, at most.
const MOST_OF_CLIENT: u32 = 100;
/// Events of one cause that go on, at most.
const MOST_OF_CAUSE: u32 = 2000;
/// Of these, events of one tenant.
pub(super) const MOST_OF_TENANT: u32 = MOST_OF_CAUSE / 4;

/// The events that go on.
#[derive(Default)]
pub(super) struct Crowds(HashMap<Crowd, u32>);

/// Events of a cause that are limited together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Crowd {
    /// All of them.
    Cause(&'static str),
    /// Those of a client.
    Client(&'static str, ServiceName),
    /// Those of a tenant, whatever its programs are called.
    Tenant(&'static str, Tenant),
}

// === impl Crowds ===

impl Crowds {
    /// Whether the cause of another event, or its tenant, has as many as it may have.
    pub(super) fn are_full(&self, what: &What) -> bool {
        let of_tenant = what.tenant.map(|tenant| Crowd::Tenant(what.cause, tenant));
        self.has(&Crowd::Cause(what.cause), MOST_OF_CAUSE)
            || of_tenant.is_some_and(|crowd| self.has(&crowd, MOST_OF_TENANT))
    }

    /// Whether its client has.
    pub(super) fn is_client_full(&self, what: &What) -> bool {
        let client = what.client.as_ref().map(ServiceName::from);
        client.is_some_and(|client| self.has(&Crowd::Client(what.cause, client), MOST_OF_CLIENT))
    }

    /// An event of this tenant begins.
    pub(super) fn enter(&mut self, key: &Key, tenant: Option<Tenant>) {
        for crowd in crowds(key, tenant) {
            *self.0.entry(crowd).or_default() += 1;
        }
    }

    /// It no longer goes on.
    pub(super) fn leave(&mut self, key: &Key, tenant: Option<Tenant>) {
        for crowd in crowds(key, tenant) {
            if let Some(count) = self.0.get_mut(&crowd) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&crowd);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, crowd: &Crowd, most: u32) -> bool {
        self.0.get(crowd).is_some_and(|count| *count >= most)
    }
}

/// Where an event counts.
fn crowds(key: &Key, tenant: Option<Tenant>) -> impl Iterator<Item = Crowd> {
    let Key { cause, services: [client, ..], .. } = key.clone();
    let of_client = client.map(|client| Crowd::Client(cause, client));
    let of_tenant = tenant.map(|tenant| Crowd::Tenant(cause, tenant));
    [Some(Crowd::Cause(cause)), of_client, of_tenant].into_iter().flatten()
}
