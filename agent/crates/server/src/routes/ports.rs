//! `/api/v1/ports` and `/api/v1/conflicts`.

use api_types::{Conflicts, Ports, Timestamp};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use model::port::Protocol;
use serde::Deserialize;

use super::{Api, Failure, Route};
use crate::convert::{self, PortFilter, ToApi as _};

/// A filter of conflicts; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConflictQuery {
    /// Last seen at this time or later.
    since: Option<Timestamp>,
    /// For this port.
    port: Option<u16>,
}

/// A filter of ports; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortQuery {
    /// This number.
    port: Option<u16>,
    /// This protocol.
    protocol: Option<Protocol>,
}

pub(super) fn readable() -> [Route; 2] {
    [("/api/v1/ports", get(ports)), ("/api/v1/conflicts", get(conflicts))]
}

async fn ports(
    State(api): State<Api>,
    query: Result<Query<PortQuery>, QueryRejection>,
) -> Result<Json<Ports>, Failure> {
    let Query(PortQuery { port, protocol }) =
        query.map_err(|rejection| Failure::query(&rejection, "port=N, protocol=tcp|udp"))?;
    let snapshot = api.source.fresh().await?;
    Ok(Json(convert::ports(&snapshot, PortFilter { port, protocol })))
}

async fn conflicts(
    State(api): State<Api>,
    query: Result<Query<ConflictQuery>, QueryRejection>,
) -> Result<Json<Conflicts>, Failure> {
    let Query(ConflictQuery { since, port }) = query
        .map_err(|rejection| Failure::query(&rejection, "since=2026-12-01T10:00:00Z, port=N"))?;
    let snapshot = api.source.fresh().await?;
    let wanted = snapshot.conflicts.iter().filter(|conflict| {
        since.is_none_or(|since| Timestamp::from_seconds(conflict.last_seconds) >= since)
            && port.is_none_or(|port| conflict.port == port)
    });
    Ok(Json(Conflicts {
        timestamp: Timestamp::from_seconds(snapshot.taken_seconds),
        host_netns: snapshot.reservations.host_netns,
        conflicts: wanted.map(|conflict| conflict.to_api()).collect(),
    }))
}
