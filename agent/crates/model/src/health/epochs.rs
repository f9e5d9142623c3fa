//! What services did within the last minutes: one table per minute.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::drained::Table;
use agent_common::edge::{CONNECT_OK, CONNECT_PORTS_EXHAUSTED, CONNECT_STOPPING, is_clients_own};
use agent_common::histogram::{BOUNDS_US, Histogram};
use agent_common::reset::{CAUSES, STOPPING, is_of_connection};
use hashbrown::HashMap;

use crate::delta::Delta;
#[cfg(any(test, feature = "fixture"))]
use crate::snapshot::EdgeView;
use crate::snapshot::{EdgeLabels, Role};

/// Interval of the tables, seconds.
const EVERY: f64 = 60.0;
/// Number of tables; so the window is five to six minutes long, once the agent has run for that.
const KEPT: usize = 6;
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
    /// Long requests that waited on purpose.
    pub(super) waits: u64,
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

/// Figures of edges within a minute.
#[derive(Clone, Debug, Default)]
struct Epoch {
    /// When it began, seconds since the Unix epoch.
    since_seconds: f64,
    totals: HashMap<Key, Totals>,
}

/// Figures of edges within the last minutes.
#[derive(Clone, Debug, Default)]
pub struct Epochs(VecDeque<Arc<Epoch>>);

// === impl Epochs ===

impl Epochs {
    /// Adds a collection at `now`. Counts before the first one are not recent.
    pub fn observe<'a>(&mut self, now: f64, deltas: impl IntoIterator<Item = &'a Delta>) {
        // A clock that was set back begins anew.
        if self.0.back().is_some_and(|last| last.since_seconds > now) {
            self.0.clear();
        }
        if let Some(last) = self.0.back_mut() {
            let mut grown: HashMap<Key, Totals> = HashMap::new();
            for delta in deltas.into_iter().filter(|delta| !delta.grown.is_empty()) {
                let is_unsent = delta.table == Table::Unsent;
                add(&mut grown, &delta.labels, &delta.grown.difference(), is_unsent);
            }
            // A table that a reader still has is not copied for nothing.
            if !grown.is_empty() {
                Arc::make_mut(last).merge(grown);
            }
        }
        if self.0.back().is_none_or(|last| now - last.since_seconds >= EVERY) {
            while self.0.len() >= KEPT {
                self.0.pop_front();
            }
            self.0.push_back(Arc::new(Epoch { since_seconds: now, ..Epoch::default() }));
        }
    }

    /// All that these rows have, as if it had happened since the Unix epoch.
    #[cfg(any(test, feature = "fixture"))]
    pub(crate) fn from_rows(edges: &[EdgeView]) -> Self {
        let mut totals = HashMap::new();
        for EdgeView { labels, counters, .. } in edges {
            add(&mut totals, labels, counters, false);
        }
        let mut epoch = Epoch::default();
        epoch.merge(totals);
        Self([Arc::new(epoch)].into())
    }

    /// When the window begins, seconds since the Unix epoch.
    pub(super) fn since_seconds(&self) -> Option<f64> {
        self.0.front().map(|first| first.since_seconds)
    }

    /// Everything in the window.
    pub(super) fn totals(&self) -> HashMap<Key, Totals> {
        let mut sum: HashMap<Key, Totals> = HashMap::new();
        for (key, totals) in self.0.iter().flat_map(|epoch| &epoch.totals) {
            sum.entry(key.clone()).or_default().merge(totals);
        }
        sum
    }
}

// === impl Epoch ===

impl Epoch {
    /// Adds a collection.
    fn merge(&mut self, collection: HashMap<Key, Totals>) {
        for (key, mut totals) in collection {
            totals.by_clients.judge_waits();
            totals.by_itself.judge_waits();
            if self.totals.len() < MOST || self.totals.contains_key(&key) {
                self.totals.entry(key).or_default().merge(&totals);
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
        side.waits += counters.waits;
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
    /// Decides, of one collection, whether long requests waited on purpose: a server that gave at
    /// least as many fast responses meanwhile is not slow. The same connections at a server that is
    /// slow to all look the same.
    fn judge_waits(&mut self) {
        let bounds = BOUNDS_US.iter().zip(&self.requests.buckets);
        let fast: u64 =
            bounds.take_while(|(bound, _)| **bound <= FAST_US).map(|(_, count)| count).sum();
        if fast < self.waits {
            self.waits = 0;
        }
    }

    fn merge(&mut self, other: &Self) {
        let Self { ok, failed, resets, aborts, unanswered, stopping, requests, waits } = self;
        *ok += other.ok;
        *failed += other.failed;
        *resets += other.resets;
        *aborts += other.aborts;
        *unanswered += other.unanswered;
        *stopping += other.stopping;
        requests.merge(&other.requests);
        *waits += other.waits;
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
