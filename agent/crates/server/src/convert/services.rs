//! Services and their health.

use api_types::{
    AcceptQueue, ClientHealth, Health, ServiceStatus, Services, Timestamp, Window, WindowChoice,
};
use model::health::{self, ServiceView, Traffic};
use model::snapshot::Snapshot;

use super::ToApi;
use super::edges::since_start;
use super::events::Changes;

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
            changes_before: Vec::new(),
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
