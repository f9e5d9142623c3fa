//! Services and their health.

use api_types::{Health, ServiceStatus, Services, Timestamp, Window, WindowChoice};
use model::health::{self, Epochs, ServiceView};
use model::snapshot::Snapshot;

use super::ToApi;
use super::edges::rows;

/// The services of `snapshot` that match `wanted`, with their health over a window.
pub fn services(
    snapshot: &Snapshot,
    window: WindowChoice,
    wanted: impl Fn(&ServiceView) -> bool,
) -> Services {
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let (rows, seconds) = rows(snapshot, window);
    let counted = rows.iter().map(|row| (&*row.labels, &*row.counters));
    let epochs = Epochs::of(snapshot.taken_seconds - seconds, counted);
    let services = health::services_over(snapshot, &epochs);
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
            window_seconds: _,
            connects_ok,
            connects_failed,
            success_ratio,
            requests,
            unanswered,
            p50_seconds,
            p99_seconds,
            resets,
            aborts,
            listen_overflows,
        } = self;
        Health {
            state: state.to_api(),
            connects_ok: *connects_ok,
            connects_failed: *connects_failed,
            success_ratio: *success_ratio,
            requests: *requests,
            unanswered: *unanswered,
            p50_seconds: *p50_seconds,
            p99_seconds: *p99_seconds,
            resets: *resets,
            aborts: *aborts,
            listen_overflows: *listen_overflows,
        }
    }
}
