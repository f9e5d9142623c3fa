//! What services did within the last minutes: one table per minute.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::edge::CONNECT_OK;
use agent_common::histogram::Histogram;
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

/// Name and namespace.
pub(super) type Key = (Arc<str>, Arc<str>);

/// The traffic of a service as a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// As the clients of this host saw it, including failures.
    pub(super) by_clients: Side,
    /// As the service itself saw it, if it runs on this host.
    pub(super) by_itself: Side,
    pub(super) overflows: u64,
}

/// One side of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Side {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) resets: u64,
    pub(super) aborts: u64,
    pub(super) unanswered: u64,
    pub(super) requests: Histogram,
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
            let grown = deltas.into_iter().filter(|delta| !delta.grown.is_empty());
            let mut grown = grown.peekable();
            // A table that a reader still has is not copied for nothing.
            if grown.peek().is_some() {
                let last = Arc::make_mut(last);
                grown.for_each(|delta| last.add(&delta.labels, &delta.grown.difference()));
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
        let mut epoch = Epoch::default();
        for EdgeView { labels, counters, .. } in edges {
            epoch.add(labels, counters);
        }
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
    fn add(&mut self, labels: &EdgeLabels, counters: &EdgeCounters) {
        let key = (labels.server.name.clone(), labels.server.namespace.clone());
        if self.totals.len() < MOST || self.totals.contains_key(&key) {
            self.totals.entry(key).or_default().add(labels.role, counters);
        }
    }
}

// === impl Totals ===

impl Totals {
    fn add(&mut self, role: Role, counters: &EdgeCounters) {
        self.overflows += counters.listen_drops;
        let side = match role {
            Role::Client => &mut self.by_clients,
            Role::Server => &mut self.by_itself,
            Role::Listener | Role::Unknown => return,
        };
        let connects: u64 = counters.connects.iter().sum();
        let ok = counters.connects.get(usize::from(CONNECT_OK)).copied().unwrap_or_default();
        side.ok += ok;
        side.failed += connects - ok;
        side.resets += counters.resets();
        side.aborts += counters.aborted();
        side.unanswered += counters.unanswered;
        side.requests.merge(&counters.request);
    }

    fn merge(&mut self, other: &Self) {
        let Self { by_clients, by_itself, overflows } = self;
        by_clients.merge(&other.by_clients);
        by_itself.merge(&other.by_itself);
        *overflows += other.overflows;
    }
}

// === impl Side ===

impl Side {
    fn merge(&mut self, other: &Self) {
        let Self { ok, failed, resets, aborts, unanswered, requests } = self;
        *ok += other.ok;
        *failed += other.failed;
        *resets += other.resets;
        *aborts += other.aborts;
        *unanswered += other.unanswered;
        requests.merge(&other.requests);
    }
}
