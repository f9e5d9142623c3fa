//! What every edge counted in the last five minutes: the numbers that people read.
//!
//! Each collection adds a step with the growth of the edges that have moved, packed. Older steps
//! are joined to longer ones, so a window of ten seconds is exact to two, one of a minute to ten,
//! one of five minutes to a minute. A window begins where its first step does; how long it really
//! is goes with every answer, and a rate is divided by that.
//!
//! An edge counts under a *subject*: its names, the address of the server, and whether another
//! row has the same connections. A better name is a new name for the same subject; another service
//! at the same address is another subject, so what was counted before stays with the former
//! ([`attributed`](super::attributed) has the rule for totals).
//!
//! The same steps are the [history](RecentView::history) of an hour: a second each for the last
//! minute, ten seconds before.
//!
//! Memory is bounded. With more than [`HISTORY_BYTES`](steps::HISTORY_BYTES) of steps those beyond the longest window go,
//! the oldest first; then steps are joined to longer ones, as windows need them. With more than
//! [`MAX_BYTES`](steps::MAX_BYTES) the oldest of these go, and windows are shorter. What went is counted. Subjects are those of edges, which the kernel's table bounds by tenant, and of
//! former ones that a step still has.

mod history;
mod steps;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::address::{self, INTERNET, UNSPECIFIED};
use agent_common::counters::EdgeCounters;
use agent_common::drained::Table;
use agent_common::edge::ROLE_CLIENT;
use agent_common::queues::Queues;
use agent_common::response::RESPONSES;
use hashbrown::{HashMap, HashSet};

pub use self::history::HistoryPoint;
use self::steps::PER_EDGE;
use super::delta::{Delta, EdgeId};
use super::packed::Packed;
use super::per_slot::PerSlot;
use super::shared_map::SharedMap;
use super::snapshot::{EdgeLabels, EdgeView, Role};

/// The longest window, seconds.
pub const LONGEST_SECONDS: u64 = 300;

/// How far back history goes, seconds.
pub const HISTORY_SECONDS: u64 = 3600;

/// Keeps the steps.
pub struct Recent {
    started_us: u64,
    /// The subject that each edge counts under.
    current: PerSlot<u32>,
    next_subject: u32,
    is_first: bool,
    view: RecentView,
}

/// The steps at one time, for readers.
#[derive(Clone, Debug, Default)]
pub struct RecentView {
    /// Oldest first; each begins where the one before ends.
    steps: VecDeque<Arc<Step>>,
    subjects: SharedMap<Subject>,
    now_us: u64,
    /// Steps within the last hour that went because memory was short.
    dropped: u64,
}

/// What edges counted between two collections, or more.
#[derive(Debug)]
struct Step {
    since_us: u64,
    until_us: u64,
    /// By subject.
    grown: HashMap<u32, Packed>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Subject {
    labels: Arc<EdgeLabels>,
    /// The server's address and port; `None` where many share a row.
    address: Option<SocketAddr>,
    /// Whether no other row of this host has the same connections.
    counts: bool,
    /// Whether the edge is attempts that the kernel refused before a SYN.
    is_unsent: bool,
    /// What the edge has counted so far; `None` of an edge that is gone.
    total: Option<Arc<EdgeCounters>>,
}

/// What an edge counted in a step.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Client, server, port, side.
    pub labels: Arc<EdgeLabels>,
    /// What it counted.
    pub counters: EdgeCounters,
    /// Whether these are attempts that the kernel refused before a SYN.
    pub is_unsent: bool,
}

/// A row of a window: an edge, or its part at one address.
#[derive(Clone, Debug)]
pub struct WindowRow {
    /// Client, server, port, side.
    pub labels: Arc<EdgeLabels>,
    /// What was counted in the window.
    pub counters: Arc<EdgeCounters>,
    /// Connections open now.
    pub active: u64,
    /// What waits in its connections now; `None` as in [`EdgeView`], and by address.
    pub queues: Option<Queues>,
    /// Whether the client's side of the same connections is a row of its own.
    pub is_other_side: bool,
    /// By address: the server's address and port; `None` for those beyond the edges' table.
    pub address: Option<SocketAddr>,
}

// === impl Recent ===

impl Recent {
    /// Nothing seen yet; the agent started at `now_us` (CLOCK_MONOTONIC).
    pub fn new(now_us: u64) -> Self {
        Self {
            started_us: now_us,
            current: PerSlot::default(),
            next_subject: 0,
            is_first: true,
            view: RecentView { now_us, ..RecentView::default() },
        }
    }

    /// Takes in a collection at `now_us`.
    pub fn update<'a>(
        &mut self,
        now_us: u64,
        closed: &[EdgeId],
        deltas: impl IntoIterator<Item = &'a Delta>,
    ) {
        let subjects = &mut self.view.subjects;
        for edge in closed {
            let subject = self.current.remove(edge.0);
            if let Some(subject) = subject.and_then(|subject| subjects.get_mut(subject)) {
                subject.total = None;
            }
        }
        let mut grown = HashMap::new();
        for delta in deltas {
            let known = self.current.get(delta.id.0).copied();
            let number = if let Some(number) = known.filter(|_| !delta.is_another()) {
                number
            } else {
                if let Some(former) = known.and_then(|known| subjects.get_mut(known)) {
                    former.total = None;
                }
                self.next_subject = self.next_subject.wrapping_add(1);
                self.current.insert(delta.id.0, self.next_subject);
                self.next_subject
            };
            subjects.insert(number, Subject::of(delta));
            // Rows that an earlier agent left pinned: when it happened is unknown.
            let is_earlier = self.is_first && delta.is_new && delta.born_us < self.started_us;
            if !delta.grown.is_empty() && (!is_earlier || delta.is_overflow) {
                grown.insert(number, Packed::new(&delta.grown.difference()));
            }
        }
        self.is_first = false;
        self.view.push(self.started_us, now_us, grown);
        self.forget();
    }

    /// The current steps.
    pub fn view(&self) -> RecentView {
        self.view.clone()
    }

    /// Drops the subjects that no edge and no step has, once they are many.
    fn forget(&mut self) {
        let RecentView { steps, subjects, .. } = &mut self.view;
        if subjects.len() <= 2 * self.current.len() + 64 {
            return;
        }
        let in_steps: HashSet<u32> =
            steps.iter().flat_map(|step| step.grown.keys()).copied().collect();
        subjects.retain(|number, subject| subject.total.is_some() || in_steps.contains(&number));
    }
}

// === impl RecentView ===

impl RecentView {
    /// All that these rows have, as if it had happened within this many seconds.
    #[cfg(any(test, feature = "fixture"))]
    pub(crate) fn from_rows(edges: &[EdgeView], seconds: u64) -> Self {
        let mut view = Self::default();
        let (mut subjects, mut grown) = (SharedMap::default(), HashMap::new());
        for (number, EdgeView { labels, counters, .. }) in (0..).zip(edges) {
            let (labels, total) = (Arc::clone(labels), Some(Arc::clone(counters)));
            let address = (labels.role != Role::Listener)
                .then(|| SocketAddr::new([10, 0, 0, 2].into(), labels.port));
            subjects
                .insert(number, Subject { labels, address, counts: true, is_unsent: false, total });
            grown.insert(number, Packed::new(counters));
        }
        view.subjects = subjects;
        view.push(0, seconds * 1_000_000, grown);
        view
    }

    /// The steps that cover the last `window` seconds, latest first, and the seconds that they are.
    fn covering(&self, window: u64) -> (impl Iterator<Item = &Step>, f64) {
        let window_us = window.saturating_mul(1_000_000);
        let age = |us: u64| self.now_us.saturating_sub(us);
        let steps = self.steps.iter().map(|step| &**step).rev();
        let steps = steps.take_while(move |step| age(step.until_us) < window_us);
        let since_us = steps.clone().last().map_or(self.now_us, |first| first.since_us);
        (steps, age(since_us) as f64 / 1e6)
    }

    /// What the subjects counted in the last `window` seconds, at least, and the seconds covered.
    fn last(&self, window: u64) -> (HashMap<u32, EdgeCounters>, f64) {
        let mut sums: HashMap<u32, EdgeCounters> = HashMap::new();
        let (steps, seconds) = self.covering(window);
        for (subject, packed) in steps.flat_map(|step| &step.grown) {
            packed.add_to(sums.entry(*subject).or_default());
        }
        (sums, seconds)
    }

    /// What edges counted in each step of the last `window` seconds, without those in doubt, and the
    /// seconds covered.
    pub fn steps(&self, window: u64) -> (Vec<Vec<Counted>>, f64) {
        let counted = |(number, packed): (&u32, &Packed)| {
            let Subject { labels, is_unsent, .. } = self.subjects.get(*number)?;
            // What a user can have made up says nothing of a service.
            if labels.unverified_user.is_some() {
                return None;
            }
            let mut counters = EdgeCounters::ZERO;
            packed.add_to(&mut counters);
            Some(Counted { labels: Arc::clone(labels), counters, is_unsent: *is_unsent })
        };
        let (steps, seconds) = self.covering(window);
        (steps.map(|step| step.grown.iter().filter_map(counted).collect()).collect(), seconds)
    }

    /// The rows of the last `window` seconds: every one of `edges`, which are those of the same
    /// snapshot, with what it counted in that time; and how long the window is, seconds.
    pub fn rows(&self, edges: &[EdgeView], window: u64) -> (Vec<WindowRow>, f64) {
        let (sums, seconds) = self.last(window);
        let mut rows = self.all(edges);
        for row in &mut rows {
            row.counters = Arc::default();
        }
        let places: HashMap<_, usize> =
            edges.iter().enumerate().map(|(at, edge)| (edge.labels.names(), at)).collect();
        for (number, sum) in &sums {
            let Some(Subject { labels, .. }) = self.subjects.get(*number) else { continue };
            // A subject without a row is one whose counts are not shown yet, or have moved to a
            // row that will be.
            if let Some(row) = places.get(&labels.names()).and_then(|at| rows.get_mut(*at)) {
                Arc::make_mut(&mut row.counters).merge(sum);
            }
        }
        share_responses(&mut rows);
        (rows, seconds)
    }

    /// The same by the server's address: one row for each address of each edge that has counted
    /// something or has connections.
    pub fn rows_by_address(&self, window: u64) -> (Vec<WindowRow>, f64) {
        let (sums, seconds) = self.last(window);
        let mut rows: BTreeMap<_, WindowRow> = BTreeMap::new();
        for (number, subject) in self.subjects.iter() {
            let Subject { labels, address, counts, is_unsent: _, total } = subject;
            let active = total.as_ref().map_or(0, |total| total.active());
            let sum = sums.get(&number);
            if sum.is_none() && active == 0 {
                continue;
            }
            let row = rows.entry((labels.names(), *address)).or_insert_with(|| WindowRow {
                labels: Arc::clone(labels),
                counters: Arc::default(),
                active: 0,
                queues: None,
                is_other_side: true,
                address: *address,
            });
            row.active += active;
            row.is_other_side &= !counts;
            if let Some(sum) = sum {
                Arc::make_mut(&mut row.counters).merge(sum);
            }
        }
        (rows.into_values().collect(), seconds)
    }

    /// The rows of all the time since the agent started.
    pub fn since_start(&self, edges: &[EdgeView]) -> Vec<WindowRow> {
        let mut rows = self.all(edges);
        share_responses(&mut rows);
        rows
    }

    /// The rows with all that their edges have counted.
    fn all(&self, edges: &[EdgeView]) -> Vec<WindowRow> {
        // Of a row with several edges one may count.
        let mut counts: HashMap<_, bool> = HashMap::new();
        for Subject { labels, counts: one, .. } in self.subjects.iter().map(|(_, subject)| subject)
        {
            *counts.entry(labels.names()).or_default() |= one;
        }
        let row = |edge: &EdgeView| WindowRow {
            labels: Arc::clone(&edge.labels),
            counters: Arc::clone(&edge.counters),
            active: edge.counters.active(),
            queues: edge.queues,
            is_other_side: counts.get(&edge.labels.names()).is_some_and(|counts| !counts),
            address: None,
        };
        edges.iter().map(row).collect()
    }
}

/// What a server answers is seen on its side only: the client's row of the same connections has it
/// from there.
pub fn share_responses(rows: &mut [WindowRow]) {
    let servers = rows.iter().filter(|row| row.is_other_side && row.labels.role == Role::Server);
    let has_any = |row: &&WindowRow| {
        row.counters.responses != [0; RESPONSES] || !row.counters.operations.is_empty()
    };
    let answered = servers.filter(has_any);
    let answered: Vec<_> =
        answered.map(|row| (Arc::clone(&row.labels), Arc::clone(&row.counters))).collect();
    let answered: HashMap<_, _> =
        answered.iter().map(|(labels, counters)| (labels.ends(), counters)).collect();
    if answered.is_empty() {
        return;
    }
    for row in rows.iter_mut().filter(|row| row.labels.role == Role::Client) {
        if let Some(theirs) = answered.get(&row.labels.ends()) {
            let mine = Arc::make_mut(&mut row.counters);
            mine.responses = theirs.responses;
            mine.operations = theirs.operations.clone();
        }
    }
}

// === impl Step ===

impl Step {
    fn joined(&self, later: &Self) -> Self {
        let mut grown = self.grown.clone();
        for (subject, packed) in &later.grown {
            grown
                .entry(*subject)
                .and_modify(|before| *before = before.plus(packed))
                .or_insert_with(|| packed.clone());
        }
        let bytes = grown.values().map(|packed| packed.len() + PER_EDGE).sum();
        Self { since_us: self.since_us, until_us: later.until_us, grown, bytes }
    }
}

// === impl Subject ===

impl Subject {
    /// Whether its row is shown by default: not if the client's side is a row of its own, or if a
    /// user can have made it up.
    fn is_shown(&self) -> bool {
        self.counts && self.labels.unverified_user.is_none()
    }

    fn of(delta: &Delta) -> Self {
        let server = if delta.role == ROLE_CLIENT { delta.key.remote } else { delta.local };
        let is_known = !delta.is_overflow && server != UNSPECIFIED && server != INTERNET;
        let port = delta.labels.port;
        Self {
            labels: Arc::clone(&delta.labels),
            address: is_known.then(|| SocketAddr::new(address::to_ip(server), port)),
            counts: delta.counts || delta.labels.role != Role::Server,
            is_unsent: delta.table == Table::Unsent,
            total: delta.grown.now.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
