//! Reservations and their breaches.

use api_types::{
    Breach, Finding, Reservation, ReservationStatus, Reservations, Severity, Timestamp, code,
};
use model::breaches::{self, Action, BreachKey};
use model::full_name::FullName;
use model::port::Port;
use model::reservations;
use model::snapshot::{ListenerView, Snapshot};

use super::{ToApi, whole_seconds};

/// The reservations that `snapshot` shows, and their breaches.
pub fn reservations(snapshot: &Snapshot) -> Reservations {
    let reservations = &snapshot.reservations;
    let now = snapshot.taken_seconds.max(0.0) as u64;
    let status = |one: &reservations::Reservation| {
        let netns = one.netns.or(reservations.host_netns);
        let holds = |listener: &&ListenerView| {
            Port::tcp(listener.port) == one.port && Some(listener.netns) == netns
        };
        let holders = snapshot.listeners.iter().filter(holds);
        let mut holders: Vec<String> =
            holders.map(|listener| FullName::from(&listener.service).to_string()).collect();
        holders.dedup();
        let own = |key: &BreachKey| key.port == Some(one.port) && key.owner == one.service;
        let breaches = reservations.breaches.iter().filter(|(key, _)| own(key));
        ReservationStatus {
            reservation: one.to_api(),
            in_force: one.in_force(now, reservations.environment),
            holders,
            breaches: breaches.map(|(_, count)| count).sum(),
        }
    };
    Reservations {
        timestamp: Timestamp::from_seconds(snapshot.taken_seconds),
        reservations: reservations.state.reservations.iter().map(status).collect(),
        breaches: reservations.breach_events.iter().filter_map(breach).collect(),
    }
}

fn breach(breach: &breaches::Breach) -> Option<Breach> {
    let breaches::Breach { at, netns, owner: _, key } = breach;
    let BreachKey { port, owner, offender, action } = key;
    let port = (*port)?;
    let (did, severity) = match action {
        Action::Audited => ("has", Severity::Warning),
        Action::Denied => ("was denied", Severity::Info),
    };
    let title = format!("{offender} {did} {port}, which is reserved for {owner}");
    let mut finding =
        Finding::new(code::RESERVATION_BREACH, severity, &offender.to_string(), title)
            .with("port", port.to_string())
            .with("reserved_for", owner.to_string());
    finding.remediation = Some(format!(
        "give {offender} another port (portolan ports free), or remove the reservation (portolan ports release {port})"
    ));
    finding.since = Some(whole_seconds(*at));
    Some(Breach {
        timestamp: whole_seconds(*at),
        port: port.number,
        protocol: port.protocol.to_api(),
        netns: *netns,
        owner: owner.to_string(),
        offender: offender.to_string(),
        action: action.to_api(),
        finding,
    })
}

impl ToApi for reservations::Reservation {
    type Shape = Reservation;

    fn to_api(&self) -> Reservation {
        let Self { port, netns, environment, service, until, enforce, origin } = self;
        Reservation {
            port: port.number,
            protocol: port.protocol.to_api(),
            service: service.to_string(),
            environment: environment.map(|environment| environment.to_api()),
            until: until.map(whole_seconds),
            enforce: *enforce,
            netns: *netns,
            origin: origin.to_api(),
        }
    }
}
