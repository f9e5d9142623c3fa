//! Events: what went wrong on edges and ports, and what changed, one by one, for readers that ask
//! "what happened" instead of "how often".
//!
//! They are made after the counting, from what other stages found: deltas with names (in the words
//! of [`why`](super::why)), conflicts, violations, conditions of the agent, [changes](Changes). Nothing
//! is counted by them. Repetitions of one cause on one edge are one event with a count: while it
//! repeats within a minute, for five minutes at most. Such an event is shown to followers when it
//! begins, and then every ten seconds at most; each time it gets a new [cursor](Event::cursor).
//!
//! A scan, or a service that fails to reach many others, is not thousands of events: beyond a
//! hundred of one cause that go on, further ones of a client are one without a server, and beyond
//! two thousand one without a client. A tenant, which can give its programs any number of names,
//! has a quarter of these at most ([`crowds`]).
//!
//! Memory is bounded by [`MOST`] events ([`ring`]). What a user can have made up
//! ([`unverified`](super::unverified)) is not an event, so a user cannot displace those of others.

mod changes;
mod crowds;
mod event;
mod ring;

use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::edge::{CONNECT_OK, ROLE_LISTENER};
use agent_common::share::Tenant;
use hashbrown::HashMap;

pub use self::changes::{Changes, Listener, SocketId};
use self::crowds::Crowds;
use self::event::Key;
pub use self::event::{Condition, Event, Kind, What};
pub use self::ring::{MOST, Ring};
use super::conflicts::Conflict;
use super::delta::{Delta, Growth};
use super::messages;
use super::relations::Ends;
use super::segments::Reason;
use super::service::Service;
#[cfg(any(test, feature = "fixture"))]
use super::service::Source;
use super::snapshot::Role;
use super::violations::{Between, Found};
use super::why::{self, why};

/// An event goes on while it repeats within this time, seconds.
const REPEATS_WITHIN: f64 = 60.0;
/// And for so long at most, seconds.
const LONGEST: f64 = 300.0;
/// An event that goes on is shown to followers so often at most, seconds.
const SHOWN_EVERY: f64 = 10.0;
/// Changes within this time before a failure may explain it, seconds.
pub const CHANGES_BEFORE: f64 = 600.0;

/// Takes in what happens.
pub struct Events {
    ring: Arc<Ring>,
    open: HashMap<Key, Open>,
    crowds: Crowds,
    totals: [u64; Kind::ALL.len()],
    overwritten: u64,
    next: u64,
    started_us: u64,
    is_first: bool,
    /// The clock of the current collection, seconds since the Unix epoch.
    now: f64,
    conditions: Vec<Condition>,
}

/// The events at one time, for readers.
#[derive(Clone, Debug, Default)]
pub struct EventsView {
    /// The latest events.
    pub ring: Arc<Ring>,
    /// What happened since the agent started, by [`Kind`].
    pub totals: [u64; Kind::ALL.len()],
    /// Events that were overwritten by later ones.
    pub overwritten: u64,
    /// Events that `events.log` did not get.
    pub not_logged: u64,
    /// Events that a follower did not get because it was too slow.
    pub not_followed: u64,
}

/// An event that may repeat.
struct Open {
    id: u64,
    tenant: Option<Tenant>,
    first: f64,
    last: f64,
    shown: Option<f64>,
    has_news: bool,
}

// === impl Events ===

impl Events {
    /// None yet; the agent started at `now_us` (CLOCK_MONOTONIC), `now` seconds since the Unix epoch.
    pub fn new(now_us: u64, now: f64) -> Self {
        Self {
            ring: Arc::default(),
            open: HashMap::new(),
            crowds: Crowds::default(),
            totals: [0; Kind::ALL.len()],
            overwritten: 0,
            // Cursors of a later start are larger, and exact as JSON numbers until the year 2255.
            next: (now.max(0.0) * 1e6) as u64 + 1,
            started_us: now_us,
            is_first: true,
            now,
            conditions: Vec::new(),
        }
    }

    /// Begins a collection at `now`, seconds since the Unix epoch.
    pub fn begin(&mut self, now: f64) {
        self.now = now;
    }

    /// Takes in what failed on edges. An edge with both sides on this host is taken once, from the
    /// client's side; responses are known to the server's side alone. `tenant` tells who has the owner with this number.
    pub fn add_edges(&mut self, deltas: &[Delta], tenant: impl Fn(u32) -> Tenant) {
        for delta in deltas.iter().filter(|delta| delta.labels.unverified_user.is_none()) {
            // Rows that an earlier agent left pinned: when it happened is unknown.
            let is_earlier = self.is_first && delta.is_new && delta.born_us < self.started_us;
            if !has_failures(&delta.grown) || (is_earlier && !delta.is_overflow) {
                continue;
            }
            let labels = &delta.labels;
            for cause in why(&delta.grown.difference(), None) {
                let Some(kind) = Kind::of_cause(cause.cause) else { continue };
                if is_other_side(delta) && kind != Kind::Response {
                    continue;
                }
                let is_listener = delta.role == ROLE_LISTENER;
                let what = What {
                    kind,
                    cause: cause.cause,
                    client: (!is_listener).then(|| labels.client.clone()),
                    server: Some(labels.server.clone()),
                    holder: None,
                    port: Some(labels.port),
                    role: Some(labels.role),
                    text: cause.text.into(),
                    tenant: Some(tenant(delta.actor())),
                };
                self.add(what, cause.count);
            }
        }
        self.is_first = false;
    }

    /// Takes in failed binds, each with how often it failed now.
    pub fn add_conflicts(&mut self, conflicts: &[(Arc<Conflict>, u64)]) {
        for (conflict, count) in conflicts {
            if conflict.unverified_user.is_some() {
                continue;
            }
            // The event has the count.
            let once = Conflict { count: 1, ..(**conflict).clone() };
            let fix = messages::fix(&once);
            let what = What {
                kind: Kind::Bind,
                cause: conflict.reason.as_str(),
                client: None,
                server: Some(conflict.claimant.service.clone()),
                holder: conflict.holder.as_ref().map(|holder| holder.party.service.clone()),
                port: Some(conflict.port),
                role: None,
                text: format!("{}. Fix: {fix}", messages::summary(&once)).into(),
                tenant: Some(Tenant { cgroup: 0, origin: conflict.origin() }),
            };
            self.add(what, *count);
        }
    }

    /// Takes in violations of segments, each with its new connections.
    pub fn add_violations(&mut self, violations: &[Found]) {
        for Found { between, connections, tenant } in violations {
            let Between { reason, client_segment, server_segment, ends } = between;
            let Ends { client, client_namespace, server, server_namespace, port } = ends;
            let service = |name: &Arc<str>, namespace: &Arc<str>| {
                Service { name: Arc::clone(name), ..Service::other() }.within(namespace)
            };
            let what = What {
                kind: Kind::Violation,
                cause: "segment_violation",
                client: Some(service(client, client_namespace)),
                server: Some(service(server, server_namespace)),
                holder: None,
                port: Some(*port),
                role: None,
                text: match reason {
                    Reason::NotAllowed => {
                        format!("not allowed from segment {client_segment} to {server_segment}")
                    }
                    Reason::Plaintext => format!(
                        "in plain text from segment {client_segment} to {server_segment}, which requires TLS"
                    ),
                }
                .into(),
                tenant: Some(*tenant),
            };
            self.add(what, *connections);
        }
    }

    /// Takes in the problems that the agent has now; those that it had before are not new events.
    pub fn add_conditions(&mut self, conditions: Vec<Condition>) {
        let is_same = |one: &Condition, other: &Condition| {
            (one.cause, &one.subject) == (other.cause, &other.subject)
        };
        let before = std::mem::take(&mut self.conditions);
        for condition in &conditions {
            if before.iter().any(|known| is_same(known, condition)) {
                continue;
            }
            let what = What {
                kind: Kind::Agent,
                cause: condition.cause,
                client: None,
                server: None,
                holder: None,
                port: None,
                role: None,
                text: condition.text.as_str().into(),
                tenant: None,
            };
            self.add(what, 1);
        }
        self.conditions = conditions;
    }

    /// Takes in changes.
    pub fn add_changes(&mut self, changes: Vec<What>) {
        for what in changes {
            self.add(what, 1);
        }
    }

    /// Ends the collection; returns the events that followers have not seen so.
    pub fn finish(&mut self) -> Vec<Arc<Event>> {
        let Self { ring, open, crowds, next, now, .. } = self;
        let mut shown = Vec::new();
        open.retain(|key, open| {
            let has_ended = *now - open.last > REPEATS_WITHIN || *now - open.first > LONGEST;
            let is_due = open.shown.is_none_or(|shown| *now - shown >= SHOWN_EVERY);
            if open.has_news && (is_due || has_ended) {
                open.has_news = false;
                open.shown = Some(*now);
                shown.push((open.id, key.cause));
            }
            if has_ended {
                crowds.leave(key, open.tenant);
            }
            !has_ended
        });
        if shown.is_empty() {
            return Vec::new();
        }
        shown.sort_unstable();
        let ring = Arc::make_mut(ring);
        let show = |(id, cause)| {
            let event = ring.change(cause, id, |event| {
                event.cursor = *next;
            })?;
            *next += 1;
            Some(event)
        };
        shown.into_iter().filter_map(show).collect()
    }

    /// The events for readers.
    pub fn view(&self) -> EventsView {
        let (ring, totals, overwritten) = (Arc::clone(&self.ring), self.totals, self.overwritten);
        EventsView { ring, totals, overwritten, not_logged: 0, not_followed: 0 }
    }

    /// The same, or without its server or client if there are too many like it.
    fn with_room(&self, what: What) -> What {
        if self.open.contains_key(&what.key()) {
            return what;
        }
        let are_many = self.crowds.are_full(&what);
        if !are_many && !self.crowds.is_client_full(&what) {
            return what;
        }
        let text = match what.kind {
            Kind::Bind => "failed to bind ports".into(),
            Kind::Backend => "has other backends".into(),
            _ => what.text,
        };
        let client = what.client.filter(|_| !are_many);
        What { client, server: None, holder: None, port: None, text, ..what }
    }

    fn add(&mut self, what: What, count: u64) {
        if let Some(total) = self.totals.get_mut(what.kind as usize) {
            *total += count;
        }
        let what = self.with_room(what);
        let (now, key, tenant) = (self.now, what.key(), what.tenant);
        let ring = Arc::make_mut(&mut self.ring);
        if let Some(open) = self.open.get_mut(&key) {
            let again = ring.change(what.cause, open.id, |event| {
                event.count += count;
                event.last_seconds = now;
                event.what.text = Arc::clone(&what.text);
            });
            if again.is_some() {
                open.last = now;
                open.has_news = true;
                return;
            }
        }
        let id = self.next;
        self.next += 1;
        let event = Event { id, cursor: id, first_seconds: now, last_seconds: now, count, what };
        if let Some(overwritten) = ring.push(event) {
            self.overwritten += 1;
            let key = overwritten.what.key();
            let is_open = self.open.get(&key).is_some_and(|open| open.id == overwritten.id);
            if let Some(open) = is_open.then(|| self.open.remove(&key)).flatten() {
                self.crowds.leave(&key, open.tenant);
            }
        }
        self.crowds.enter(&key, tenant);
        let open = Open { id, tenant, first: now, last: now, shown: None, has_news: true };
        self.open.insert(key, open);
    }
}

// === impl EventsView ===

impl EventsView {
    /// A failure that repeats, and a start before it.
    #[cfg(any(test, feature = "fixture"))]
    pub(super) fn example() -> Self {
        let shop = Service::new("shop", Source::Container).within("prod");
        let postgres = Service::new("postgres", Source::Process);
        let mut events = Events::new(0, 1_700_000_000.0);
        events.begin(1_700_000_060.5);
        let start = What::of_service(Kind::Service, "service_restarted", postgres, "restarted");
        events.add_changes(vec![start.clone()]);
        events.finish();
        let refused = What {
            kind: Kind::Connect,
            cause: "connect_refused",
            client: Some(shop),
            port: Some(5432),
            role: Some(Role::Client),
            text: "refused".into(),
            ..start
        };
        for (at, count) in [(1_700_000_061.5, 1), (1_700_000_081.5, 1)] {
            events.begin(at);
            events.add(refused.clone(), count);
            events.finish();
        }
        events.view()
    }

    /// Changes that may explain a failure, latest first: all but that an edge was seen first or last.
    pub fn changes(&self) -> Vec<&Arc<Event>> {
        let is_one = |event: &Event| event.what.kind.is_change() && event.what.kind != Kind::Edge;
        let mut changes = self.ring.after(0, is_one);
        changes.sort_by(|a, b| b.last_seconds.total_cmp(&a.last_seconds));
        changes
    }
}

/// Whether a failure was counted; most of what grows has none.
fn has_failures(grown: &Growth) -> bool {
    static NOTHING: EdgeCounters = EdgeCounters::ZERO;
    fn failures(counters: &EdgeCounters) -> impl PartialEq + '_ {
        let EdgeCounters { connects, resets_sent, resets_received, aborts, .. } = counters;
        let failed = connects.get(usize::from(CONNECT_OK) + 1..);
        let EdgeCounters { unanswered, unanswered_stopping, listen_drops, .. } = counters;
        let others = (unanswered, unanswered_stopping, listen_drops);
        let answered = (why::error_responses(counters), why::failed_lookups(counters));
        (failed, resets_sent, resets_received, aborts, others, answered)
    }
    let Some(now) = &grown.now else { return false };
    let before = grown.before.as_deref().unwrap_or(&NOTHING);
    !grown.is_empty() && failures(before) != failures(now)
}

/// Whether an edge's failures are those of a row that is shown, as [`super::recent`] decides it.
fn is_shown(delta: &Delta) -> bool {
    !is_other_side(delta) && delta.labels.unverified_user.is_none()
}

/// Whether the client's side of the same connections is on this host, too.
fn is_other_side(delta: &Delta) -> bool {
    delta.labels.role == Role::Server && !delta.counts
}

#[cfg(test)]
mod tests;
