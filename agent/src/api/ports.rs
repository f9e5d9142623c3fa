//! `/api/v1/ports`: who has which port. `/api/v1/conflicts`: who wanted one and did not get it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::routes::{Api, Failure};
use crate::state::requests::ReservationShape;
use model::conflicts::Conflict;
use model::ephemeral::EphemeralView;
use model::full_name::FullName;
use model::port::{self, PortView, Protocol};
use model::reservations::Reservation;
use model::snapshot::{ListenerView, Snapshot};
use model::words;

/// `/api/v1/conflicts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflicts {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Inode of the host's network namespace; null if it is not known.
    pub host_netns: Option<u32>,
    /// Failed binds and listens, in the order in which they failed for the last time.
    pub conflicts: Vec<ToldConflict>,
}

/// `/api/v1/ports`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ports {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Inode of the host's network namespace; null if it is not known.
    pub host_netns: Option<u32>,
    /// Ports that somebody has, sorted.
    pub ports: Vec<Port>,
    /// Ports that are reserved now and that nobody has, sorted.
    pub vacant: Vec<ReservationShape>,
    /// Ephemeral ports in use, by network namespace.
    pub ephemeral: Vec<EphemeralView>,
}

/// A port that somebody has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Who has it, and how.
    #[serde(flatten)]
    pub view: PortView,
    /// For whom it is reserved now; null if for nobody.
    pub reserved_for: Option<FullName>,
    /// When somebody else last failed to get it, seconds since the Unix epoch; null if nobody did.
    pub last_conflict_seconds: Option<f64>,
}

/// A conflict with the words for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldConflict {
    /// The facts.
    #[serde(flatten)]
    pub conflict: Conflict,
    /// What happened, in one sentence.
    pub sentence: String,
    /// What to do about it.
    pub mend: String,
}

/// Which conflicts are wanted; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConflictFilter {
    /// Last seen at this time or later, seconds since the Unix epoch.
    since: Option<f64>,
    /// For this port.
    port: Option<u16>,
}

/// Which ports are wanted; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortFilter {
    /// This number.
    port: Option<u16>,
    /// This protocol.
    protocol: Option<Protocol>,
}

pub(super) async fn ports(
    State(api): State<Api>,
    filter: Result<Query<PortFilter>, QueryRejection>,
) -> Result<Json<Ports>, Failure> {
    let Query(filter) =
        filter.map_err(|rejection| Failure::query(&rejection, "port=N, protocol=tcp|udp"))?;
    let snapshot = api.fresh().await?;
    Ok(Json(Ports::of(&snapshot, &filter)))
}

pub(super) async fn conflicts(
    State(api): State<Api>,
    filter: Result<Query<ConflictFilter>, QueryRejection>,
) -> Result<Json<Conflicts>, Failure> {
    let Query(filter) = filter
        .map_err(|rejection| Failure::query(&rejection, "since=SECONDS-SINCE-1970, port=N"))?;
    let snapshot = api.fresh().await?;
    let admits = |conflict: &&Arc<Conflict>| {
        filter.since.is_none_or(|since| conflict.last_seconds >= since)
            && filter.port.is_none_or(|port| conflict.port == port)
    };
    let now = snapshot.taken_seconds;
    let conflicts = snapshot.conflicts.iter().filter(admits);
    let conflicts = conflicts.map(|conflict| ToldConflict::new(conflict)).collect();
    let host_netns = snapshot.kept.host_netns;
    Ok(Json(Conflicts { taken_seconds: now, host_netns, conflicts }))
}

// === impl Ports ===

impl Ports {
    fn of(snapshot: &Snapshot, filter: &PortFilter) -> Self {
        let kept = &snapshot.kept;
        let now = snapshot.taken_seconds.max(0.0) as u64;
        let ports = snapshot.ports.iter().filter(|view| filter.admits(view.port, view.protocol));
        let is_vacant = |one: &&Reservation| {
            let port::Port { number, protocol } = one.port;
            let place = kept.netns_of(one).map(|netns| (number, protocol, netns));
            let has = |view: &PortView| place == Some((view.port, view.protocol, view.netns));
            // The one list of those that the kernel half lists even where it cannot list the other.
            let listens = |listener: &ListenerView| {
                place == Some((listener.port, Protocol::Tcp, listener.netns))
            };
            filter.admits(number, protocol)
                && one.in_force(now, kept.environment)
                && !snapshot.ports.iter().any(has)
                && !snapshot.listeners.iter().any(listens)
        };
        Self {
            taken_seconds: snapshot.taken_seconds,
            host_netns: kept.host_netns,
            ports: ports.map(|view| Port::new(view, snapshot)).collect(),
            vacant: kept.book.reservations.iter().filter(is_vacant).map(Into::into).collect(),
            ephemeral: snapshot.ephemeral.clone(),
        }
    }
}

// === impl PortFilter ===

impl PortFilter {
    fn admits(&self, port: u16, protocol: Protocol) -> bool {
        self.port.is_none_or(|wanted| wanted == port)
            && self.protocol.is_none_or(|wanted| wanted == protocol)
    }
}

// === impl Port ===

impl Port {
    fn new(view: &PortView, snapshot: &Snapshot) -> Self {
        let place = (view.port, view.protocol, view.netns);
        let about =
            |conflict: &&Arc<Conflict>| (conflict.port, conflict.protocol, conflict.netns) == place;
        let last = snapshot.conflicts.iter().rev().find(about);
        let mut view = view.clone();
        // The process that bound it may have left it to others.
        if !std::fs::exists(format!("/proc/{}", view.holder.pid)).unwrap_or(false) {
            view.holder.pid = 0;
        }
        let port = port::Port { number: view.port, protocol: view.protocol };
        let now = snapshot.taken_seconds.max(0.0) as u64;
        let reservation = snapshot.kept.reservation(view.netns, port, now);
        Self {
            view,
            reserved_for: reservation.map(|one| one.service.clone()),
            last_conflict_seconds: last.map(|conflict| conflict.last_seconds),
        }
    }
}

// === impl ToldConflict ===

impl ToldConflict {
    fn new(conflict: &Conflict) -> Self {
        Self {
            sentence: words::sentence(conflict),
            mend: words::mend(conflict),
            conflict: conflict.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::conflicts::Party;
    use model::fixture::snapshot;
    use model::port::PortState;
    use model::service::{Service, Source};

    #[test]
    fn a_port_tells_for_whom_it_is_reserved_and_one_that_nobody_has_is_vacant() {
        let mut snapshot = snapshot();
        let over = Reservation::from_config("9999 gone until=2001-01-01").expect("valid");
        Arc::make_mut(&mut snapshot.kept.book).reservations.configure(&[over]).expect("no clash");
        let host = snapshot.kept.host_netns.expect("known");
        let view = |port, protocol, netns| PortView {
            port,
            protocol,
            address: "0.0.0.0".parse().unwrap(),
            v6_only: false,
            netns,
            state: PortState::Listening,
            holder: Party {
                service: Service::new("python3", Source::Process),
                pid: 0,
                command: "python3".to_owned(),
            },
            uid: 0,
            since_seconds: None,
            sockets: 1,
            backlog: 0,
            max_backlog: 1,
        };
        // 5432/tcp of the host is reserved for postgres, 3001/tcp for prod/shop.
        snapshot.ports = vec![
            view(3001, Protocol::Udp, host),
            view(3001, Protocol::Tcp, host + 1),
            view(5432, Protocol::Tcp, host),
        ];
        let check = |filter: PortFilter, reserved: &[Option<&str>], vacant: &[u16]| {
            let ports = Ports::of(&snapshot, &filter);
            let names: Vec<_> = ports
                .ports
                .iter()
                .map(|one| one.reserved_for.as_ref().map(ToString::to_string))
                .collect();
            assert_eq!(
                names.iter().map(Option::as_deref).collect::<Vec<_>>(),
                reserved,
                "{filter:?}"
            );
            let empty: Vec<_> = ports.vacant.iter().map(|one| one.port).collect();
            assert_eq!(empty, vacant, "{filter:?}");
        };
        let all = || PortFilter { port: None, protocol: None };
        check(all(), &[None, None, Some("postgres")], &[3001]);
        check(PortFilter { port: Some(5432), ..all() }, &[Some("postgres")], &[]);
        check(PortFilter { port: Some(3001), ..all() }, &[None, None], &[3001]);
        check(PortFilter { protocol: Some(Protocol::Udp), ..all() }, &[None], &[]);
        // A listener is enough, where the kernel half cannot list who has a port.
        snapshot.ports.clear();
        assert_eq!(snapshot.listeners[0].port, 5432);
        let vacant = Ports::of(&snapshot, &all()).vacant;
        assert_eq!(vacant.iter().map(|one| one.port).collect::<Vec<_>>(), [3001]);
    }
}
