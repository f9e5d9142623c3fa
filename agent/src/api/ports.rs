//! `/api/v1/ports`: who has which port. `/api/v1/conflicts`: who wanted one and did not get it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::routes::{Api, Failure};
use crate::model::conflicts::Conflict;
use crate::model::ephemeral::EphemeralView;
use crate::model::port::{PortView, Protocol};
use crate::model::words;

/// `/api/v1/conflicts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflicts {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Failed binds and listens, oldest first.
    pub conflicts: Vec<ToldConflict>,
}

/// `/api/v1/ports`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ports {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Ports that somebody has, sorted.
    pub ports: Vec<Port>,
    /// Ephemeral ports in use, by network namespace.
    pub ephemeral: Vec<EphemeralView>,
}

/// A port that somebody has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Who has it, and how.
    #[serde(flatten)]
    pub view: PortView,
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
    let admits = |view: &&PortView| {
        filter.port.is_none_or(|port| view.port == port)
            && filter.protocol.is_none_or(|protocol| view.protocol == protocol)
    };
    let ports = snapshot.ports.iter().filter(admits);
    let ports = ports.map(|view| Port::new(view, &snapshot.conflicts)).collect();
    let ephemeral = snapshot.ephemeral.clone();
    Ok(Json(Ports { taken_seconds: snapshot.taken_seconds, ports, ephemeral }))
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
    let conflicts = conflicts.map(|conflict| ToldConflict::new(conflict, now)).collect();
    Ok(Json(Conflicts { taken_seconds: now, conflicts }))
}

impl Port {
    fn new(view: &PortView, conflicts: &[Arc<Conflict>]) -> Self {
        let place = (view.port, view.protocol, view.netns);
        let about =
            |conflict: &&Arc<Conflict>| (conflict.port, conflict.protocol, conflict.netns) == place;
        let last = conflicts.iter().rev().find(about);
        let mut view = view.clone();
        // The process that bound it may have left it to others.
        if !std::fs::exists(format!("/proc/{}", view.holder.pid)).unwrap_or(false) {
            view.holder.pid = 0;
        }
        Self { view, last_conflict_seconds: last.map(|conflict| conflict.last_seconds) }
    }
}

impl ToldConflict {
    fn new(conflict: &Conflict, now: f64) -> Self {
        Self {
            sentence: words::sentence(conflict, now),
            mend: words::mend(conflict),
            conflict: conflict.clone(),
        }
    }
}
