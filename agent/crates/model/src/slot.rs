//! A slot of the kernel's table of edges, the names of its two ends, and when they change.
//!
//! The name of an end can change for two reasons, and they are not the same:
//!
//! * *better*: the same one has a better name now, because its runtime has reported it, or because
//!   only its address was known. Everything the slot has counted belongs to the better name.
//! * *another*: another one is there now, as when a pod's address is given to the next pod. What
//!   was counted stays with the former one, only what comes belongs to the new one.
//!
//! [`Entity`] separates them. While a name is not stable (its source has not reported yet, or the
//! one that bore it cannot be found there any more) what is counted waits for some seconds, so
//! that it is reported under the right name at once. But what has come until the former one is missed
//! for the first time was for that one: the kernel half calls when a listener closes.

use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::edge::ROLE_SERVER;

use super::deduplication::Deduplication;
use super::delta::{Delta, EdgeId, Growth, Renamed};
use super::reclaim::Lifecycle;
use super::service::{Entity, Service, Source};
use super::snapshot::{EdgeLabels, Role};
use agent_common::drained::Edge;

/// What is counted waits for a stable name at most so long, seconds.
pub const PATIENCE_SECONDS: u64 = 3;

/// How an edge is called now.
#[derive(Clone, Debug)]
pub struct Naming {
    /// Its labels.
    pub labels: EdgeLabels,
    /// Who the client is.
    pub client: Entity,
    /// Who the server is.
    pub server: Entity,
    /// Whether a better name is not to be expected in the next seconds.
    pub stable: bool,
    /// Whether the network namespace of the near end has ended and its number is another's: what is
    /// found at the far end now is not what was there.
    pub keeps_far: bool,
}

/// A slot in use.
pub(super) struct Slot {
    pub(super) born_us: u64,
    pub(super) labels: Arc<EdgeLabels>,
    /// Whether it had something new at the last look.
    pub(super) moved: bool,
    pub(super) lifecycle: Lifecycle,
    /// The last drain that it was in.
    pub(super) round: u64,
    /// What the kernel had counted at the last look.
    counted: Arc<EdgeCounters>,
    /// What of that has been reported under some name.
    reported: Option<Arc<EdgeCounters>>,
    client: Entity,
    server: Entity,
    unstable_since: Option<u64>,
    /// The wait is over, and no name came.
    gave_up: bool,
    side: Side,
}

/// What this side does, and not the other one.
#[derive(Clone, Copy, Default)]
struct Side {
    /// Whether it counts the edge's connections.
    counts: bool,
    /// Whether it evaluates them, if that is known.
    evaluates: Option<bool>,
    /// Whether there was a connection in an earlier drain.
    had_connection: bool,
}

/// What is new of a slot.
#[derive(Default)]
pub(super) struct News {
    pub(super) is_new: bool,
    pub(super) renamed: Option<Renamed>,
    /// What had been reported before.
    pub(super) before: Option<Arc<EdgeCounters>>,
}

/// What a new name means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Another,
    /// The former one cannot be found there, and no other one either.
    Doubt,
}

impl From<EdgeLabels> for Naming {
    /// Stable, and nothing is known but the labels.
    fn from(labels: EdgeLabels) -> Self {
        let (client, server) = (Entity::UNKNOWN, Entity::UNKNOWN);
        Self { labels, client, server, stable: true, keeps_far: false }
    }
}

impl Slot {
    pub(super) fn new(edge: &Edge, naming: Naming, now: u64) -> Self {
        let Naming { labels, client, server, stable, keeps_far: _ } = naming;
        Self {
            born_us: edge.born_us,
            labels: Arc::new(labels),
            moved: true,
            lifecycle: Lifecycle::default(),
            round: 0,
            counted: Arc::clone(&edge.counters),
            reported: stable.then(|| Arc::clone(&edge.counters)),
            client,
            server,
            unstable_since: (!stable).then_some(now),
            gave_up: false,
            side: Side::default(),
        }
    }

    /// Takes in what the kernel has counted; returns what it was before if that is less.
    pub(super) fn count(&mut self, edge: &Edge) -> Option<Arc<EdgeCounters>> {
        let is_same = is_same(&self.counted, &edge.counters);
        (!is_same).then(|| std::mem::replace(&mut self.counted, Arc::clone(&edge.counters)))
    }

    /// Takes in how the edge is called now; returns what is new, if anything is.
    pub(super) fn update(&mut self, naming: Naming, now: u64) -> Option<News> {
        let naming = if naming.keeps_far { self.with_own_far_end(naming) } else { naming };
        let Naming { labels, client, server, stable, keeps_far: _ } = naming;
        let EdgeLabels {
            client: client_name,
            server: server_name,
            port,
            role,
            virtual_service,
            unverified_user,
        } = labels;
        let of_client = evaluate(&self.labels.client, self.client, &client_name, client);
        let of_server = evaluate(&self.labels.server, self.server, &server_name, server);
        let verdicts = [of_client, of_server];

        let next = EdgeLabels {
            client: choose(of_client, &self.labels.client, client_name),
            server: choose(of_server, &self.labels.server, server_name),
            port,
            role,
            virtual_service: virtual_service.or_else(|| self.labels.virtual_service.clone()),
            unverified_user,
        };
        if of_client != Verdict::Doubt && client != Entity::UNKNOWN {
            self.client = client;
        }
        if of_server != Verdict::Doubt && server != Entity::UNKNOWN {
            self.server = server;
        }
        let is_another = verdicts.contains(&Verdict::Another);
        let is_renamed = is_another || verdicts.contains(&Verdict::Better);
        let before = self.reported.clone();
        let from =
            (*self.labels != next).then(|| std::mem::replace(&mut self.labels, Arc::new(next)));
        let is_called_otherwise = from.is_some();

        self.moved = !self.has_reported_all();
        // A row that was reported before does not wait for a first name.
        if verdicts.contains(&Verdict::Doubt) {
            if self.unstable_since.is_none() {
                // What came since the last look was still for the former one.
                self.report_all();
            }
            let since = self.unstable_since.get_or_insert(now);
            // None came in time, but now a process accepts connections there: which it is will
            // be known soon.
            let opened = self.reported.as_ref().map_or(0, |reported| reported.opened);
            if self.gave_up && self.counted.opened != opened {
                *since = now;
                self.gave_up = false;
            }
        } else if stable {
            self.unstable_since = None;
            self.gave_up = false;
        }
        let waits = self.unstable_since.is_some_and(|since| now < since + PATIENCE_SECONDS);
        self.gave_up |= self.unstable_since.is_some() && !waits;
        if !waits {
            self.report_all();
        }
        let grown = Growth { before, now: self.reported.clone() };
        (is_called_otherwise || !grown.is_empty()).then(|| News {
            is_new: false,
            renamed: from.filter(|_| is_renamed).map(|from| Renamed { from, is_another }),
            before: grown.before,
        })
    }

    fn with_own_far_end(&self, mut naming: Naming) -> Naming {
        let Naming { labels, client, server, .. } = &mut naming;
        if labels.role == Role::Client {
            (labels.server, *server) = (self.labels.server.clone(), self.server);
        } else {
            (labels.client, *client) = (self.labels.client.clone(), self.client);
        }
        labels.virtual_service.clone_from(&self.labels.virtual_service);
        naming
    }

    /// Finds out which side counts and evaluates its connections; returns whether that is new.
    /// `is_other_set`: edges have come or gone since the last time.
    pub(super) fn choose_side(
        &mut self,
        edge: &Edge,
        sides: &Deduplication,
        is_other_set: bool,
    ) -> bool {
        let is_overflow = edge.is_overflow();
        let has_connection = self.reported.as_ref().is_some_and(|reported| reported.opened > 0);
        let Side { counts, evaluates, had_connection } = &mut self.side;
        let before = (*counts, *evaluates);
        if is_other_set {
            // A server's overflow row may repeat what a client's row has.
            *counts = if is_overflow { edge.key.role != ROLE_SERVER } else { sides.counts(edge) };
        }
        if !has_connection || !*had_connection || is_overflow {
            *evaluates = None;
        } else if is_other_set || evaluates.is_none() {
            *evaluates = Some(sides.evaluates(edge));
        }
        *had_connection = has_connection;
        before != (*counts, *evaluates)
    }

    pub(super) fn delta(&self, edge: &Edge, news: Option<News>) -> Delta {
        let nothing = || News { before: self.reported.clone(), ..News::default() };
        let News { is_new, renamed, before } = news.unwrap_or_else(nothing);
        Delta {
            id: EdgeId::of(edge),
            table: edge.table,
            key: edge.key,
            local: edge.local,
            remote: edge.remote,
            role: edge.key.role,
            is_overflow: edge.is_overflow(),
            born_us: edge.born_us,
            labels: Arc::clone(&self.labels),
            is_new,
            renamed,
            grown: Growth { before, now: self.reported.clone() },
            counts: self.side.counts,
            evaluates: self.side.evaluates,
        }
    }

    fn has_reported_all(&self) -> bool {
        self.reported.as_ref().is_some_and(|reported| is_same(reported, &self.counted))
    }

    fn report_all(&mut self) {
        if !self.has_reported_all() {
            self.reported = Some(Arc::clone(&self.counted));
        }
    }
}

/// The same values; mostly the very same, as the drain hands them on while nothing has moved.
fn is_same(one: &Arc<EdgeCounters>, other: &Arc<EdgeCounters>) -> bool {
    Arc::ptr_eq(one, other) || **one == **other
}

/// Compares the name that an end has with the one it would get now.
fn evaluate(old: &Service, old_entity: Entity, new: &Service, new_entity: Entity) -> Verdict {
    if old.is_called_as(new) {
        return Verdict::Same;
    }
    if new_entity == Entity::SEVERAL {
        // The old name was never right for all that was counted.
        return Verdict::Better;
    }
    let is_known = |service: &Service| !service.source.is_provisional();
    // A client's identity may be known before its name is final.
    let is_identified =
        |service: &Service| is_known(service) || service.source == Source::LocalClient;
    // A name from DNS may stand for a container that will be known; another such name is another's.
    let both_asked_for = (old.source, new.source) == (Source::Dns, Source::Dns);
    let another = (is_identified(old) && is_identified(new) || both_asked_for)
        && old_entity.differs(new_entity);
    // That one client alone connects there holds only until another does, and what was registered
    // only until it is unregistered.
    let guess_ended = match old.source {
        Source::LocalClient => new.source == Source::Address,
        Source::Registered => {
            matches!(new.source, Source::Network | Source::Dns | Source::Address)
        }
        _ => false,
    };
    if new.source > old.source && !guess_ended {
        // A name never gets worse, unless it is another's. Of a name that stood for whatever
        // is there nothing was certain.
        return match (another, is_known(old)) {
            (true, _) => Verdict::Another,
            (false, true) => Verdict::Doubt,
            (false, false) => Verdict::Same,
        };
    }
    // A proxy that listens for a container never was the service.
    let proxy = old.source == Source::Listener
        && matches!(new.source, Source::PublishedPort | Source::Conntrack);
    if another && !proxy { Verdict::Another } else { Verdict::Better }
}

/// The name that an end has after this verdict.
fn choose(verdict: Verdict, old: &Service, new: Service) -> Service {
    match verdict {
        Verdict::Better | Verdict::Another => new,
        Verdict::Same if new.is_called_as(old) && new.source <= old.source => new,
        Verdict::Same | Verdict::Doubt => old.clone(),
    }
}
