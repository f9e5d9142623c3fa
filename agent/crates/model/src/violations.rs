//! Judging every edge by the declared segments, and keeping what was found.
//!
//! An edge is judged in the second drain that shows a connection of it: by then both sides'
//! rows are there, so that [`Sides`] can tell which of them speaks. It is judged again whenever its
//! names, its connections or its side change. Connections that were not taken for violations under
//! an earlier name count when the right name makes them some; each counts once.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use agent_common::address::{self, Address, INTERNET, UNSPECIFIED};
use agent_common::edge::{FIRST_FREE_SLOT, ROLE_CLIENT};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::attributed::{Attributed, Name};
use super::per_slot::PerSlot;
use super::relations::{Ends, ServiceName};
use super::segments::{Policy, Segment, Verdict};
use super::sides::Sides;
use super::slot::Told;
use super::snapshot::EdgeLabels;
use super::tally::Merge;
use agent_common::drained::Edge;

/// Rows of violations at most.
const MAX_ROWS: usize = 4096;
/// Events kept at most.
const MAX_EVENTS: usize = 256;
/// Violations of one edge within this time are one event, seconds.
const EVENT_SECONDS: f64 = 60.0;
/// Lines for the log in a minute.
const LINES_PER_MINUTE: u64 = 20;

/// All edges as judged.
pub struct Violations {
    policy: Arc<Policy>,
    slots: PerSlot<Judged>,
    rows: Attributed<Between, Count>,
    cells: HashMap<(Segment, Segment), u64>,
    events: VecDeque<Arc<Event>>,
    dropped_events: u64,
    minute: u64,
    lines: u64,
    suppressed: u64,
    generation: u64,
}

/// The two ends of a violation, by names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Between {
    /// Segment of who connects; `outside` for those in none.
    pub client_segment: Arc<str>,
    /// Segment of who is connected to.
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
    /// Address of who connects; null for clients from outside the internal ranges.
    pub client_address: Option<IpAddr>,
    /// Address of who is connected to.
    pub server_address: Option<IpAddr>,
    /// How many connections.
    pub connections: u64,
    #[serde(skip)]
    slot: u32,
}

/// What is known of segments at one moment.
#[derive(Clone, Debug)]
pub struct SegmentsView {
    /// What was declared.
    pub policy: Arc<Policy>,
    /// Connections seen between segments, by their numbers.
    pub cells: Vec<((Segment, Segment), u64)>,
    /// Violations by their ends.
    pub rows: Vec<(Between, u64)>,
    /// The latest events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Events that were dropped for later ones.
    pub dropped_events: u64,
    /// Edges that found no row of violations of their own.
    pub folded: u64,
}

/// What is to be said in the log.
#[derive(Debug, Default)]
pub struct Lines {
    /// New events.
    pub events: Vec<Arc<Event>>,
    /// How many were kept back in the minute before.
    pub suppressed: u64,
}

struct Judged {
    born_us: u64,
    /// When it was last in a drain.
    generation: u64,
    /// How often it was seen with a connection, up to two.
    sightings: u8,
    opinion: Option<Opinion>,
    /// Connections counted as violations.
    counted: u64,
    /// How often somebody else took the place of an end.
    others: u32,
}

/// What was last said, and of what.
struct Opinion {
    labels: Arc<EdgeLabels>,
    speaks: bool,
    opened: u64,
    /// Where it is counted in the matrix, if it speaks.
    cell: Option<(Segment, Segment)>,
}

#[derive(Clone, Copy, Default)]
struct Count(u64);

// === impl Violations ===

impl Violations {
    /// Nothing seen yet.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            slots: PerSlot::default(),
            rows: Attributed::new(MAX_ROWS),
            cells: HashMap::new(),
            events: VecDeque::new(),
            dropped_events: 0,
            minute: 0,
            lines: 0,
            suppressed: 0,
            generation: 0,
        }
    }

    /// Judges the edges of a drain at `now` (seconds since the Unix epoch).
    pub fn update<'a>(
        &mut self,
        now: f64,
        edges: &[Edge],
        sides: &Sides,
        told: impl Fn(u32) -> Option<Told<'a>>,
    ) -> Lines {
        self.generation += 1;
        self.rows.advance(now as u64);
        let mut lines = self.turn_minute(now);
        for edge in edges {
            if edge.slot < FIRST_FREE_SLOT || edge.key.remote == UNSPECIFIED {
                continue;
            }
            let Some(told) = told(edge.slot) else { continue };
            if let Some(event) = self.judge(now, edge, sides, told) {
                if self.lines < LINES_PER_MINUTE {
                    self.lines += 1;
                    lines.events.push(event);
                } else {
                    self.suppressed += 1;
                }
            }
        }
        let Self { slots, rows, generation, .. } = self;
        slots.retain(|slot, judged| {
            let stays = judged.generation == *generation;
            if !stays {
                rows.release(slot);
            }
            stays
        });
        lines
    }

    /// What is known now.
    pub fn view(&self) -> SegmentsView {
        let mut rows: Vec<_> =
            self.rows.iter().map(|(between, count)| (between.clone(), count.0)).collect();
        rows.sort_unstable();
        let mut cells: Vec<_> =
            self.cells.iter().filter(|(_, n)| **n > 0).map(|(cell, n)| (*cell, *n)).collect();
        cells.sort_unstable();
        SegmentsView {
            policy: Arc::clone(&self.policy),
            cells,
            rows,
            events: self.events.iter().cloned().collect(),
            dropped_events: self.dropped_events,
            folded: self.rows.folded(),
        }
    }

    /// Returns the event if it is a new one.
    fn judge(
        &mut self,
        now: f64,
        edge: &Edge,
        sides: &Sides,
        told: Told<'_>,
    ) -> Option<Arc<Event>> {
        let Told { labels, counters, others } = told;
        let known = self.slots.get(edge.slot).map(|judged| judged.born_us);
        if known.is_some_and(|born_us| born_us != edge.born_us) {
            self.slots.remove(edge.slot);
            self.rows.release(edge.slot);
        }
        let judged = self.slots.get_or_insert_with(edge.slot, || Judged::new(edge.born_us));
        judged.generation = self.generation;
        let opened = counters.opened;
        if opened == 0 || judged.sightings == 0 {
            judged.sightings = u8::from(opened > 0);
            return None;
        }
        let speaks = sides.judge(edge);
        let is_another = judged.others != others;
        if is_another {
            // What came before was the former one's.
            let theirs = judged.opinion.as_ref().map_or(0, |before| before.opened);
            judged.counted = judged.counted.max(theirs);
            judged.others = others;
        }
        let before = judged.opinion.take();
        if let Some(before) = before {
            if before.speaks == speaks && before.opened == opened && before.labels == *labels {
                judged.opinion = Some(before);
                return None;
            }
            if let Some(count) = before.cell.and_then(|cell| self.cells.get_mut(&cell)) {
                *count = count.saturating_sub(before.opened);
            }
        }
        let (client_address, server_address) = ends(edge);
        let client = self.policy.segment(&labels.client, client_address);
        let server = self.policy.segment(&labels.server, server_address);
        let cell = speaks.then_some((client, server));
        if let Some(cell) = cell {
            *self.cells.entry(cell).or_default() += opened;
        }
        judged.opinion = Some(Opinion { labels: Arc::clone(labels), speaks, opened, cell });
        if !speaks || self.policy.verdict(client, server) != Verdict::Violation {
            return None;
        }
        let between = Between {
            client_segment: self.policy.name(client),
            server_segment: self.policy.name(server),
            ends: Ends::new(
                ServiceName::from(&labels.client),
                ServiceName::from(&labels.server),
                edge.key.port,
            ),
        };
        self.rows.assign(edge.slot, &between, is_another);
        let new = opened.saturating_sub(judged.counted);
        judged.counted = opened;
        if new == 0 {
            return None;
        }
        if let Some(count) = self.rows.value_mut(edge.slot) {
            count.0 += new;
        }
        self.tell(Event {
            first_seconds: now,
            last_seconds: now,
            between,
            client_address,
            server_address,
            connections: new,
            slot: edge.slot,
        })
    }

    /// Adds to the event of the same edge, or makes a new one, which is returned.
    fn tell(&mut self, event: Event) -> Option<Arc<Event>> {
        let same = self.events.iter_mut().rev().find(|other| {
            other.slot == event.slot
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

    fn turn_minute(&mut self, now: f64) -> Lines {
        let minute = (now / 60.0) as u64;
        if minute == self.minute {
            return Lines::default();
        }
        self.minute = minute;
        self.lines = 0;
        Lines { events: Vec::new(), suppressed: std::mem::take(&mut self.suppressed) }
    }
}

impl Judged {
    fn new(born_us: u64) -> Self {
        Self { born_us, generation: 0, sightings: 0, opinion: None, counted: 0, others: 0 }
    }
}

impl Merge for Count {
    fn merge(&mut self, other: &Self) {
        self.0 += other.0;
    }
}

impl Name for Between {
    fn other() -> Self {
        let other: Arc<str> = "other".into();
        Self {
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

/// Addresses of client and server, as far as the row has them.
fn ends(edge: &Edge) -> (Option<IpAddr>, Option<IpAddr>) {
    let real = |address: &Address| {
        let is_real =
            *address != INTERNET && *address != UNSPECIFIED && address::owner_of(address).is_none();
        is_real.then(|| address::to_ip(*address))
    };
    let (local, remote) = (real(&edge.local), real(&edge.key.remote));
    if edge.key.role == ROLE_CLIENT { (local, remote) } else { (remote, local) }
}

#[cfg(test)]
mod tests;
