//! Evaluating every edge by the declared segments, and keeping what was found.
//!
//! An edge is evaluated in the second drain that shows a connection of it: by then it is known which
//! side is primary ([`Delta::evaluates`]). It is evaluated again whenever its names, its connections
//! or its side change. Connections that were not taken for violations under
//! an earlier name count when the right name makes them some; each counts once. Violations that a
//! user can have made up ([`super::unverified`]) are counted by user, and are neither rows nor
//! events.
//!
//! That a connection is in plain text is known to the server's side alone, when it has sent its first
//! response; so that side evaluates it, primary or not.

mod total;
mod window;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use agent_common::address::{self, Address, INTERNET, UNSPECIFIED};
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER};
use agent_common::response;
use agent_common::share::Tenant;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use self::total::Total;
pub use self::window::{InWindow, Steps};
use super::attributed::{Attributed, Counted, Counts, Name};
use super::delta::{Delta, EdgeId};
use super::line_shares::LineShares;
use super::per_slot::PerSlot;
use super::relations::{Ends, ServiceName};
use super::segments::{Policy, Reason, Segment, Verdict};
use super::unverified::ByUser;

/// Rows of violations at most.
const MAX_ROWS: usize = 4096;
/// Maximum number of events.
const MAX_EVENTS: usize = 256;
/// Violations of one edge within this time are one event, seconds.
const EVENT_SECONDS: f64 = 60.0;

/// All edges as evaluated.
pub struct Violations {
    policy: Arc<Policy>,
    evaluated: PerSlot<Evaluated>,
    not_allowed: Attributed<Between, Count>,
    plaintext: Attributed<Between, Count>,
    cells: HashMap<(Segment, Segment), u64>,
    steps: Steps,
    events: VecDeque<Arc<Event>>,
    dropped_events: u64,
    lines: LineShares,
    unverified: ByUser,
}

/// What is wrong with connections, and their two ends by names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Between {
    /// What is wrong.
    pub reason: Reason,
    /// Segment of the client; `outside` for ends in none.
    pub client_segment: Arc<str>,
    /// Segment of the server.
    pub server_segment: Arc<str>,
    /// The two services.
    #[serde(flatten)]
    pub ends: Ends,
}

/// One edge that violated, for up to a minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it was seen first, seconds since the Unix epoch.
    pub first_seconds: f64,
    /// When it was seen last.
    pub last_seconds: f64,
    /// Its two ends.
    #[serde(flatten)]
    pub between: Between,
    /// Address of the client; null for clients from outside the internal ranges.
    pub client_address: Option<IpAddr>,
    /// Address of the server.
    pub server_address: Option<IpAddr>,
    /// How many connections.
    pub connections: u64,
    #[serde(skip)]
    edge: Option<EdgeId>,
}

/// Segments and their connections at one time.
#[derive(Clone, Debug)]
pub struct SegmentsView {
    /// The declared policy.
    pub policy: Arc<Policy>,
    /// Connections seen between segments, by their numbers.
    pub cells: Vec<((Segment, Segment), u64)>,
    /// Violations by their ends.
    pub rows: Vec<(Between, u64)>,
    /// Both, of the last minutes.
    pub steps: Steps,
    /// The latest events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Events that were dropped for later ones.
    pub dropped_events: u64,
    /// Edges that found no row of violations of their own.
    pub folded: u64,
    /// Violations that users can have made up.
    pub unverified: ByUser,
}

/// Events to log.
#[derive(Debug, Default)]
pub struct Lines {
    /// New events.
    pub events: Vec<Arc<Event>>,
    /// Number of events suppressed in the minute before.
    pub suppressed: u64,
    /// Everything that was found.
    pub found: Vec<Found>,
}

/// New connections that violate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Their ends.
    pub between: Between,
    /// How many.
    pub connections: u64,
    /// Whose client made them, as far as it is one of this host; else whose server took them.
    pub tenant: Tenant,
}

/// The last evaluation of an edge.
#[derive(Default)]
struct Evaluated {
    /// All its connections.
    opened: Total,
    /// Those in plain text.
    plaintext: Total,
    /// Where they are counted in the matrix, if this side evaluates them.
    cell: Option<(Segment, Segment)>,
}

/// The violating part of an edge, and how many of its connections are not counted yet.
struct Violation {
    between: Between,
    connections: u64,
}

#[derive(Default)]
struct Count(u64);

// === impl Violations ===

impl Violations {
    /// Nothing seen yet.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            evaluated: PerSlot::default(),
            not_allowed: Attributed::new(MAX_ROWS, MAX_ROWS),
            plaintext: Attributed::new(MAX_ROWS, MAX_ROWS),
            cells: HashMap::new(),
            steps: Steps::default(),
            events: VecDeque::new(),
            dropped_events: 0,
            lines: LineShares::default(),
            unverified: ByUser::default(),
        }
    }

    /// Evaluates the edges of a drain at `now` (seconds since the Unix epoch). `tenant` tells who has
    /// the owner with this number.
    pub fn update(
        &mut self,
        now: f64,
        closed: &[EdgeId],
        deltas: &[Delta],
        tenant: impl Fn(u32) -> Tenant,
    ) -> Lines {
        let mut lines = Lines { suppressed: self.lines.turn(now as u64), ..Lines::default() };
        for edge in closed {
            self.evaluated.remove(edge.0);
        }
        self.steps.turn(now);
        let (mut not_allowed, mut plaintext) = (Vec::new(), Vec::new());
        for delta in deltas {
            for Violation { between, connections } in self.evaluate(delta).into_iter().flatten() {
                if connections > 0 {
                    self.steps.violated(&between, connections);
                    let tenant = tenant(delta.actor());
                    if let Some(event) = self.report(Event::new(now, &between, connections, delta))
                        && self.lines.admit(tenant)
                    {
                        lines.events.push(event);
                    }
                    lines.found.push(Found { between: between.clone(), connections, tenant });
                }
                let rows = match between.reason {
                    Reason::NotAllowed => &mut not_allowed,
                    Reason::Plaintext => &mut plaintext,
                };
                rows.push(Counted {
                    edge: delta.id,
                    name: between,
                    is_another: delta.is_another(),
                    growth: connections,
                });
            }
        }
        self.not_allowed.update(now as u64, closed, not_allowed);
        self.plaintext.update(now as u64, closed, plaintext);
        lines
    }

    /// The current state for readers.
    pub fn view(&self) -> SegmentsView {
        let rows = self.not_allowed.iter().chain(self.plaintext.iter());
        let mut rows: Vec<_> = rows.map(|(between, count)| (between.clone(), count.0)).collect();
        rows.sort_unstable();
        let mut cells: Vec<_> =
            self.cells.iter().filter(|(_, n)| **n > 0).map(|(cell, n)| (*cell, *n)).collect();
        cells.sort_unstable();
        SegmentsView {
            policy: Arc::clone(&self.policy),
            cells,
            rows,
            steps: self.steps.clone(),
            events: self.events.iter().cloned().collect(),
            dropped_events: self.dropped_events,
            folded: self.not_allowed.folded() + self.plaintext.folded(),
            unverified: self.unverified.clone(),
        }
    }

    /// Adds an edge to the matrix; returns what of it violates.
    fn evaluate(&mut self, delta: &Delta) -> [Option<Violation>; 2] {
        let is_known = !delta.is_overflow && delta.key.remote != UNSPECIFIED;
        let Some(is_primary) = delta.evaluates.filter(|_| is_known) else { return [None, None] };
        let Self { policy, evaluated, cells, steps, unverified, .. } = self;
        let evaluated = evaluated.get_or_insert_with(delta.id.0, Evaluated::default);
        if let Some(count) = evaluated.cell.and_then(|cell| cells.get_mut(&cell)) {
            *count = count.saturating_sub(evaluated.opened.seen);
        }
        // Earlier connections belong to the former service.
        let is_another = delta.is_another();
        let before = (evaluated.cell, evaluated.opened.seen);
        evaluated.opened.see(delta.opened(), is_another);
        evaluated.plaintext.see(in_plaintext(delta), is_another);
        let (client_address, server_address) = ends(delta);
        let labels = &delta.labels;
        let client = policy.segment(&labels.client, client_address);
        let server = policy.segment(&labels.server, server_address);
        let doubt = labels.unverified_user;
        evaluated.cell = (is_primary && doubt.is_none()).then_some((client, server));
        if let Some(cell) = evaluated.cell {
            *cells.entry(cell).or_default() += evaluated.opened.seen;
        }
        steps.evaluated(before, (evaluated.cell, evaluated.opened.seen), is_another);
        let is_not_allowed = is_primary && policy.verdict(client, server) == Verdict::Violation;
        let is_unencrypted = delta.role == ROLE_SERVER
            && evaluated.plaintext.seen > 0
            && policy.requires_tls(client, server);
        let mut violation = |reason, is_one: bool, total: &mut Total| {
            if !is_one {
                return None;
            }
            let connections = total.count();
            if let Some(user) = doubt {
                unverified.add(user, connections);
                return None;
            }
            let between = Between {
                reason,
                client_segment: policy.name(client),
                server_segment: policy.name(server),
                ends: Ends::new(
                    ServiceName::from(&labels.client),
                    ServiceName::from(&labels.server),
                    delta.key.port,
                ),
            };
            Some(Violation { between, connections })
        };
        let Evaluated { opened, plaintext, .. } = evaluated;
        [
            violation(Reason::NotAllowed, is_not_allowed, opened),
            violation(Reason::Plaintext, is_unencrypted, plaintext),
        ]
    }

    /// Adds to the event of the same edge, or makes a new one, which is returned.
    fn report(&mut self, event: Event) -> Option<Arc<Event>> {
        let same = self.events.iter_mut().rev().find(|other| {
            other.edge == event.edge
                && other.between.reason == event.between.reason
                && other.between.ends.client == event.between.ends.client
                && other.between.ends.server == event.between.ends.server
                && event.first_seconds - other.first_seconds < EVENT_SECONDS
        });
        if let Some(same) = same {
            let same = Arc::make_mut(same);
            same.last_seconds = event.last_seconds;
            same.connections += event.connections;
            return None;
        }
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.dropped_events += 1;
        }
        let event = Arc::new(event);
        self.events.push_back(Arc::clone(&event));
        Some(event)
    }
}

// === impl Event ===

impl Event {
    fn new(now: f64, between: &Between, connections: u64, delta: &Delta) -> Self {
        let (client_address, server_address) = ends(delta);
        Self {
            first_seconds: now,
            last_seconds: now,
            between: between.clone(),
            client_address,
            server_address,
            connections,
            edge: Some(delta.id),
        }
    }
}

impl Counts for Count {
    type Growth = u64;
    type Left = ();

    fn grow(&mut self, connections: u64) {
        self.0 += connections;
    }

    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Name for Between {
    fn other(&self) -> Self {
        let other: Arc<str> = "other".into();
        Self {
            reason: self.reason,
            client_segment: other.clone(),
            server_segment: other.clone(),
            ends: Ends {
                client: other.clone(),
                client_namespace: "".into(),
                server: other,
                server_namespace: "".into(),
                port: 0,
            },
        }
    }
}

/// Connections that were identified as not encrypted.
fn in_plaintext(delta: &Delta) -> u64 {
    delta.grown.now.as_deref().map_or(0, |now| response::in_plaintext(&now.responses))
}

/// Addresses of client and server, as far as the row has them.
fn ends(delta: &Delta) -> (Option<IpAddr>, Option<IpAddr>) {
    let real = |address: &Address| {
        let is_real =
            *address != INTERNET && *address != UNSPECIFIED && address::owner_of(address).is_none();
        is_real.then(|| address::to_ip(*address))
    };
    // A client of this host is known by its owner instead of its address.
    let remote = match address::owner_of(&delta.key.remote) {
        Some(_) => real(&delta.remote),
        None => real(&delta.key.remote),
    };
    let local = real(&delta.local);
    if delta.role == ROLE_CLIENT { (local, remote) } else { (remote, local) }
}

#[cfg(test)]
mod tests;
