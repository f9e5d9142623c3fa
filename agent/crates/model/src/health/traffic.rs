//! What services did in some time: since the start, which is kept, or in a window, which is made
//! from its steps on request ([`crate::recent`]).

use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::drained::Table;
use agent_common::edge::{CONNECT_OK, CONNECT_PORTS_EXHAUSTED, CONNECT_STOPPING, is_clients_own};
use agent_common::histogram::{BOUNDS_US, Histogram};
use agent_common::reset::{CAUSES, STOPPING, is_of_connection};
use agent_common::response::{STATUSES, is_error};
use hashbrown::HashMap;

use crate::delta::Delta;
use crate::recent::Counted;
#[cfg(any(test, feature = "fixture"))]
use crate::snapshot::EdgeView;
use crate::snapshot::{EdgeLabels, Role};

/// Services in a table at most; one that is over reads as idle.
const MOST: usize = 1024;

/// A response within this time is a fast one, microseconds: a server that gives some is not stuck.
const FAST_US: u32 = 100_000;

/// Name and namespace.
pub(super) type Key = (Arc<str>, Arc<str>);

/// What a service did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// As a server, as the clients of this host saw it, including failures.
    pub(super) by_clients: Side,
    /// As a server, as the service itself saw it, if it runs on this host.
    pub(super) by_itself: Side,
    /// As a client.
    pub(super) as_client: Client,
    pub(super) overflows: u64,
}

/// One side of a server's traffic. Failures are those of the server, or of the path to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Side {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) resets: u64,
    pub(super) aborts: u64,
    pub(super) unanswered: u64,
    /// Failures while the server was stopping; in none of the others.
    pub(super) stopping: u64,
    pub(super) requests: Histogram,
    /// Long requests one right after the other on a connection.
    pub(super) long: u64,
    /// Those of them that waited on purpose, as the other connections of the service show.
    pub(super) waits: u64,
    /// Responses whose status is known, and those of them that are errors of the server.
    pub(super) responses: u64,
    pub(super) errors: u64,
}

/// A client's attempts to connect, and what its own side did to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) ok: u64,
    /// Failed on its own side.
    pub(super) failed: u64,
    /// Those of them that found no free local port.
    pub(super) without_port: u64,
    /// Connections that it cut.
    pub(super) resets: u64,
}

/// What services did in some time.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<HashMap<Key, Totals>>);

// === impl Traffic ===

impl Traffic {
    /// Adds a collection.
    pub fn observe<'a>(&mut self, deltas: impl IntoIterator<Item = &'a Delta>) {
        let mut grown = HashMap::new();
        for delta in deltas.into_iter().filter(|delta| !delta.grown.is_empty()) {
            let is_unsent = delta.table == Table::Unsent;
            add(&mut grown, &delta.labels, &delta.grown.difference(), is_unsent);
        }
        self.merge(grown);
    }

    /// What edges counted in these steps.
    pub fn of(steps: impl IntoIterator<Item = Vec<Counted>>) -> Self {
        let mut all = Self::default();
        for step in steps {
            let mut grown = HashMap::new();
            for Counted { labels, counters, is_unsent } in &step {
                add(&mut grown, labels, counters, *is_unsent);
            }
            all.merge(grown);
        }
        all
    }

    /// All that these rows have.
    #[cfg(any(test, feature = "fixture"))]
    pub(crate) fn from_rows(edges: &[EdgeView]) -> Self {
        let mut totals = HashMap::new();
        for EdgeView { labels, counters, .. } in edges {
            add(&mut totals, labels, counters, false);
        }
        let mut all = Self::default();
        all.merge(totals);
        all
    }

    /// What a service did; `is_polled`: long requests in a row wait for events there.
    pub(super) fn of_service(&self, service: &Key, is_polled: bool) -> Totals {
        let mut totals = self.0.get(service).cloned().unwrap_or_default();
        if is_polled {
            totals.by_clients.take_all_waits();
            totals.by_itself.take_all_waits();
        }
        totals
    }

    /// Adds what happened at one time.
    fn merge(&mut self, grown: HashMap<Key, Totals>) {
        // A table that a reader still has is not copied for nothing.
        if grown.is_empty() {
            return;
        }
        let all = Arc::make_mut(&mut self.0);
        for (key, mut totals) in grown {
            totals.by_clients.judge_waits();
            totals.by_itself.judge_waits();
            if all.len() < MOST || all.contains_key(&key) {
                all.entry(key).or_default().merge(&totals);
            }
        }
    }
}

/// Adds what an edge did to its server's totals, and to its client's.
fn add(
    totals: &mut HashMap<Key, Totals>,
    labels: &EdgeLabels,
    counters: &EdgeCounters,
    is_unsent: bool,
) {
    let server = (labels.server.name.clone(), labels.server.namespace.clone());
    totals.entry(server).or_default().add_server(labels.role, counters, is_unsent);
    if labels.role == Role::Client {
        let client = (labels.client.name.clone(), labels.client.namespace.clone());
        totals.entry(client).or_default().as_client.add(counters, is_unsent);
    }
}

/// The resets with causes that a side answers for, without those of a server that stops.
fn resets(counts: &[u64; CAUSES]) -> u64 {
    let counted = counts.iter().enumerate();
    counted
        .filter(|(cause, _)| is_of_connection(*cause) && *cause != usize::from(STOPPING))
        .map(|(_, count)| count)
        .sum()
}

// === impl Totals ===

impl Totals {
    fn add_server(&mut self, role: Role, counters: &EdgeCounters, is_unsent: bool) {
        self.overflows += counters.listen_drops;
        // What a side sends cuts the other one.
        let (side, cut) = match role {
            Role::Client => (&mut self.by_clients, &counters.resets_received),
            Role::Server => (&mut self.by_itself, &counters.resets_sent),
            Role::Listener | Role::Unknown => return,
        };
        for (result, count) in (0..).zip(counters.connects) {
            match result {
                CONNECT_OK => side.ok += count,
                CONNECT_STOPPING => side.stopping += count,
                _ if is_unsent || is_clients_own(result) => {}
                _ => side.failed += count,
            }
        }
        side.resets += resets(cut);
        side.stopping += cut.get(usize::from(STOPPING)).copied().unwrap_or_default();
        side.stopping += counters.unanswered_stopping;
        side.aborts += counters.aborted();
        side.unanswered += counters.unanswered;
        side.requests.merge(&counters.request);
        side.long += counters.waits;
        for (status, count) in counters.responses.iter().take(STATUSES).enumerate() {
            side.responses += count;
            side.errors += if is_error(status) { *count } else { 0 };
        }
    }

    fn merge(&mut self, other: &Self) {
        let Self { by_clients, by_itself, as_client, overflows } = self;
        by_clients.merge(&other.by_clients);
        by_itself.merge(&other.by_itself);
        as_client.merge(other.as_client);
        *overflows += other.overflows;
    }
}

// === impl Side ===

impl Side {
    /// Decides, of one step, whether long requests waited on purpose: a server that gave at
    /// least as many fast responses meanwhile is not slow. The same connections at a server that is
    /// slow to all look the same.
    fn judge_waits(&mut self) {
        let bounds = BOUNDS_US.iter().zip(&self.requests.buckets);
        let fast: u64 =
            bounds.take_while(|(bound, _)| **bound <= FAST_US).map(|(_, count)| count).sum();
        if fast >= self.long {
            self.waits = self.long;
        }
    }

    /// The same of a server whose clients are known to wait for events.
    fn take_all_waits(&mut self) {
        self.waits = self.long;
    }

    fn merge(&mut self, other: &Self) {
        let Self {
            ok,
            failed,
            resets,
            aborts,
            unanswered,
            stopping,
            requests,
            long,
            waits,
            responses,
            errors,
        } = self;
        *ok += other.ok;
        *failed += other.failed;
        *resets += other.resets;
        *aborts += other.aborts;
        *unanswered += other.unanswered;
        *stopping += other.stopping;
        requests.merge(&other.requests);
        *long += other.long;
        *waits += other.waits;
        *responses += other.responses;
        *errors += other.errors;
    }

    /// The requests without those that waited on purpose: as many of the longest ones.
    pub(super) fn worked(&self) -> Histogram {
        let (mut worked, mut left) = (self.requests, self.waits);
        for count in worked.buckets.iter_mut().rev() {
            let waited = left.min(*count);
            *count -= waited;
            left -= waited;
        }
        worked
    }
}

// === impl Client ===

impl Client {
    fn add(&mut self, counters: &EdgeCounters, is_unsent: bool) {
        for (result, count) in (0..).zip(counters.connects) {
            match result {
                CONNECT_OK => self.ok += count,
                _ if is_unsent || is_clients_own(result) => self.failed += count,
                _ => {}
            }
            if result == CONNECT_PORTS_EXHAUSTED {
                self.without_port += count;
            }
        }
        self.resets += resets(&counters.resets_sent);
    }

    fn merge(&mut self, other: Self) {
        let Self { ok, failed, without_port, resets } = self;
        *ok += other.ok;
        *failed += other.failed;
        *without_port += other.without_port;
        *resets += other.resets;
    }
}
