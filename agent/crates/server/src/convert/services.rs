//! Services and their health.

use std::time::Duration;

use api_types::{
    AcceptQueue, ClientHealth, Health, RegisteredAddress, Registration, ServiceStatus, Services,
    Timestamp, Window, WindowChoice,
};
use model::health::{self, ServiceView, Traffic};
use model::registry::Endpoint;
use model::snapshot::Snapshot;
use notation::duration;

use super::edges::since_start;
use super::events::Changes;
use super::{ToApi, whole_seconds};

/// The services of `snapshot` that match `wanted`, with their health over a window.
pub fn services(
    snapshot: &Snapshot,
    window: WindowChoice,
    wanted: impl Fn(&ServiceView) -> bool,
) -> Services {
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let (traffic, seconds) = match window {
        WindowChoice::Last(seconds) => {
            let (steps, covered) = snapshot.recent.steps(seconds);
            (Traffic::of(steps), covered)
        }
        WindowChoice::Start => (snapshot.traffic.clone(), since_start(snapshot)),
    };
    let services = health::services(snapshot, &traffic, seconds);
    let services = services.into_iter().filter(wanted);
    let changes = Changes::new(&snapshot.events);
    let shown = |view: ServiceView| {
        let mut shown = view.to_api();
        if !view.health.reasons.is_empty() {
            shown.changes_before = changes.before(&[&view.service], snapshot.taken_seconds);
        }
        shown
    };
    Services {
        timestamp,
        window: Window::before(timestamp, seconds),
        services: services.map(shown).collect(),
    }
}

impl ToApi for ServiceView {
    type Shape = ServiceStatus;

    fn to_api(&self) -> ServiceStatus {
        let Self { service, registered, registration, listens, serves, health } = self;
        ServiceStatus {
            service: service.name.to_string(),
            service_namespace: service.namespace.to_string(),
            kind: service.kind.to_api(),
            source: service.source.to_api(),
            listens: listens.iter().map(ToString::to_string).collect(),
            serves: serves.iter().map(ToString::to_string).collect(),
            registered: registered.iter().map(ToString::to_string).collect(),
            registration: registration.as_ref().map(|one| with_lease(one, registered)),
            health: health.to_api(),
            changes_before: Vec::new(),
        }
    }
}

fn with_lease(one: &model::registry::Registration, in_force: &[Endpoint]) -> Registration {
    let addresses = one.endpoints.iter().map(|endpoint| RegisteredAddress {
        address: endpoint.to_string(),
        expires: one.until(endpoint).map(whole_seconds),
        is_expired: !in_force.contains(endpoint),
    });
    let ttl = |lease: &model::registry::Lease| duration::text(Duration::from_secs(lease.ttl));
    Registration {
        ttl: one.lease.as_ref().map(ttl),
        check: one.check.as_ref().map(ToString::to_string),
        addresses: addresses.collect(),
    }
}

impl ToApi for health::Health {
    type Shape = Health;

    fn to_api(&self) -> Health {
        let Self {
            state,
            reasons,
            window_seconds: _,
            connects_ok,
            connects_failed,
            success_ratio,
            requests,
            waits,
            unanswered,
            responses,
            errors,
            p50_seconds,
            p99_seconds,
            resets,
            aborts,
            listen_overflows,
            stopping,
            accept_queue,
            as_client,
        } = self;
        let health::ClientHealth {
            connects_ok: own_ok,
            connects_failed: own_failed,
            resets: own_resets,
        } = *as_client;
        Health {
            state: state.to_api(),
            reasons: reasons.iter().map(ToApi::to_api).collect(),
            connects_ok: *connects_ok,
            connects_failed: *connects_failed,
            success_ratio: *success_ratio,
            requests: *requests,
            waits: *waits,
            unanswered: *unanswered,
            responses: *responses,
            errors: *errors,
            p50_seconds: *p50_seconds,
            p99_seconds: *p99_seconds,
            resets: *resets,
            aborts: *aborts,
            listen_overflows: *listen_overflows,
            stopping: *stopping,
            accept_queue: accept_queue
                .map(|health::AcceptQueue { length, limit }| AcceptQueue { length, limit }),
            as_client: ClientHealth {
                connects_ok: own_ok,
                connects_failed: own_failed,
                resets: own_resets,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::registry::{Lease, Registration};
    use model::state::State;

    use super::*;
    use crate::convert::{EndpointQuery, endpoints};

    /// The fixture with one service: two addresses that end after so many seconds, and one that does
    /// not.
    fn with_ends(seconds: [f64; 2]) -> Snapshot {
        let mut snapshot = model::fixture::snapshot();
        let now = snapshot.taken_seconds;
        let places =
            ["203.0.113.7:443", "203.0.113.8:443"].map(|one| one.parse().expect("a place"));
        let mut lease = Lease::new(30, &places, 0);
        for (place, left) in places.iter().zip(seconds) {
            lease.until.insert(*place, (now + left) as u64);
        }
        let one = Registration::new("billing".parse().expect("a name"), places.to_vec());
        let mut state = State::default();
        let one = Registration {
            lease: Some(lease),
            check: Some("tcp".parse().expect("a check")),
            ..one
        };
        state.registry.register(one, 0).expect("free");
        snapshot.reservations.state = Arc::new(state);
        snapshot
    }

    #[test]
    fn an_address_that_was_not_renewed_is_shown_as_expired_and_no_endpoint() {
        let check = |seconds: [f64; 2], in_force: &[&str], expired: Option<[bool; 2]>| {
            let snapshot = with_ends(seconds);
            let query = EndpointQuery {
                services: vec!["billing".to_owned()],
                port: None,
                seconds: 3600,
                loopback: false,
            };
            let found = endpoints(&snapshot, &query).endpoints;
            let found: Vec<_> = found.iter().map(|one| one.socket().to_string()).collect();
            assert_eq!(found, in_force, "{seconds:?}");
            let is_it = |view: &ServiceView| &*view.service.name == "billing";
            let shown = services(&snapshot, WindowChoice::Last(60), is_it).services;
            let registration = shown.first().and_then(|one| one.registration.as_ref());
            let states = registration.map(|one| {
                assert_eq!((one.ttl.as_deref(), one.check.as_deref()), (Some("30s"), Some("tcp")));
                one.addresses.iter().map(|address| address.is_expired).collect::<Vec<_>>()
            });
            assert_eq!(states, expired.map(Vec::from), "{seconds:?}");
            assert!(shown.iter().all(|one| one.registered == in_force), "{seconds:?}");
        };
        let (one, other) = ("203.0.113.7:443", "203.0.113.8:443");
        check([5.0, 5.0], &[one, other], Some([false, false]));
        check([5.0, -1.0], &[one], Some([false, true]));
        check([-2.0, -1.0], &[], Some([true, true]));
        // Forgotten.
        check([-3601.0, -3601.0], &[], None);
    }
}
