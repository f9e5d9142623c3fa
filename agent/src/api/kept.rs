//! What the agent keeps, as JSON: reservations with who has the port, services with their health.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::routes::{Api, Failure, Route};
use crate::state::requests::ReservationShape;
use model::breaches::{Action, Breach, BreachKey};
use model::full_name::FullName;
use model::health::{self, Health, ServiceView};
use model::moment;
use model::port::{Port, Protocol};
use model::registry::Endpoint;
use model::reservations::Reservation;
use model::service::{Kind, Source};
use model::snapshot::{ListenerView, Snapshot};

/// `/api/v1/reservations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reservations {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Ports kept for services, sorted.
    pub reservations: Vec<KeptPort>,
    /// The last breaches, oldest first.
    pub breaches: Vec<BreachShape>,
}

/// A reservation, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPort {
    /// The reservation.
    #[serde(flatten)]
    pub reservation: ReservationShape,
    /// Whether it binds anybody now, on this host.
    pub in_force: bool,
    /// Who listens on the port now.
    pub holders: Vec<FullName>,
    /// How often somebody else took it or was refused it, since the start of the agent.
    pub breaches: u64,
}

/// Somebody else took a reserved port, or was refused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreachShape {
    /// When (RFC 3339).
    pub at: String,
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Inode of the network namespace.
    pub netns: u32,
    /// For whom it is reserved.
    pub owner: FullName,
    /// Who took or wanted it.
    pub offender: FullName,
    /// What was done.
    pub action: Action,
    /// One sentence.
    pub sentence: String,
}

/// `/api/v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// The services, sorted by namespace and name.
    pub services: Vec<ServiceShape>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceShape {
    /// Its name.
    pub service: String,
    /// Where that name is unique; empty on a plain host.
    pub service_namespace: String,
    /// What it is.
    pub kind: Kind,
    /// How its name was found.
    pub source: Source,
    /// Ports it listens on here, like `5432/tcp`.
    pub listens: Vec<String>,
    /// Ports of it that somebody connects to.
    pub serves: Vec<String>,
    /// Where it is registered by hand.
    pub registered: Vec<Endpoint>,
    /// How it is.
    pub health: Health,
}

/// Which services are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceFilter {
    /// `postgres` or `shop/postgres`
    service: Option<FullName>,
}

pub(super) fn readable() -> [Route; 2] {
    [("/api/v1/reservations", get(reservations)), ("/api/v1/services", get(services))]
}

async fn reservations(State(api): State<Api>) -> Result<Json<Reservations>, Failure> {
    let snapshot = api.fresh().await?;
    Ok(Json(Reservations::from(&*snapshot)))
}

async fn services(
    State(api): State<Api>,
    filter: Result<Query<ServiceFilter>, QueryRejection>,
) -> Result<Json<Services>, Failure> {
    let Query(ServiceFilter { service }) =
        filter.map_err(|rejection| Failure::query(&rejection, "service=NAME"))?;
    let snapshot = api.fresh().await?;
    let wanted =
        |view: &ServiceView| service.as_ref().is_none_or(|wanted| wanted.means(&view.service));
    let services = health::services(&snapshot).into_iter().filter(wanted);
    Ok(Json(Services {
        taken_seconds: snapshot.taken_seconds,
        services: services.map(ServiceShape::from).collect(),
    }))
}

// === impl Reservations ===

impl From<&Snapshot> for Reservations {
    fn from(snapshot: &Snapshot) -> Self {
        let kept = &snapshot.kept;
        let now = snapshot.taken_seconds.max(0.0) as u64;
        let port = |one: &Reservation| {
            let place = one.netns.or(kept.host_netns);
            let holds = |listener: &&ListenerView| {
                Port::tcp(listener.port) == one.port && Some(listener.netns) == place
            };
            let holders = snapshot.listeners.iter().filter(holds);
            let mut holders: Vec<FullName> =
                holders.map(|listener| FullName::from(&listener.service)).collect();
            holders.dedup();
            let own = |key: &BreachKey| key.port == Some(one.port) && key.owner == one.service;
            let breaches = kept.breaches.iter().filter(|(key, _)| own(key));
            KeptPort {
                reservation: one.into(),
                in_force: one.in_force(now, kept.environment),
                holders,
                breaches: breaches.map(|(_, count)| count).sum(),
            }
        };
        Self {
            taken_seconds: snapshot.taken_seconds,
            reservations: kept.book.reservations.iter().map(port).collect(),
            breaches: kept.breach_events.iter().filter_map(BreachShape::new).collect(),
        }
    }
}

// === impl BreachShape ===

impl BreachShape {
    fn new(breach: &Breach) -> Option<Self> {
        let Breach { at, netns, key: BreachKey { port, owner, offender, action } } = breach;
        let port = (*port)?;
        let did = match action {
            Action::Audited => "has",
            Action::Denied => "wanted, and was refused,",
        };
        Some(Self {
            at: moment::rfc3339(*at),
            port: port.number,
            protocol: port.protocol,
            netns: *netns,
            owner: owner.clone(),
            offender: offender.clone(),
            action: *action,
            sentence: format!("{offender} {did} {port}, which is reserved for {owner}"),
        })
    }
}

// === impl ServiceShape ===

impl From<ServiceView> for ServiceShape {
    fn from(view: ServiceView) -> Self {
        let ServiceView { service, registered, listens, serves, health } = view;
        Self {
            service: service.name.to_string(),
            service_namespace: service.namespace.to_string(),
            kind: service.kind,
            source: service.source,
            listens: listens.iter().map(ToString::to_string).collect(),
            serves: serves.iter().map(ToString::to_string).collect(),
            registered,
            health,
        }
    }
}
