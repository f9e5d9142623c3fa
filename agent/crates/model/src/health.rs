//! Services and their health, from their traffic over the last minutes.
//!
//! The figures of edges are summed up by the server's service, in one table per minute
//! ([`Epochs`]); the tables of the last minutes are added up on request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::edge::CONNECT_OK;
use agent_common::histogram::Histogram;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::delta::Delta;
use super::port::Port;
use super::registry::Endpoint;
use super::service::Service;
use super::snapshot::{EdgeLabels, EdgeView, Role, Snapshot};

/// Interval of the tables, seconds.
const EVERY: f64 = 60.0;
/// Number of tables; so the window is five to six minutes long, once the agent has run for that.
const KEPT: usize = 6;
/// Services in a table at most; one that is over reads as idle.
const MOST: usize = 1024;

/// Below this share of connects that succeed a service is failing.
const FAILING: f64 = 0.5;
/// From this many requests without a response on, a service is failing if it answers fewer.
const MANY_UNANSWERED: u64 = 10;

/// Name and namespace.
type Key = (Arc<str>, Arc<str>);

/// The traffic of a service as a server.
#[derive(Clone, Debug, Default, PartialEq)]
struct Totals {
    /// As the clients of this host saw it, including failures.
    by_clients: Side,
    /// As the service itself saw it, if it runs on this host.
    by_itself: Side,
    overflows: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Side {
    ok: u64,
    failed: u64,
    resets: u64,
    aborts: u64,
    unanswered: u64,
    requests: Histogram,
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

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Its name, and the surest way in which it was found.
    pub service: Service,
    /// Endpoints registered by hand.
    pub registered: Vec<Endpoint>,
    /// Ports it listens on here.
    pub listens: BTreeSet<Port>,
    /// Its ports with clients.
    pub serves: BTreeSet<Port>,
    /// Its health.
    pub health: Health,
}

/// How a service is, over the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// One-word summary.
    pub state: HealthState,
    /// Length of the window, seconds.
    pub window_seconds: f64,
    /// Connections to it that were established.
    pub connects_ok: u64,
    /// Attempts to connect that failed, as clients of this host saw them.
    pub connects_failed: u64,
    /// Share of the attempts that succeeded; null without attempts.
    pub success_ratio: Option<f64>,
    /// Requests it answered.
    pub requests: u64,
    /// Requests without a response: the connection ended, or the client gave up.
    pub unanswered: u64,
    /// Half of the answered ones took at most this long; null without requests.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 took at most this long.
    pub p99_seconds: Option<f64>,
    /// Connections that ended with a reset, sent or received.
    pub resets: u64,
    /// Established connections that a kernel gave up because the other end did not answer.
    pub aborts: u64,
    /// Connection requests its listeners dropped.
    pub listen_overflows: u64,
}

/// One-word health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Most attempts to connect fail, or most of many requests are not answered.
    Failing,
    /// Some attempts fail, requests are not answered, connections are reset or die, or connection
    /// requests are dropped.
    Degraded,
    /// Traffic, and nothing wrong with it.
    Ok,
    /// No traffic within the window.
    Idle,
}

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
    fn since_seconds(&self) -> Option<f64> {
        self.0.front().map(|first| first.since_seconds)
    }

    /// Everything in the window.
    fn totals(&self) -> HashMap<Key, Totals> {
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

/// Every service of an edge, listener or registration, sorted by namespace and name, without the
/// unknown ones.
pub fn services(snapshot: &Snapshot) -> Vec<ServiceView> {
    let mut found = Found::new(snapshot);
    for EdgeView { labels, .. } in &snapshot.edges {
        found.meet(&labels.client);
        let server = found.meet(&labels.server);
        if labels.port != 0 && labels.role != Role::Listener {
            server.serves.insert(Port::tcp(labels.port));
        }
    }
    for listener in &snapshot.listeners {
        found.meet(&listener.service).listens.insert(Port::tcp(listener.port));
    }
    for registration in snapshot.reservations.state.registry.iter() {
        let named = Service::registered(&registration.service);
        found.meet(&named).registered.clone_from(&registration.endpoints);
    }
    let is_service = |view: &ServiceView| {
        !view.service.is_called_as(&Service::any()) && !view.service.is_loopback()
    };
    found.views.into_values().filter(is_service).collect()
}

/// Services met so far.
struct Found {
    /// By namespace and name.
    views: BTreeMap<Key, ServiceView>,
    totals: HashMap<Key, Totals>,
    window_seconds: f64,
}

impl Found {
    fn new(snapshot: &Snapshot) -> Self {
        let Snapshot { taken_seconds, health, .. } = snapshot;
        let since = health.since_seconds().unwrap_or(*taken_seconds);
        let window_seconds = (taken_seconds - since).max(0.0);
        Self { views: BTreeMap::new(), totals: health.totals(), window_seconds }
    }

    fn meet(&mut self, service: &Service) -> &mut ServiceView {
        let Self { views, totals, window_seconds } = self;
        let view =
            views.entry((service.namespace.clone(), service.name.clone())).or_insert_with(|| {
                let key = (service.name.clone(), service.namespace.clone());
                let none = Totals::default();
                let totals = totals.get(&key).unwrap_or(&none);
                ServiceView {
                    service: service.clone(),
                    registered: Vec::new(),
                    listens: BTreeSet::new(),
                    serves: BTreeSet::new(),
                    health: Health::of(totals, *window_seconds),
                }
            });
        if service.source < view.service.source {
            view.service = service.clone();
        }
        view
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

// === impl Health ===

impl Health {
    fn of(totals: &Totals, window_seconds: f64) -> Self {
        let Totals { by_clients, by_itself, overflows } = totals;
        let overflows = *overflows;
        // A connection within this host is seen by both sides and must count once. The service's
        // own side sees everything that reached it, from other hosts too; only clients see
        // failures.
        let (connects_ok, seen) = if by_itself.ok > 0 || by_itself.requests.count() > 0 {
            (by_itself.ok, by_itself)
        } else {
            (by_clients.ok, by_clients)
        };
        let failed = by_clients.failed;
        let attempts = connects_ok + failed;
        let success_ratio = (attempts > 0).then(|| connects_ok as f64 / attempts as f64);
        let quantile = |q| seen.requests.quantile_us(q).filter(|us| us.is_finite());
        // Connections that break may be older than the window.
        let resets = by_itself.resets.max(by_clients.resets);
        let aborts = by_itself.aborts.max(by_clients.aborts);
        // A client may also give up a response that comes later, so it may know of more.
        let unanswered = by_itself.unanswered.max(by_clients.unanswered);
        let is_silent = unanswered >= MANY_UNANSWERED && unanswered > seen.requests.count();
        let is_faulty = [failed, resets, aborts, unanswered, overflows].iter().any(|n| *n > 0);
        let state = match success_ratio {
            Some(ratio) if ratio < FAILING => HealthState::Failing,
            _ if is_silent => HealthState::Failing,
            _ if is_faulty => HealthState::Degraded,
            None if seen.requests.count() == 0 => HealthState::Idle,
            _ => HealthState::Ok,
        };
        Self {
            state,
            window_seconds,
            connects_ok,
            connects_failed: failed,
            success_ratio,
            requests: seen.requests.count(),
            unanswered,
            p50_seconds: quantile(0.5).map(|us| us / 1e6),
            p99_seconds: quantile(0.99).map(|us| us / 1e6),
            resets,
            aborts,
            listen_overflows: overflows,
        }
    }
}

// === impl HealthState ===

impl HealthState {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Degraded => "degraded",
            Self::Ok => "ok",
            Self::Idle => "idle",
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_common::abort::KEEPALIVE;
    use agent_common::address::UNSPECIFIED;
    use agent_common::drained::{Edge, Table};
    use agent_common::edge::{CONNECT_REFUSED, EdgeKey, ROLE_CLIENT, ROLE_SERVER};
    use agent_common::reset::NO_LISTENER;
    use agent_common::wire::Wire as _;

    use super::*;
    use crate::fixture;
    use crate::service::Source;
    use crate::tables::Tables;

    /// An edge of this role with these totals.
    fn edge(role: u8, ok: u64, refused: u64, requests: u64, resets: u64) -> Edge {
        let mut counters = EdgeCounters::ZERO;
        counters.connects[usize::from(CONNECT_OK)] = ok;
        counters.connects[usize::from(CONNECT_REFUSED)] = refused;
        counters.resets_received[0] = resets;
        for _ in 0..requests {
            counters.request.observe(1000);
        }
        let key = EdgeKey { port: 5432, role, ..EdgeKey::zeroed() };
        let (slot, local, remote) = (3 + u32::from(role), UNSPECIFIED, UNSPECIFIED);
        Edge {
            table: Table::Edges,
            slot,
            key,
            local,
            remote,
            born_us: 1,
            counters: Arc::new(counters),
        }
    }

    /// An agent's tables and its history.
    #[derive(Default)]
    struct World(Tables, Epochs);

    impl World {
        fn health_as(&mut self, server: &str, now: f64, edges: &[Edge]) -> Health {
            let db = Service::new(server, Source::Process);
            let web = Service::new("web", Source::Process);
            let name = |edge: &Edge| {
                let role = if edge.key.role == ROLE_CLIENT { Role::Client } else { Role::Server };
                EdgeLabels::new(web.clone(), db.clone(), 5432, role)
            };
            let updated = self.0.update(now as u64, edges, crate::reclaim::Room::of(100), name);
            self.1.observe(now, &updated.deltas.edges);
            let (edges, health) = (updated.edges, self.1.clone());
            let snapshot = Snapshot { taken_seconds: now, edges, health, ..fixture::snapshot() };
            let found = services(&snapshot);
            found.into_iter().find(|view| *view.service.name == *server).expect("a service").health
        }

        fn health(&mut self, now: f64, edges: &[Edge]) -> Health {
            self.health_as("db", now, edges)
        }
    }

    #[test]
    fn only_what_happened_within_the_window_counts() {
        let mut world = World::default();
        let check = |world: &mut World, now, edges: [Edge; 2], expected| {
            let health = world.health(now, &edges);
            let Health { state, connects_ok, connects_failed, requests, .. } = health;
            assert_eq!((state, connects_ok, connects_failed, requests), expected, "at {now}");
        };
        let both = |ok, refused, requests| {
            [edge(ROLE_CLIENT, ok, refused, requests, 0), edge(ROLE_SERVER, ok, 0, requests, 0)]
        };
        // Counts before the agent's first collection are not recent.
        check(&mut world, 1000.0, both(10, 5, 10), (HealthState::Idle, 0, 0, 0));
        check(&mut world, 1010.0, both(14, 5, 20), (HealthState::Ok, 4, 0, 10));
        check(&mut world, 1070.0, both(14, 6, 20), (HealthState::Degraded, 4, 1, 10));
        check(&mut world, 1130.0, both(14, 20, 20), (HealthState::Failing, 4, 15, 10));
        // The window moves on, and the failures leave it.
        for minute in 0..5 {
            world.health(1190.0 + f64::from(minute) * 60.0, &both(14, 20, 20));
        }
        check(&mut world, 1490.0, both(15, 20, 21), (HealthState::Ok, 1, 0, 1));
    }

    #[test]
    fn a_reset_degrades_and_a_row_that_begins_anew_is_no_loss() {
        let mut world = World::default();
        world.health(0.0, &[edge(ROLE_SERVER, 100, 0, 100, 0)]);
        let again = Edge { born_us: 9, ..edge(ROLE_SERVER, 3, 0, 3, 1) };
        let after = world.health(30.0, &[again]);
        assert_eq!((after.connects_ok, after.requests, after.resets), (3, 3, 1));
        assert_eq!(after.state, HealthState::Degraded);
        assert_eq!(after.p50_seconds, Some(0.001));
        assert!((after.window_seconds - 30.0).abs() < 1e-9);
    }

    /// On either side: only one of them may notice.
    #[test]
    fn a_connection_that_dies_degrades() {
        for role in [ROLE_CLIENT, ROLE_SERVER] {
            let mut world = World::default();
            let both = [edge(ROLE_CLIENT, 5, 0, 5, 0), edge(ROLE_SERVER, 5, 0, 5, 0)];
            world.health(0.0, &both);
            let mut dead = both;
            let side = dead.iter_mut().find(|edge| edge.key.role == role).expect("both are there");
            let counters = Arc::make_mut(&mut side.counters);
            counters.aborts[usize::from(KEEPALIVE)] = 1;
            let after = world.health(30.0, &dead);
            assert_eq!((after.aborts, after.state), (1, HealthState::Degraded), "role {role}");
        }
    }

    #[test]
    fn requests_without_an_answer_degrade_and_fail_a_service_that_answers_fewer() {
        let check = |role, answered: u64, unanswered: u64, expected| {
            let mut world = World::default();
            let both = [edge(ROLE_CLIENT, 5, 0, 5, 0), edge(ROLE_SERVER, 5, 0, 5, 0)];
            world.health(0.0, &both);
            let requests = 5 + answered;
            let mut later =
                [edge(ROLE_CLIENT, 9, 0, requests, 0), edge(ROLE_SERVER, 9, 0, requests, 0)];
            let side = later.iter_mut().find(|edge| edge.key.role == role).expect("both are there");
            Arc::make_mut(&mut side.counters).unanswered = unanswered;
            let after = world.health(30.0, &later);
            let found = (after.requests, after.unanswered, after.state);
            assert_eq!(found, (answered, unanswered, expected), "role {role}");
        };
        // A client on another host, or a server that holds on to the connection: one side knows.
        for role in [ROLE_CLIENT, ROLE_SERVER] {
            check(role, 8, 0, HealthState::Ok);
            check(role, 8, 1, HealthState::Degraded);
            check(role, 0, 9, HealthState::Degraded);
            check(role, 10, 10, HealthState::Degraded);
            check(role, 9, 10, HealthState::Failing);
        }
    }

    #[test]
    fn a_refused_connect_is_a_failed_connect_and_no_reset() {
        let mut world = World::default();
        world.health(0.0, &[edge(ROLE_CLIENT, 5, 0, 0, 0)]);
        let mut refused = edge(ROLE_CLIENT, 9, 1, 4, 0);
        let counters = Arc::make_mut(&mut refused.counters);
        counters.resets_received[usize::from(NO_LISTENER)] = 1;
        counters.resets_sent[usize::from(NO_LISTENER)] = 1;
        let after = world.health(30.0, &[refused]);
        assert_eq!((after.connects_failed, after.resets), (1, 0));
        assert_eq!(after.state, HealthState::Degraded);
    }

    #[test]
    fn what_was_long_ago_is_no_news_under_a_better_name() {
        let mut world = World::default();
        world.health_as("10.0.0.1", 0.0, &[edge(ROLE_SERVER, 100, 0, 100, 0)]);
        let named = world.health_as("db", 30.0, &[edge(ROLE_SERVER, 102, 0, 102, 0)]);
        assert_eq!((named.connects_ok, named.requests), (2, 2));
    }

    #[test]
    fn every_end_listener_and_registration_is_a_service() {
        let found = services(&fixture::snapshot());
        let name = |view: &ServiceView| view.service.name.to_string();
        let names: Vec<_> = found.iter().map(name).collect();
        assert_eq!(names, ["billing", "internet", "other", "postgres", "shop"]);
        let billing = &found[0];
        assert_eq!(billing.service.source, Source::Registered);
        assert_eq!(billing.registered.len(), 1);
        let postgres = found.iter().find(|view| name(view) == "postgres").expect("there");
        assert_eq!(postgres.listens, BTreeSet::from([Port::tcp(5432)]));
        assert_eq!(postgres.serves, BTreeSet::from([Port::tcp(5432)]));
    }
}
