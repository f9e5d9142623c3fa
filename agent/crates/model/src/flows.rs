//! Flows: which service connected to which, from which address to which, since the agent started.
//!
//! Edges of the kernel's table go after an hour without use, and what made them up is forgotten. A
//! policy that is made from what was seen must know the nightly job too, so this table keeps a flow
//! until there is no room; then those that were seen longest ago give way, and are counted.
//!
//! What an edge counted follows its name: to the better name of the same service, not to another
//! service that took its place, as everywhere ([`attributed`](super::attributed)).

use std::net::IpAddr;
use std::sync::Arc;

use agent_common::address::{self, Address, INTERNET, UNSPECIFIED};
use agent_common::counters::EdgeCounters;
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER};
use hashbrown::HashMap;

use super::delta::{Delta, EdgeId};
use super::per_slot::PerSlot;
use super::relations::ServiceName;
use super::service::{Kind, Service, Source};
use super::snapshot::{EdgeLabels, Role};
use super::tally::Tally;

/// Flows at most: some two megabytes.
pub const MOST: usize = 8192;
/// So many of them give way at once, so that a full table is not searched at each new flow.
const GIVE_WAY: usize = MOST / 16;

/// One side's view of two services, a port and two addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// The client.
    pub client: ServiceName,
    /// The server.
    pub server: ServiceName,
    /// The port that this side saw: a client behind a translation asks for another one than the
    /// server listens at.
    pub port: u16,
    /// Which side saw it.
    pub role: Role,
    /// Whether its connections are counted on this side, and not on the other one of this host.
    pub counts: bool,
    /// Where the client is; `None` for clients from outside the internal ranges.
    pub client_address: Option<IpAddr>,
    /// Where the server is, as this side has it.
    pub server_address: Option<IpAddr>,
    /// The Kubernetes Service or published port that the client asked for, if another service
    /// answered.
    pub virtual_service: Option<ServiceName>,
}

/// What was seen of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Established connections, those from before the agent included.
    pub connections: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// When it was seen first, seconds since the Unix epoch.
    pub first_seconds: u64,
    /// When it last had a connection or moved a byte; of a flow without connections, its last failure.
    pub last_seconds: u64,
    /// Kind of the client, and how its name was found.
    pub client: (Kind, Source),
    /// The same of the server.
    pub server: (Kind, Source),
}

/// All flows at one time.
#[derive(Clone, Debug, Default)]
pub struct FlowsView {
    /// Flows, in no order.
    pub rows: Arc<[(Arc<Flow>, Seen)]>,
    /// Flows that gave way to others.
    pub forgotten: u64,
}

/// Updates the flows.
#[derive(Default)]
pub struct Flows {
    rows: HashMap<Arc<Flow>, Seen>,
    edges: PerSlot<Share>,
    forgotten: u64,
    view: Arc<[(Arc<Flow>, Seen)]>,
    has_changed: bool,
}

/// What an edge has added to a flow.
struct Share {
    flow: Arc<Flow>,
    connections: u64,
    failed: u64,
}

/// What moves with an edge to another flow.
struct Taken {
    connections: u64,
    failed: u64,
    first_seconds: u64,
}

// === impl Flows ===

impl Flows {
    /// Takes in a drain at `now` (seconds since the Unix epoch).
    pub fn update<'a>(
        &mut self,
        now: u64,
        closed: &[EdgeId],
        deltas: impl IntoIterator<Item = &'a Delta>,
    ) {
        for edge in closed {
            self.edges.remove(edge.0);
        }
        for delta in deltas {
            match Flow::of(delta) {
                Some(flow) => self.count(now, delta, flow),
                // It is taken for something that a user made up, now.
                None => drop(self.take_back(delta.id)),
            }
        }
    }

    /// The current flows for readers.
    pub fn view(&mut self) -> FlowsView {
        if std::mem::take(&mut self.has_changed) {
            self.view = self.rows.iter().map(|(flow, seen)| (Arc::clone(flow), *seen)).collect();
        }
        FlowsView { rows: Arc::clone(&self.view), forgotten: self.forgotten }
    }

    fn count(&mut self, now: u64, delta: &Delta, flow: Flow) {
        let Tally { connections, failed, .. } = Tally::of(&delta.grown);
        let mut grown = Taken { connections, failed, first_seconds: now };
        let known = self.edges.get(delta.id.0).map(|share| &share.flow);
        let flow = if let Some(known) = known.filter(|known| ***known == flow) {
            Arc::clone(known)
        } else {
            if delta.is_another() {
                self.edges.remove(delta.id.0);
            } else if let Some(former) = self.take_back(delta.id) {
                grown.connections += former.connections;
                grown.failed += former.failed;
                grown.first_seconds = former.first_seconds;
            }
            Arc::new(flow)
        };
        let share = || Share { flow: Arc::clone(&flow), connections: 0, failed: 0 };
        let share = self.edges.get_or_insert_with(delta.id.0, share);
        share.connections += grown.connections;
        share.failed += grown.failed;
        let end = |service: &Service| (service.kind, service.source);
        let (client, server) = (end(&delta.labels.client), end(&delta.labels.server));
        let seen = self.rows.entry(flow).or_insert(Seen {
            connections: 0,
            failed: 0,
            first_seconds: grown.first_seconds,
            last_seconds: now,
            client,
            server,
        });
        seen.connections += grown.connections;
        seen.failed += grown.failed;
        seen.first_seconds = seen.first_seconds.min(grown.first_seconds);
        // Attempts that fail do not keep a flow alive that had connections once.
        if has_moved(delta) || seen.connections == 0 {
            seen.last_seconds = now;
        }
        (seen.client, seen.server) = (client, server);
        self.has_changed = true;
        self.make_room();
    }

    /// Takes what an edge has added out of its flow.
    fn take_back(&mut self, edge: EdgeId) -> Option<Taken> {
        let Share { flow, connections, failed } = self.edges.remove(edge.0)?;
        let seen = self.rows.get_mut(&flow)?;
        let first_seconds = seen.first_seconds;
        seen.connections = seen.connections.saturating_sub(connections);
        seen.failed = seen.failed.saturating_sub(failed);
        if (seen.connections, seen.failed) == (0, 0) {
            self.rows.remove(&flow);
        }
        self.has_changed = true;
        Some(Taken { connections, failed, first_seconds })
    }

    /// Forgets the flows that were seen longest ago if there are too many.
    fn make_room(&mut self) {
        if self.rows.len() <= MOST {
            return;
        }
        let mut by_age: Vec<_> =
            self.rows.iter().map(|(flow, seen)| (seen.last_seconds, Arc::clone(flow))).collect();
        by_age.sort_unstable();
        for (_, flow) in by_age.into_iter().take(GIVE_WAY) {
            self.rows.remove(&flow);
            self.forgotten += 1;
        }
    }
}

// === impl Flow ===

impl Flow {
    /// `None` for what is no connection between two ends, and what a user can have made up.
    fn of(delta: &Delta) -> Option<Self> {
        let EdgeLabels { client, server, port, role, virtual_service, unverified_user } =
            &*delta.labels;
        let is_connection = matches!(delta.role, ROLE_CLIENT | ROLE_SERVER);
        let has_row = !delta.is_overflow && delta.key.remote != UNSPECIFIED;
        if !is_connection || !has_row || unverified_user.is_some() || is_of_lookups(delta) {
            return None;
        }
        let far = real(&delta.key.remote);
        let (client_address, server_address) = if delta.role == ROLE_CLIENT {
            (real(&delta.local), far)
        } else {
            // The key of a client of this host is its owner: its address is that of the first
            // connection, as long as the internal ranges have it.
            let near = address::owner_of(&delta.key.remote).and_then(|_| real(&delta.remote));
            (far.or(near), real(&delta.local))
        };
        Some(Self {
            client: ServiceName::from(client),
            server: ServiceName::from(server),
            port: *port,
            role: *role,
            counts: delta.counts,
            client_address,
            server_address,
            virtual_service: virtual_service.as_ref().map(ServiceName::from),
        })
    }
}

/// Whether nothing but DNS lookups was counted, which need no connection.
fn is_of_lookups(delta: &Delta) -> bool {
    let now = delta.grown.now.as_ref().filter(|_| delta.role == ROLE_CLIENT);
    now.is_some_and(|now| !now.has_connections() && now.looked_up() > 0)
}

/// Whether a connection was made or a byte moved.
fn has_moved(delta: &Delta) -> bool {
    let moved = |counters: &Option<Arc<EdgeCounters>>| {
        counters.as_ref().map_or((0, 0, 0), |counters| {
            (counters.opened, counters.sent_bytes, counters.received_bytes)
        })
    };
    moved(&delta.grown.before) != moved(&delta.grown.now)
}

/// The address, if it is that of one end.
fn real(address: &Address) -> Option<IpAddr> {
    let is_real =
        *address != INTERNET && *address != UNSPECIFIED && address::owner_of(address).is_none();
    is_real.then(|| address::to_ip(*address))
}

#[cfg(test)]
mod tests;
