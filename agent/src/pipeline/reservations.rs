//! Compares port reservations with the holders of ports: reports breaches, and writes the verdicts
//! that the kernel half enforces.

use std::cell::Cell;
use std::sync::Arc;

use agent_common::bound::BoundRecord;
use agent_common::listener::ListenerRecord;

use super::kernel::Kernel;
use crate::config::Config;
use crate::state::StateHandle;
use discovery::{Found, Names};
use linux::namespaces;
use model::breaches::{Action, Breach, Breaches, Holding};
use model::claims::Failures;
use model::enforcement::{self, Known, Verdicts};
use model::line_shares::LineShares;
use model::owners::Owners;
use model::port::{Port, Protocol};
use model::reservation_status::ReservationStatus;
use model::reservations::{Environment, Reservation};
use model::service::Service;
use model::state::State;

/// How long verdicts wait for names after startup.
const NAMES_WITHIN_US: u64 = 5_000_000;

/// Reservations, and their breaches so far.
pub(super) struct ReservationMonitor {
    state: StateHandle,
    host_netns: Option<u32>,
    environment: Option<Environment>,
    /// Names from the rules of the configuration.
    given_by_rule: Vec<Service>,
    breaches: Breaches,
    lines: LineShares,
    /// Until when verdicts wait for names after startup, CLOCK_MONOTONIC microseconds; 0 once they
    /// are written.
    waits_until_us: Cell<Option<u64>>,
}

/// The inputs of one collection.
pub(super) struct Seen<'a> {
    /// Now, seconds since the Unix epoch.
    pub now: u64,
    /// Listening sockets.
    pub listeners: &'a [ListenerRecord],
    /// Bound sockets.
    pub bound: &'a [BoundRecord],
    /// Denied binds.
    pub refused: &'a [Failures],
    /// Whose lines in the log these are.
    pub owners: &'a Owners,
}

impl ReservationMonitor {
    pub(super) fn new(state: StateHandle, config: &Config) -> Self {
        let host_netns = namespaces::host().ok().map(|namespace| namespace.inode);
        let given_by_rule = config.names.rules.iter().map(|rule| rule.service().clone()).collect();
        let environment = config.ports.environment;
        Self {
            state,
            host_netns,
            environment,
            given_by_rule,
            breaches: Breaches::default(),
            lines: LineShares::default(),
            waits_until_us: Cell::new(None),
        }
    }

    /// The reservations and registered services in force.
    pub(super) fn current(&self) -> Arc<State> {
        self.state.current()
    }

    /// Writes the kernel half's verdicts at `now` (seconds since the Unix epoch).
    pub(super) fn enforce(
        &self,
        now: u64,
        now_us: u64,
        names: &mut Names,
        owners: &Owners,
        kernel: &mut impl Kernel,
    ) {
        let mut known = Vec::new();
        if self.state.current().reservations.iter().any(|one| one.enforce) {
            // Who found no row of their own are several, and are let in.
            let own = owners.iter().filter(|(_, row)| !row.key.is_others());
            known.extend(own.map(|(index, row)| {
                let Found { service, stable: is_stable, .. } = names.owner(index, row, now_us);
                let age = now_us.saturating_sub(row.born_us) / 1_000_000;
                Known { key: row.key, service, age: if is_stable { age } else { 0 } }
            }));
        }
        // Verdicts that an earlier agent has pinned stay in force until names are known.
        let until = self.waits_until_us.get().unwrap_or(now_us + NAMES_WITHIN_US);
        let is_early = now_us < until && known.iter().any(|one| one.age == 0);
        self.waits_until_us.set(Some(if is_early { until } else { 0 }));
        if is_early {
            return;
        }
        let verdicts = self.verdicts(now, &known);
        if verdicts.dropped > 0 {
            tracing::debug!(
                verdicts.dropped,
                "the table of verdicts is full: some foreign workloads are allowed"
            );
        }
        if let Err(error) = kernel.enforce(verdicts) {
            tracing::warn!("not all verdicts of enforced reservations are in force: {error}");
        }
    }

    /// The verdicts at `now` for the known `owners`.
    fn verdicts(&self, now: u64, owners: &[Known]) -> Verdicts {
        let state = self.state.current();
        let enforced: Vec<(u32, &Reservation)> = state
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

    /// Evaluates the current holders of ports: listeners, sockets bound since the agent started, and
    /// denied binds. `name` names the holder of a port, and says whether the name is stable.
    pub(super) fn update(
        &mut self,
        seen: &Seen<'_>,
        mut name: impl FnMut(u32, Port, u32) -> (Service, bool),
    ) -> ReservationStatus {
        let state = self.state.current();
        let Self { host_netns, environment, breaches, lines, .. } = self;
        report_left_out(lines.turn(seen.now));
        let mut report = |breach: &Breach, count| {
            if lines.admit(seen.owners.tenant(breach.owner)) {
                log(breach, count);
            }
        };
        let reserved = |netns: u32, port: Port| -> Option<&Reservation> {
            let netns = (Some(netns) != *host_netns).then_some(netns);
            state.reservations.in_force(netns, port, seen.now, *environment)
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
                let (service, is_stable) = name(netns, port, owner);
                // A holder whose name may still change is not evaluated yet.
                let service = if is_stable { service } else { Service::other() };
                Holding { netns, port, owner, service }
            })
            .collect();
        for breach in breaches.observe(seen.now, &holdings, reserved) {
            report(&breach, 1);
        }
        for Failures { key, count, .. } in seen.refused {
            let Some(protocol) = Protocol::from_number(key.protocol) else { continue };
            let port = Port { number: key.port, protocol };
            // Released since: the bind was denied all the same, but its owner is unknown now.
            let Some(reservation) = reserved(key.netns, port) else { continue };
            let (netns, owner) = (key.netns, key.owner);
            let service = name(netns, port, owner).0;
            let holding = Holding { netns, port, owner, service };
            let breach = breaches.record(seen.now, &holding, reservation, Action::Denied, *count);
            report(&breach, *count);
        }
        ReservationStatus {
            host_netns: *host_netns,
            environment: *environment,
            breaches: breaches.counts().map(|(key, count)| (key.clone(), count)).collect(),
            breach_events: breaches.events().cloned().collect(),
            state,
        }
    }
}

fn report_left_out(lines: u64) {
    if lines > 0 {
        tracing::warn!(
            "{lines} more breaches of reservations in the last minute; `portolan ports reservations` counts them"
        );
    }
}

fn log(breach: &Breach, count: u64) {
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
            "a reserved port is held by another service"
        ),
        Action::Denied => tracing::warn!(
            port,
            netns,
            owner,
            offender,
            action,
            count,
            "a bind to a reserved port was denied"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::{Mutex, PoisonError};

    use agent_common::owner::OwnerRow;
    use agent_common::share::Tenant;
    use agent_common::wire::Wire as _;
    use tracing::field::{Field, Visit};
    use tracing::{Event, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::*;
    use crate::state::{StateActor, StateFile};
    use linux::probes::Probes;
    use model::breaches::SETTLES;
    use model::line_shares::LINES_OF_A_TENANT;
    use model::service::Source;

    const HOST: u32 = 1;

    /// Who is said to have a reserved port, line by line.
    #[derive(Clone, Default)]
    struct Offenders(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Offenders {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            event.record(&mut self.clone());
        }
    }

    impl Visit for Offenders {
        fn record_str(&mut self, field: &Field, value: &str) {
            if field.name() == "offender" {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value.to_owned());
            }
        }

        fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
    }

    #[test]
    fn a_tenant_with_many_breaches_leaves_others_their_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, mut state, _) = StateFile::open(&directory.path().join("state"));
        let ports = 40_000..40_031;
        let last = 40_030;
        let reservation = |port: u16| Reservation::from_config(&format!("{port} postgres"));
        let reserved: Vec<_> =
            ports.clone().map(|port| reservation(port).expect("a reservation")).collect();
        state.configure(&reserved);
        let state = StateActor::start(store, state, None, None, Probes::inline()).expect("started");
        let mut monitor = ReservationMonitor::new(state, &Config::default());
        monitor.host_netns = Some(HOST);
        let mut owners = Owners::default();
        for owner in [1u32, 2] {
            let tenant = Tenant { cgroup: owner.into(), origin: HOST.into() };
            owners.insert(owner, OwnerRow { tenant, ..OwnerRow::zeroed() });
        }
        // All of the first one, but for the last.
        let listeners: Vec<_> = ports
            .map(|port| ListenerRecord {
                owner: if port == last { 2 } else { 1 },
                netns: HOST,
                port,
                ..ListenerRecord::zeroed()
            })
            .collect();
        let offenders = Offenders::default();
        let log = tracing_subscriber::registry().with(offenders.clone());
        tracing::subscriber::with_default(log, || {
            for now in [600, 600 + SETTLES] {
                let (bound, refused) = (&[], &[]);
                let seen = Seen { now, listeners: &listeners, bound, refused, owners: &owners };
                monitor.update(&seen, |_, _, owner| {
                    (Service::new(&format!("program{owner}"), Source::Process), true)
                });
            }
        });
        let mut expected = vec!["program1"; LINES_OF_A_TENANT as usize];
        expected.push("program2");
        let offenders = offenders.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*offenders, expected);
    }
}
