//! What the agent was told to keep, next to what really is: finds who has a port that is reserved
//! for somebody else.

use std::cell::Cell;
use std::sync::Arc;

use agent_common::bound::BoundRecord;
use agent_common::listener::ListenerRecord;

use super::kernel::Kernel;
use crate::config::Config;
use crate::state::StateHandle;
use discovery::Names;
use linux::namespaces;
use model::book::Book;
use model::breaches::{Action, Breach, Breaches, Holding};
use model::claims::Failures;
use model::enforcement::{self, Known, Verdicts};
use model::kept::KeptView;
use model::owners::Owners;
use model::port::{Port, Protocol};
use model::reservations::{Environment, Reservation};
use model::service::Service;

/// How long verdicts wait for names at the start.
const NAMES_WITHIN_US: u64 = 5_000_000;

/// Reservations, and their breaches so far.
pub(super) struct Kept {
    desk: StateHandle,
    host_netns: Option<u32>,
    environment: Option<Environment>,
    /// Names that rules of the configuration give.
    given_by_rule: Vec<Service>,
    breaches: Breaches,
    /// Until when verdicts wait for names at the start, CLOCK_MONOTONIC microseconds; 0 once they
    /// are written.
    waits_until_us: Cell<Option<u64>>,
}

/// What a drain showed.
pub(super) struct Seen<'a> {
    /// Now, seconds since the Unix epoch.
    pub now: u64,
    /// Who listens where.
    pub listeners: &'a [ListenerRecord],
    /// Who bound what.
    pub bound: &'a [BoundRecord],
    /// Who was refused what.
    pub refused: &'a [Failures],
}

impl Kept {
    pub(super) fn new(desk: StateHandle, config: &Config) -> Self {
        let host_netns = namespaces::host().ok().map(|namespace| namespace.inode);
        let given_by_rule = config.names.rules.iter().map(|rule| rule.service().clone()).collect();
        let environment = config.ports.environment;
        Self {
            desk,
            host_netns,
            environment,
            given_by_rule,
            breaches: Breaches::default(),
            waits_until_us: Cell::new(None),
        }
    }

    /// What is registered by hand and reserved now.
    pub(super) fn book(&self) -> Arc<Book> {
        self.desk.book()
    }

    /// Tells the kernel half whom to refuse which port at `now` (seconds since the Unix epoch).
    pub(super) fn enforce(
        &self,
        now: u64,
        now_us: u64,
        names: &mut Names,
        owners: &Owners,
        kernel: &mut impl Kernel,
    ) {
        let mut known = Vec::new();
        if self.desk.book().reservations.iter().any(|one| one.enforce) {
            known.extend(owners.iter().map(|(index, row)| {
                let (service, settled) = names.owner(index, row, now_us);
                let age = now_us.saturating_sub(row.born_us) / 1_000_000;
                Known { key: row.key, service, age: if settled { age } else { 0 } }
            }));
        }
        // What an earlier agent has pinned stands until names are there: nobody slips in between.
        let until = self.waits_until_us.get().unwrap_or(now_us + NAMES_WITHIN_US);
        let is_early = now_us < until && known.iter().any(|one| one.age == 0);
        self.waits_until_us.set(Some(if is_early { until } else { 0 }));
        if is_early {
            return;
        }
        let verdicts = self.verdicts(now, &known);
        if verdicts.dropped > 0 {
            tracing::debug!(verdicts.dropped, "some are let in that could be refused a port");
        }
        if let Err(error) = kernel.enforce(verdicts) {
            tracing::warn!("the kernel half does not know all of whom to refuse a port: {error}");
        }
    }

    /// Whom to refuse which port at `now`, as far as `owners` are known.
    fn verdicts(&self, now: u64, owners: &[Known]) -> Verdicts {
        let book = self.desk.book();
        let enforced: Vec<(u32, &Reservation)> = book
            .reservations
            .iter()
            .filter(|one| one.enforce && one.in_force(now, self.environment))
            .filter_map(|one| Some((one.netns.or(self.host_netns)?, one)))
            .collect();
        let given_by_rule = |one: &Reservation| {
            self.given_by_rule.iter().any(|name| name.is_meant_by(&one.service))
        };
        enforcement::verdicts(&enforced, owners, given_by_rule)
    }

    /// Takes in who has which port now: the listeners, what was bound since the agent started, and
    /// what was refused. `name` names the holder of a port, and says whether that is settled.
    pub(super) fn update(
        &mut self,
        seen: &Seen<'_>,
        mut name: impl FnMut(u32, Port, u32) -> (Service, bool),
    ) -> KeptView {
        let book = self.desk.book();
        let Self { host_netns, environment, breaches, .. } = self;
        let reserved = |netns: u32, port: Port| -> Option<&Reservation> {
            let place = (Some(netns) != *host_netns).then_some(netns);
            book.reservations.in_force(place, port, seen.now, *environment)
        };
        let listening = seen
            .listeners
            .iter()
            .map(|record| (record.netns, Port::tcp(record.port), record.owner));
        let bound = seen.bound.iter().filter_map(|record| {
            let protocol = Protocol::from_number(record.protocol)?;
            Some((record.netns, Port { number: record.port, protocol }, record.owner))
        });
        let holdings: Vec<Holding> = listening
            .chain(bound)
            .filter(|(netns, port, _)| reserved(*netns, *port).is_some())
            .map(|(netns, port, owner)| {
                let (service, settled) = name(netns, port, owner);
                // Whose name may still change is nobody yet.
                let service = if settled { service } else { Service::other() };
                Holding { netns, port, owner, service }
            })
            .collect();
        for breach in breaches.observe(seen.now, &holdings, reserved) {
            tell(&breach, 1);
        }
        for Failures { key, count, .. } in seen.refused {
            let Some(protocol) = Protocol::from_number(key.protocol) else { continue };
            let port = Port { number: key.port, protocol };
            // Released since then: it was refused all the same, to nobody that is known now.
            let Some(reservation) = reserved(key.netns, port) else { continue };
            let (netns, owner) = (key.netns, key.owner);
            let service = name(netns, port, owner).0;
            let holding = Holding { netns, port, owner, service };
            let breach = breaches.record(seen.now, &holding, reservation, Action::Denied, *count);
            tell(&breach, *count);
        }
        KeptView {
            host_netns: *host_netns,
            environment: *environment,
            breaches: breaches.counts().map(|(key, count)| (key.clone(), count)).collect(),
            breach_events: breaches.events().cloned().collect(),
            book,
        }
    }
}

fn tell(breach: &Breach, count: u64) {
    let Breach { netns, key, .. } = breach;
    let port = key.port.map(|port| port.to_string());
    let (owner, offender, action) =
        (key.owner.to_string(), key.offender.to_string(), key.action.as_str());
    match breach.key.action {
        Action::Audited => tracing::warn!(
            port,
            netns,
            owner,
            offender,
            action,
            "a reserved port is held by somebody else"
        ),
        Action::Denied => tracing::warn!(
            port,
            netns,
            owner,
            offender,
            action,
            count,
            "a reserved port was refused to somebody else"
        ),
    }
}
