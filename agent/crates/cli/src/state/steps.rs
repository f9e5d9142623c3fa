//! What an import does: the requests that lead from one state to another.

use std::collections::BTreeSet;
use std::fmt;

use api_types::{Environment, HOST_NETNS, Protocol, Register, Release, Reserve, Unregister};
use http::Method;

use super::State;
use crate::target::Connection;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Unregister(Unregister),
    Release(Release),
    Register(Register),
    Reserve(Reserve),
}

/// By what a reservation is one of its own.
type Key = (u16, Protocol, Option<Environment>, u32);

/// The steps from `now` to `wanted`. Without `replace` nothing is removed: what the agent has besides
/// stays, and a port that it has reserved for another service is refused by it.
pub(super) fn between(now: &State, wanted: &State, replace: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    // First what may be in the way of the others.
    if replace {
        let names: BTreeSet<&str> = wanted.services.iter().map(|one| &*one.service).collect();
        let gone = now.services.iter().filter(|one| !names.contains(&*one.service));
        steps.extend(gone.map(|one| Step::Unregister(Unregister { service: one.service.clone() })));
        let gone = now.reservations.iter().filter(|one| !wanted.has(one));
        steps.extend(gone.map(|one| Step::Release(release(one))));
    }
    let new = wanted.services.iter().filter(|one| !now.knows(one));
    steps.extend(new.cloned().map(Step::Register));
    let new = wanted.reservations.iter().filter(|one| !now.has(one));
    steps.extend(new.cloned().map(Step::Reserve));
    steps
}

/// A reservation in a few words.
pub(super) fn named(one: &Reserve) -> String {
    let Reserve { port, protocol, service, .. } = one;
    format!("{port}/{} for {service}", protocol.as_str())
}

fn key(one: &Reserve) -> Key {
    (one.port, one.protocol, one.environment, one.netns.unwrap_or(HOST_NETNS))
}

fn release(one: &Reserve) -> Release {
    let (port, protocol, environment, netns) = key(one);
    Release { port, protocol, environment, netns: Some(netns) }
}

// === impl State ===

impl State {
    /// Whether it has this reservation, with all that belongs to it.
    fn has(&self, wanted: &Reserve) -> bool {
        let is_it = |one: &&Reserve| key(one) == key(wanted);
        self.reservations.iter().find(is_it).is_some_and(|one| {
            (&one.service, &one.until, one.enforce)
                == (&wanted.service, &wanted.until, wanted.enforce)
        })
    }

    /// Whether it has this service at these addresses, with this TTL and check.
    fn knows(&self, wanted: &Register) -> bool {
        let addresses = |one: &Register| one.addresses.iter().cloned().collect::<BTreeSet<_>>();
        let is_it = |one: &&Register| one.service == wanted.service;
        self.services.iter().find(is_it).is_some_and(|one| {
            addresses(one) == addresses(wanted)
                && (&one.ttl, &one.check) == (&wanted.ttl, &wanted.check)
        })
    }
}

// === impl Step ===

impl Step {
    /// Requests it from the agent.
    pub(super) fn request(&self, agent: &Connection) -> anyhow::Result<()> {
        let (services, reservations) = ("/api/v1/services", "/api/v1/reservations");
        match self {
            Self::Unregister(request) => agent.change(Method::DELETE, services, request),
            Self::Release(request) => agent.change(Method::DELETE, reservations, request),
            Self::Register(request) => agent.change(Method::POST, services, request),
            Self::Reserve(request) => agent.change(Method::POST, reservations, request),
        }
        .map(|_answer| ())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unregister(Unregister { service }) => write!(f, "unregistered: {service}"),
            Self::Release(Release { port, protocol, .. }) => {
                write!(f, "released: {port}/{}", protocol.as_str())
            }
            Self::Register(Register { service, addresses, ttl, check }) => {
                write!(f, "registered: {service} at {}", addresses.join(", "))?;
                ttl.iter().try_for_each(|ttl| write!(f, ", TTL {ttl}"))?;
                check.iter().try_for_each(|check| write!(f, ", checked by {check}"))
            }
            Self::Reserve(one) => write!(f, "reserved: {}", named(one)),
        }
    }
}

#[cfg(test)]
mod tests {
    use api_types::Timestamp;
    use proptest::prelude::*;

    use super::super::VERSION;
    use super::*;

    /// What the agent would have after a step.
    fn after(mut state: State, step: &Step) -> State {
        match step {
            Step::Unregister(Unregister { service }) => {
                state.services.retain(|one| one.service != *service);
            }
            Step::Release(released) => {
                state.reservations.retain(|one| release(one) != *released);
            }
            Step::Register(new) => {
                state.services.retain(|one| one.service != new.service);
                state.services.push(new.clone());
            }
            Step::Reserve(new) => {
                assert!(state.reservations.iter().all(|one| key(one) != key(new)), "in the way");
                state.reservations.push(new.clone());
            }
        }
        state
    }

    fn states() -> impl Strategy<Value = State> {
        let service = (prop::collection::vec("[12]", 1..3), prop::option::of("[56]s"));
        let services = prop::collection::btree_map("[ab]", service, 0..3);
        let reservations =
            prop::collection::btree_map((1_u16..4, 0_u32..2), ("[ab]", any::<bool>()), 0..4);
        (services, reservations).prop_map(|(services, reservations)| State {
            version: VERSION,
            exported: Timestamp::from_seconds(0.0),
            boot: String::new(),
            services: services
                .into_iter()
                .map(|(service, (addresses, ttl))| Register {
                    service,
                    addresses,
                    ttl,
                    check: None,
                })
                .collect(),
            reservations: reservations
                .into_iter()
                .map(|((port, netns), (service, enforce))| Reserve {
                    port,
                    protocol: Protocol::Tcp,
                    service,
                    environment: None,
                    until: None,
                    enforce,
                    netns: Some(netns),
                })
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn with_replace_the_steps_lead_to_what_is_wanted(now in states(), wanted in states()) {
            let steps = between(&now, &wanted, true);
            let then = steps.iter().fold(now, after);
            prop_assert_eq!(between(&then, &wanted, true), []);
            let lasting = |state: &State| {
                let services = state.services.iter();
                services.map(|one| (one.service.clone(), one.ttl.clone())).collect::<BTreeSet<_>>()
            };
            prop_assert_eq!(lasting(&then), lasting(&wanted));
            prop_assert_eq!(then.reservations.len(), wanted.reservations.len());
        }

        #[test]
        fn without_replace_nothing_is_removed(now in states(), wanted in states()) {
            for step in between(&now, &wanted, false) {
                prop_assert!(matches!(step, Step::Register(_) | Step::Reserve(_)), "{}", step);
            }
        }
    }
}
