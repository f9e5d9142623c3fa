//! A slot of the kernel's table of edges, the names of its two ends, and when they change.
//!
//! The name of an end can change for two reasons, and they are not the same:
//!
//! * *better*: the same one has a better name now, because its runtime has told it, or because
//!   only its address was known. Everything the slot has counted belongs to the better name.
//! * *another*: another one is there now, as when a pod's address is given to the next pod. What
//!   was counted stays with the former one, only what comes belongs to the new one.
//!
//! [`Entity`] tells them apart. While a name is not settled (its source has not told yet, or the
//! one that bore it cannot be found there any more) what is counted waits for some seconds, so
//! that it is told under the right name at once. But what has come until the former one is missed
//! for the first time was for that one: the kernel half calls when a listener closes.

use std::sync::Arc;

use agent_common::edge::EdgeCounters;
use agent_common::wire::Wire as _;

use super::reclaim::Lifecycle;
use super::service::{Entity, Service, Source};
use super::snapshot::EdgeLabels;
use agent_common::drained::Edge;

/// What is counted waits for a settled name at most so long, seconds.
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
    pub settled: bool,
}

/// A slot in use.
pub(super) struct Slot {
    pub(super) born_us: u64,
    pub(super) labels: Arc<EdgeLabels>,
    /// Whether it had something new to tell at the last look.
    pub(super) moved: bool,
    pub(super) lifecycle: Lifecycle,
    /// What has been counted, as far as it has been told under some name.
    told: Arc<EdgeCounters>,
    /// What of that stays with rows that the slot has left.
    left: Option<Box<EdgeCounters>>,
    client: Entity,
    server: Entity,
    unsettled_since: Option<u64>,
    /// The wait is over, and no name came.
    gave_up: bool,
    /// How often somebody else took the place of an end.
    others: u32,
}

/// What a slot has told so far.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Under which name.
    pub labels: &'a Arc<EdgeLabels>,
    /// What, under whichever names: it only grows.
    pub counters: &'a Arc<EdgeCounters>,
    /// How often somebody else took the place of an end: what was told before is not theirs.
    pub others: u32,
}

/// A slot has got another name.
pub(super) struct Move {
    /// What it was called.
    pub(super) from: Arc<EdgeLabels>,
    /// Whether it is somebody else now.
    pub(super) is_another: bool,
    /// What it had told under that name.
    pub(super) told: Arc<EdgeCounters>,
}

/// What a new name means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Another,
    /// The former one cannot be found there, and nobody else either.
    Doubt,
}

impl From<EdgeLabels> for Naming {
    /// Settled, and nothing is known but the labels.
    fn from(labels: EdgeLabels) -> Self {
        Self { labels, client: Entity::UNKNOWN, server: Entity::UNKNOWN, settled: true }
    }
}

impl Slot {
    pub(super) fn new(edge: &Edge, naming: Naming, now: u64) -> Self {
        let Naming { labels, client, server, settled } = naming;
        Self {
            born_us: edge.born_us,
            labels: Arc::new(labels),
            moved: true,
            lifecycle: Lifecycle::default(),
            told: if settled { edge.counters.clone() } else { Arc::new(EdgeCounters::zeroed()) },
            left: None,
            client,
            server,
            unsettled_since: (!settled).then_some(now),
            others: 0,
            gave_up: false,
        }
    }

    /// Takes in what the kernel has counted and how the edge is called now.
    pub(super) fn update(&mut self, edge: &Edge, naming: Naming, now: u64) -> Option<Move> {
        let Naming { labels, client, server, settled } = naming;
        let EdgeLabels { client: client_name, server: server_name, port, role, asked } = labels;
        let of_client = judge(&self.labels.client, self.client, &client_name, client);
        let of_server = judge(&self.labels.server, self.server, &server_name, server);
        let verdicts = [of_client, of_server];

        let next = EdgeLabels {
            client: choose(of_client, &self.labels.client, client_name),
            server: choose(of_server, &self.labels.server, server_name),
            port,
            role,
            asked: asked.or_else(|| self.labels.asked.clone()),
        };
        if of_client != Verdict::Doubt && client != Entity::UNKNOWN {
            self.client = client;
        }
        if of_server != Verdict::Doubt && server != Entity::UNKNOWN {
            self.server = server;
        }
        let renamed = verdicts.contains(&Verdict::Better) || verdicts.contains(&Verdict::Another);
        self.others += u32::from(verdicts.contains(&Verdict::Another));
        let moved = renamed.then(|| Move {
            from: self.labels.clone(),
            is_another: verdicts.contains(&Verdict::Another),
            told: self.contribution(),
        });
        if *self.labels != next {
            self.labels = Arc::new(next);
        }

        self.moved = edge.counters != self.told;
        // A row that was told before does not wait for a first name.
        if verdicts.contains(&Verdict::Doubt) {
            if self.unsettled_since.is_none() && edge.counters != self.told {
                // What came since the last look was still for the former one.
                self.told = edge.counters.clone();
            }
            let since = self.unsettled_since.get_or_insert(now);
            // Nobody came in time, but now somebody accepts connections there: who that is will
            // be known soon.
            if self.gave_up && edge.counters.opened != self.told.opened {
                *since = now;
                self.gave_up = false;
            }
        } else if settled {
            self.unsettled_since = None;
            self.gave_up = false;
        }
        let waits = self.unsettled_since.is_some_and(|since| now < since + PATIENCE_SECONDS);
        self.gave_up |= self.unsettled_since.is_some() && !waits;
        if edge.counters != self.told && !waits {
            self.told = edge.counters.clone();
        }
        moved
    }

    /// What the slot has told.
    pub(super) fn told(&self) -> Told<'_> {
        Told { labels: &self.labels, counters: &self.told, others: self.others }
    }

    /// What the slot adds to the row it is called by.
    pub(super) fn contribution(&self) -> Arc<EdgeCounters> {
        let mut counters = self.told.clone();
        if let Some(left) = &self.left {
            Arc::make_mut(&mut counters).separate(left);
        }
        counters
    }

    /// Leaves `told` to the row it was told under, but for the connections that are still open:
    /// they go along. So does an end whose beginning was not seen yet, for the kernel goes on
    /// counting while it is read: it belongs to what comes. Returns what stays.
    pub(super) fn leave(&mut self, told: &EdgeCounters) -> EdgeCounters {
        let mut stays = *told;
        let whole = told.opened.min(told.closed);
        (stays.opened, stays.closed) = (whole, whole);
        self.left.get_or_insert_with(|| Box::new(EdgeCounters::zeroed())).merge(&stays);
        stays
    }
}

/// Compares the name that an end has with the one it would get now.
fn judge(old: &Service, old_entity: Entity, new: &Service, new_entity: Entity) -> Verdict {
    if old.is_called_as(new) {
        return Verdict::Same;
    }
    let is_known = |service: &Service| !service.source.is_provisional();
    // A name from DNS may stand for a container that will be known; another such name is another's.
    let both_asked_for = (old.source, new.source) == (Source::Dns, Source::Dns);
    let another =
        (is_known(old) && is_known(new) || both_asked_for) && old_entity.differs(new_entity);
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
        // A name never gets worse, unless it is somebody else's. Of a name that stood for whoever
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
