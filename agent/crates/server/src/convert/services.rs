//! Services and their health.

use api_types::{AcceptQueue, ClientHealth, Health, ServiceStatus, Services, Timestamp, Window};
use model::health::{self, ServiceView};
use model::snapshot::Snapshot;

use super::ToApi;

/// The services of `snapshot` that match `wanted`.
pub fn services(snapshot: &Snapshot, wanted: impl Fn(&ServiceView) -> bool) -> Services {
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let services = health::services(snapshot);
    // It is the same for all.
    let seconds = services.first().map_or(0.0, |view| view.health.window_seconds);
    let services = services.into_iter().filter(wanted);
    Services {
        timestamp,
        window: Window::before(timestamp, seconds),
        services: services.map(|view| view.to_api()).collect(),
    }
}

impl ToApi for ServiceView {
    type Shape = ServiceStatus;

    fn to_api(&self) -> ServiceStatus {
        let Self { service, registered, listens, serves, health } = self;
        ServiceStatus {
            service: service.name.to_string(),
            service_namespace: service.namespace.to_string(),
            kind: service.kind.to_api(),
            source: service.source.to_api(),
            listens: listens.iter().map(ToString::to_string).collect(),
            serves: serves.iter().map(ToString::to_string).collect(),
            registered: registered.iter().map(ToString::to_string).collect(),
            health: health.to_api(),
        }
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
