//! Breaches: another service holds a reserved port.
//!
//! A breach is one holder of one port, however long it lasts and however often it is seen. Names
//! may arrive late (a container's comes after its first socket), so a holder becomes a breach only
//! after it has had a name for some seconds; a bind that a hook denied is a breach at once.

use std::collections::{BTreeMap, VecDeque};

use agent_common::enforced::is_go_between;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::enforcement::command;
use super::full_name::FullName;
use super::port::Port;
use super::reservations::Reservation;
use super::service::{Service, Source};

/// A name that has not become the owner's within this time will not, seconds.
pub const SETTLES: u64 = 3;
/// Maximum number of counters; further ones share one row with port 0 and service `other`.
const MOST_ROWS: usize = 1024;
/// Breaches under way that are remembered at most.
const MOST_STANDING: usize = 4096;
/// Events that are remembered at most; older ones are only counted.
const MOST_EVENTS: usize = 256;

/// The action taken on a breach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Reported only.
    Audited,
    /// Refused.
    Denied,
}

/// A row of counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BreachKey {
    /// The port; `None` on the overflow row.
    pub port: Option<Port>,
    /// The service that it is reserved for.
    pub owner: FullName,
    /// The service that held it or was denied.
    pub offender: FullName,
    /// The action taken.
    pub action: Action,
}

/// One breach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// When it was reported, seconds since the Unix epoch.
    pub at: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The holder's number among the owners of sockets.
    pub owner: u32,
    /// Its row.
    pub key: BreachKey,
}

/// A holder of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The port.
    pub port: Port,
    /// The holder's number among the owners of sockets.
    pub owner: u32,
    /// Its name.
    pub service: Service,
}

/// All breaches since the start.
#[derive(Clone, Debug, Default)]
pub struct Breaches {
    counts: BTreeMap<BreachKey, u64>,
    standing: HashMap<(u32, Port, u32), Standing>,
    events: VecDeque<Breach>,
}

#[derive(Clone, Debug)]
struct Standing {
    since: u64,
    reported: bool,
}

// === impl Action ===

impl Action {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audited => "audited",
            Self::Denied => "denied",
        }
    }
}

// === impl Breaches ===

impl Breaches {
    /// Evaluates the holders of ports at `now`; `reserved` returns the reservation in force for a
    /// port. Returns the new breaches.
    pub fn observe<'a>(
        &mut self,
        now: u64,
        holdings: &[Holding],
        reserved: impl Fn(u32, Port) -> Option<&'a Reservation>,
    ) -> Vec<Breach> {
        let mut found = Vec::new();
        let mut present = HashSet::new();
        for holding in holdings {
            let Holding { netns, port, owner, service } = holding;
            let Some(reservation) = reserved(*netns, *port) else { continue };
            if !is_someone_else(reservation, service) {
                continue;
            }
            let bound = (*netns, *port, *owner);
            let full = self.standing.len() >= MOST_STANDING;
            if full && !self.standing.contains_key(&bound) {
                continue; // It is taken in when another has ended.
            }
            present.insert(bound);
            let standing =
                self.standing.entry(bound).or_insert(Standing { since: now, reported: false });
            if !standing.reported && now.saturating_sub(standing.since) >= SETTLES {
                standing.reported = true;
                found.push(breach(now, holding, reservation, Action::Audited));
            }
        }
        self.standing.retain(|bound, _| present.contains(bound));
        for breach in &found {
            self.count(breach, 1);
        }
        found
    }

    /// Takes in a breach that a hook reported, `times` over.
    pub fn record(
        &mut self,
        now: u64,
        holding: &Holding,
        reservation: &Reservation,
        action: Action,
        times: u64,
    ) -> Breach {
        let Holding { netns, port, owner, .. } = holding;
        if action == Action::Audited && self.standing.len() < MOST_STANDING {
            // If the holder is seen later, it is the same breach.
            let reported = Standing { since: now, reported: true };
            self.standing.insert((*netns, *port, *owner), reported);
        }
        let breach = breach(now, holding, reservation, action);
        self.count(&breach, times);
        breach
    }

    /// Breaches by kind.
    pub fn counts(&self) -> impl Iterator<Item = (&BreachKey, u64)> {
        self.counts.iter().map(|(key, count)| (key, *count))
    }

    /// The last ones, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Breach> {
        self.events.iter()
    }

    fn count(&mut self, breach: &Breach, times: u64) {
        let full = self.counts.len() >= MOST_ROWS && !self.counts.contains_key(&breach.key);
        let key = if full { overflow(breach.key.action) } else { breach.key.clone() };
        *self.counts.entry(key).or_default() += times;
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(breach.clone());
    }
}

/// Whether a holder is known to be a service other than the owner.
pub fn is_someone_else(reservation: &Reservation, service: &Service) -> bool {
    service.source != Source::Unknown
        && !service.is_meant_by(&reservation.service)
        && !is_go_between(&command(&service.name))
}

fn breach(at: u64, holding: &Holding, reservation: &Reservation, action: Action) -> Breach {
    let Holding { netns, port, owner, service } = holding;
    let key = BreachKey {
        port: Some(*port),
        owner: reservation.service.clone(),
        offender: service.into(),
        action,
    };
    Breach { at, netns: *netns, owner: *owner, key }
}

fn overflow(action: Action) -> BreachKey {
    let other = || FullName::from(&Service::other());
    BreachKey { port: None, owner: other(), offender: other(), action }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: u32 = 1;

    fn reservation() -> Reservation {
        Reservation::from_config("5432 postgres").expect("valid")
    }

    fn holding(port: u16, owner: u32, name: &str, source: Source) -> Holding {
        let port = Port::tcp(port);
        Holding { netns: HOST, port, owner, service: Service::new(name, source) }
    }

    fn reserved<'a>(reservation: &'a Reservation) -> impl Fn(u32, Port) -> Option<&'a Reservation> {
        |netns, port| (netns == HOST && port == reservation.port).then_some(reservation)
    }

    fn total(breaches: &Breaches) -> u64 {
        breaches.counts().map(|(_, count)| count).sum()
    }

    #[test]
    fn a_breach_is_reported_once_however_long_it_lasts() {
        let reservation = reservation();
        let mut breaches = Breaches::default();
        let python = [holding(5432, 7, "python3", Source::Process)];
        assert_eq!(breaches.observe(100, &python, reserved(&reservation)), []);
        let found = breaches.observe(100 + SETTLES, &python, reserved(&reservation));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].key.offender.to_string(), "python3");
        assert_eq!(found[0].key.owner.to_string(), "postgres");
        assert_eq!(breaches.observe(200, &python, reserved(&reservation)), []);
        // It ends and starts again: a second breach.
        assert_eq!(breaches.observe(201, &[], reserved(&reservation)), []);
        assert_eq!(breaches.observe(202, &python, reserved(&reservation)), []);
        assert_eq!(breaches.observe(300, &python, reserved(&reservation)).len(), 1);
        assert_eq!(breaches.counts().map(|(_, count)| count).collect::<Vec<_>>(), [2]);
        assert_eq!(breaches.events().count(), 2);
    }

    #[test]
    fn a_late_name_and_a_go_between_are_no_breach() {
        let reservation = reservation();
        let mut breaches = Breaches::default();
        let check = |breaches: &mut Breaches, now, name, source| {
            let holdings = [holding(5432, 7, name, source)];
            assert_eq!(breaches.observe(now, &holdings, reserved(&reservation)), [], "{name}");
        };
        check(&mut breaches, 0, "3f2a9c81d0e4", Source::Container);
        check(&mut breaches, SETTLES + 1, "postgres", Source::Container);
        check(&mut breaches, SETTLES + 2, "docker-proxy", Source::Process);
        check(&mut breaches, 90, "docker-proxy", Source::Process);
        check(&mut breaches, 91, "unknown", Source::Unknown);
        check(&mut breaches, 190, "unknown", Source::Unknown);
        let elsewhere = Holding { netns: 2, ..holding(5432, 7, "x", Source::Process) };
        for second in [191, 291] {
            let seen =
                breaches.observe(second, std::slice::from_ref(&elsewhere), reserved(&reservation));
            assert_eq!(seen, []);
        }
        assert_eq!(total(&breaches), 0);
    }

    #[test]
    fn a_denied_bind_is_not_reported_twice() {
        let reservation = reservation();
        let mut breaches = Breaches::default();
        let python = holding(5432, 7, "python3", Source::Process);
        breaches.record(10, &python, &reservation, Action::Audited, 1);
        assert_eq!(breaches.observe(10, std::slice::from_ref(&python), reserved(&reservation)), []);
        assert_eq!(breaches.observe(99, std::slice::from_ref(&python), reserved(&reservation)), []);
        breaches.record(100, &python, &reservation, Action::Denied, 2);
        let counts: Vec<_> = breaches.counts().map(|(key, n)| (key.action, n)).collect();
        assert_eq!(counts, [(Action::Audited, 1), (Action::Denied, 2)]);
    }

    #[test]
    fn totals_are_exact_when_every_table_is_full() {
        let reservation = reservation();
        let mut breaches = Breaches::default();
        let many = 3 * MOST_STANDING;
        for i in 0..many {
            let one = holding(5432, i as u32, &format!("x{i}"), Source::Process);
            breaches.record(1, &one, &reservation, Action::Denied, 1);
        }
        assert_eq!(total(&breaches), many as u64);
        assert_eq!(breaches.counts().count(), MOST_ROWS + 1);
        assert_eq!(breaches.events().count(), MOST_EVENTS);
    }
}
